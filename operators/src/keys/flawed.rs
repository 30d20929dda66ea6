//! Parameters with every flaw that a key can have, for a test of the test.

use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Some fields of it enter the key, and some do not.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields exist to be described, read and written")]
pub(super) struct Flawed {
    /// In the key.
    good: String,
    /// Out of the key, for a reason.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "how fast is not what"))]
    explained: Option<u32>,
    /// Out of the key, without a mark.
    #[serde(default, skip_serializing)]
    forgotten: bool,
    /// Out of the key, with an empty mark.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = " "))]
    unexplained: bool,
    /// Further fields.
    #[serde(default)]
    inner: Option<Vec<Inner>>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields exist to be described, read and written")]
struct Inner {
    good: [f64; 2],
    #[serde(skip_serializing)]
    forgotten: String,
}

impl Operator for Flawed {
    fn ports(&self) -> Vec<Port> {
        Vec::new()
    }

    fn signature(&self, _inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        Ok(Signature::default())
    }

    fn run(&self, _io: &mut Io) -> anyhow::Result<()> {
        Ok(())
    }
}
