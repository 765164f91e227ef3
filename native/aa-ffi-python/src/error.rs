//! One error in, one conversion to Python's `agent_assembly.exceptions.PolicyError` out.

use aasm_policy::{Diagnostic, Diagnostics};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

pub(crate) enum Error {
    /// The policies do not check.
    Policies(Diagnostics),
    /// The call is not the JSON that was promised.
    Call(serde_json::Error),
    Verdict(serde_json::Error),
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Error {
        Error::Policies(diagnostics)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Error {
        Error::Verdict(error)
    }
}

impl Error {
    /// The Python error; without the SDK, whose class it is, the ImportError that says so.
    pub fn into_python(self, py: Python<'_>) -> PyErr {
        self.build(py).unwrap_or_else(|error| error)
    }

    fn build(self, py: Python<'_>) -> PyResult<PyErr> {
        let (message, diagnostics) = match self {
            Error::Policies(diagnostics) => (diagnostics.to_string(), diagnostics.0),
            Error::Call(error) => (format!("the call is not valid: {error}"), Vec::new()),
            Error::Verdict(error) => (format!("the verdict cannot be written: {error}"), Vec::new()),
        };
        let list = PyList::empty(py);
        for diagnostic in &diagnostics {
            list.append(mapping(py, diagnostic)?)?;
        }
        let keywords = PyDict::new(py);
        keywords.set_item("diagnostics", list)?;
        let class = py.import("agent_assembly.exceptions")?.getattr("PolicyError")?;
        Ok(PyErr::from_value(class.call((message,), Some(&keywords))?))
    }
}

fn mapping<'py>(py: Python<'py>, diagnostic: &Diagnostic) -> PyResult<Bound<'py, PyDict>> {
    let mapping = PyDict::new(py);
    mapping.set_item("file", &diagnostic.file)?;
    mapping.set_item("line", diagnostic.line)?;
    mapping.set_item("column", diagnostic.column)?;
    mapping.set_item("text", &diagnostic.text)?;
    mapping.set_item("message", &diagnostic.message)?;
    mapping.set_item("suggestion", diagnostic.suggestion.as_deref())?;
    Ok(mapping)
}
