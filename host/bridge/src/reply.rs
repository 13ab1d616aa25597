//! The result of a call.

use serde::Serialize;

use crate::fault::Fault;

/// The result of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The JSON text of the result.
    pub json: String,
    /// Bulk data: none, one or two byte strings, as `PROTOCOL.md` says for each method.
    pub parts: Vec<Vec<u8>>,
}

impl Reply {
    /// Returns a result without bulk data.
    pub(crate) fn json(value: impl Serialize) -> Result<Reply, Fault> {
        Reply::with(value, vec![])
    }

    /// Returns a result with bulk data.
    pub(crate) fn with(value: impl Serialize, parts: Vec<Vec<u8>>) -> Result<Reply, Fault> {
        match serde_json::to_string(&value) {
            Ok(json) => Ok(Reply { json, parts }),
            Err(error) => Err(Fault::new("internal", format!("the result cannot be written as JSON: {error}"))),
        }
    }

    /// Returns the result of a call that has nothing to report.
    pub(crate) fn null() -> Result<Reply, Fault> {
        Ok(Reply { json: "null".to_owned(), parts: vec![] })
    }
}
