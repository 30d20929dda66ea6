//! `sql`: a table from tables.

use anyhow::Context;
use argent_engine::operator::ConfigFiles;
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::sql::parser::DFParser;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::sql::session::{
    changing_function, columns_read, marked, message, plan, reads_phi, step_session, stored_batch,
    stored_schema, table_name, wait,
};

/// Answers a query over the step's inputs, which are its tables by their names under `from`. It is keyed by
/// the query's meaning and by the columns that it reads: white space changes nothing, nor does a column that
/// it does not read.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sql {
    /// The query: one `select`. Functions whose value changes by themselves (`now`, `random`) are refused.
    #[schemars(extend("x-not-in-key" = "the query enters the key by its syntax tree"))]
    pub query: String,
    /// The columns that name a row of the result; left out, all columns together.
    #[serde(default)]
    pub keys: Vec<String>,
}

impl Operator for Sql {
    fn ports(&self) -> Vec<Port> {
        vec![Port::any("The query's tables, by name.")]
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let statements = DFParser::parse_sql(&self.query).map_err(|error| {
            vec![Problem::at(["with", "query"], format!("the query does not read: {}", message(&error)))]
        })?;
        let tree: Vec<String> = statements.iter().map(ToString::to_string).collect();
        files.uses("query", json!(tree));
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let at_query = |text: String| vec![Problem::at(["with", "query"], text)];
        let session = step_session();
        for (port, input) in &inputs.ports {
            let empty = RecordBatch::new_empty(input.schema.clone());
            let empty = marked(&empty).map_err(|e| at_query(e.to_string()))?;
            session.register_batch(table_name(port), empty).map_err(|e| at_query(message(&e)))?;
        }
        let frame = wait(plan(&session, &self.query)).map_err(|e| self.problem(&message(&e), inputs))?;
        if let Some(name) = changing_function(frame.logical_plan()).map_err(|e| at_query(message(&e)))? {
            let problem = Problem::at(["with", "query"], format!("`{name}` gives another value each time"));
            return Err(vec![
                problem.help("a stored result must be the same whenever it is made; take the function away"),
            ]);
        }
        let optimised = frame.clone().into_optimized_plan().map_err(|e| at_query(message(&e)))?;
        let read = columns_read(&optimised).map_err(|e| at_query(message(&e)))?;
        let phi = reads_phi(&optimised).map_err(|e| at_query(message(&e)))?;
        let schema = stored_schema(frame.schema().as_arrow(), phi);
        self.check_keys(&schema)?;
        let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        let mut signature = Signature::new(schema, &keys);
        for (port, input) in &inputs.ports {
            // Key columns are always read: they say which rows there are.
            let read = read.get(&table_name(port)).cloned().unwrap_or_default();
            let all = input.schema.fields().iter().map(|f| f.name().clone());
            let wanted = |name: &String| read.contains(name) || input.keys.contains(name);
            // In the order of the table, so that `*` means the same as when the query was planned.
            let columns: Vec<String> = all.clone().filter(wanted).collect();
            signature = signature.reads(port, if columns.is_empty() { all.collect() } else { columns });
        }
        Ok(signature)
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let session = step_session();
        for port in io.ports() {
            session.register_batch(table_name(&port), marked(io.input(&port)?)?)?;
        }
        let schema = io.schema("")?;
        let batches =
            wait(async { plan(&session, &self.query).await?.collect().await }).context("the query")?;
        for batch in batches {
            io.emit("", stored_batch(&batch, &schema)?)?;
        }
        Ok(())
    }
}

impl Sql {
    fn problem(&self, message: &str, inputs: &Inputs) -> Vec<Problem> {
        let tables: Vec<String> = inputs.ports.keys().map(|p| table_name(p)).collect();
        vec![Problem::at(["with", "query"], message).help(format!("the tables are {}", tables.join(", ")))]
    }

    fn check_keys(&self, schema: &SchemaRef) -> Result<(), Vec<Problem>> {
        let absent = self.keys.iter().enumerate().filter(|(_, key)| schema.field_with_name(key).is_err());
        let problems: Vec<Problem> = absent
            .map(|(place, key)| {
                Problem::at(
                    ["with".to_owned(), "keys".into(), place.to_string()],
                    format!("the result has no column `{key}`"),
                )
            })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}
