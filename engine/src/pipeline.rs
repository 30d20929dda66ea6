//! A pipeline that can run: every step's operator decoded, its inputs joined up, its schemas known.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::datatypes::{Field, SchemaRef};
use serde_json::Value;

use crate::axes::{self, Combination};
use crate::drift::Rerun;
use crate::operator::{Kind, Operator, Signature, nearest};
use crate::statics::StaticAnswers;

/// A checked pipeline; its nodes stand in an order in which each comes after those that it reads.
pub struct Pipeline {
    /// The pipeline's name.
    pub name: String,
    /// The path of its spec.
    pub spec: PathBuf,
    /// The folder that relative paths start from.
    pub folder: PathBuf,
    /// The steps, and the contracts behind the steps that they watch.
    pub nodes: Vec<Node>,
    /// The static answers that checking it used.
    pub statics: StaticAnswers,
}

impl Pipeline {
    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }

    /// The steps, without the contracts on them.
    pub fn steps(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.contract.is_none())
    }

    /// The step of that name; the axes of a combination may stand in any order.
    ///
    /// # Errors
    /// What to say where there is none, with the name that may be meant.
    pub fn step(&self, name: &str) -> Result<&Node, String> {
        let wanted = axes::parse(name).map(|(base, axes)| (base.to_owned(), sorted(&axes)));
        let same = |node: &&Node| {
            node.name == name || wanted.as_ref() == Some(&(node.written.clone(), sorted(&node.combination)))
        };
        if let Some(node) = self.steps().find(same) {
            return Ok(node);
        }
        let mut combinations = self.steps().filter(|node| node.written == name);
        if let Some(first) = combinations.next() {
            let count = combinations.count() + 1;
            return Err(format!(
                "`{name}` has a matrix: name one of its {count}, such as \"{}\"",
                first.name
            ));
        }
        let names: Vec<&str> = self.steps().map(|node| node.name.as_str()).collect();
        Err(format!("there is no step `{name}`; {}", nearest(name, &names, "steps")))
    }
}

fn sorted(axes: &[(String, String)]) -> Combination {
    let mut axes = axes.to_vec();
    axes.sort();
    axes
}

/// One step that can run.
pub struct Node {
    /// The step's name, with its combination.
    pub name: String,
    /// Its name as written, which all of its combinations share.
    pub written: String,
    /// Its combination of the matrix; empty where it has none.
    pub combination: Combination,
    /// Words to select it by.
    pub tags: Vec<String>,
    /// The operator's name.
    pub operator_name: &'static str,
    /// The operator's revision.
    pub revision: u32,
    /// How output rows depend on input rows.
    pub kind: Kind,
    /// Whether `plan` itself may run it.
    pub quick: bool,
    /// The operator with its parameters.
    pub operator: Box<dyn Operator>,
    /// The parameters that enter the key, defaults filled in.
    pub params: Value,
    /// By parameter: the parsed part of a configuration file that enters the key.
    pub files: BTreeMap<String, Value>,
    /// By parameter: the path of that file, for explanations.
    pub file_paths: BTreeMap<String, String>,
    /// The tables that it reads.
    pub inputs: Vec<NodeInput>,
    /// What it reads and makes.
    pub signature: Signature,
    /// The tables that it makes, with the columns that the engine adds.
    pub outputs: BTreeMap<String, TableShape>,
    /// What it needs to itself.
    pub needs: BTreeMap<String, u32>,
    /// When a changed input makes it run again; none: always.
    pub rerun: Option<Rerun>,
    /// Set for a contract: what it watches.
    pub contract: Option<ContractOf>,
}

/// One table that a node reads. The combinations of a matrix that are gathered fill one port together.
#[derive(Debug, Clone)]
pub struct NodeInput {
    /// The port that it fills.
    pub port: String,
    /// The place of the node that makes it in [`Pipeline::nodes`].
    pub node: usize,
    /// Which of that node's outputs; empty for the main one.
    pub output: String,
    /// The id column on which it is joined.
    pub on: String,
    /// The columns in front that tell it from the others that are gathered, and the types of these columns;
    /// empty where it fills the port alone.
    pub axes: Vec<AxisCell>,
}

/// The value of one axis, in the rows of one gathered table.
#[derive(Debug, Clone)]
pub struct AxisCell {
    /// The axis's column.
    pub field: Field,
    /// The value.
    pub value: String,
}

/// The columns and keys of a table.
#[derive(Debug, Clone)]
pub struct TableShape {
    /// The columns.
    pub schema: SchemaRef,
    /// The columns that name a row.
    pub keys: Vec<String>,
}

/// A contract's place: which node it watches, and how gravely.
#[derive(Debug, Clone)]
pub struct ContractOf {
    /// The place of the watched node in [`Pipeline::nodes`].
    pub node: usize,
    /// The predicate, as written.
    pub sql: String,
    /// Whether a breach only tells.
    pub warn: bool,
}
