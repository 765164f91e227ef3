//! What crosses the boundary as JSON.

use std::borrow::Cow;

use aasm_policy::{Call, Kind};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Error;

/// A call as the body of `/v1/check` has it; other fields are ignored.
#[derive(Deserialize)]
pub(crate) struct CallText<'a> {
    kind: Kind,
    #[serde(borrow)]
    tool: Cow<'a, str>,
    #[serde(borrow, default)]
    framework: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    server: Option<Cow<'a, str>>,
    #[serde(borrow)]
    args: &'a RawValue,
}

impl<'a> CallText<'a> {
    pub fn parse(json: &'a str) -> Result<CallText<'a>, Error> {
        serde_json::from_str(json).map_err(Error::Call)
    }

    pub fn call(&self) -> Call<'_> {
        Call {
            kind: self.kind,
            tool: &self.tool,
            framework: self.framework.as_deref(),
            server: self.server.as_deref(),
            args: self.args,
        }
    }
}
