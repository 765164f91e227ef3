//! The native module `agent_assembly_core._core`: converts, maps errors and drops the GIL, nothing else.

mod convert;
mod error;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    use aasm_policy::{Source, load};
    use pyo3::prelude::*;

    use crate::convert::CallText;
    use crate::error;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }

    /// Return the verdict on a call under some policies, as JSON.
    #[pyfunction]
    fn evaluate(py: Python<'_>, policies: Vec<(String, String)>, call_json: &str) -> PyResult<String> {
        let verdict = py.detach(|| {
            let call = CallText::parse(call_json)?;
            let sources: Vec<Source<'_>> = policies.iter().map(|(name, text)| Source { name, text }).collect();
            let set = load(&sources)?;
            Ok(serde_json::to_string(&aasm_policy::evaluate(&[&set], &call.call()))?)
        });
        verdict.map_err(|error: error::Error| error.into_python(py))
    }
}
