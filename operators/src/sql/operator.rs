//! `sql`: a table from tables.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use argent_engine::operator::{ConfigFiles, nearest};
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature, column};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::sql::mistake::{Mistake, mistake, table};
use crate::sql::session::{
    changing_function, columns_read, logical_plan, marked, message, placing_session, plan, reads_phi,
    step_session, stored_batch, stored_schema, table_name, wait,
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
        let statements = DFParser::parse_sql(&self.query)
            .map_err(|error| vec![placed(mistake(&error, &self.query, &[]))])?;
        let is_query = |statement: &Statement| matches!(statement, Statement::Statement(inner) if matches!(**inner, ast::Statement::Query(_)));
        if statements.len() != 1 || !statements.iter().all(is_query) {
            let found = match statements.len() {
                1 => "a statement of another kind".to_owned(),
                count => format!("{count} statements"),
            };
            let message = format!("expected one query, which begins with `select` or `with`, found {found}");
            return Err(vec![Problem::at(["with", "query"], message)]);
        }
        let tree: Vec<String> = statements.iter().map(ToString::to_string).collect();
        files.uses("query", json!(tree));
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let at_query = |text: String| vec![Problem::at(["with", "query"], text)];
        let session = step_session();
        register(&session, inputs).map_err(|e| at_query(message(&e)))?;
        let state = session.state();
        let plan = wait(logical_plan(&state, &self.query)).map_err(|e| self.problem(e, inputs))?;
        if let Some(name) = changing_function(&plan).map_err(|e| at_query(message(&e)))? {
            let call =
                Mistake::at_word(&self.query, &name, format!("`{name}` gives another value each time"));
            return Err(vec![placed(
                call.help("a stored result must be the same whenever it is made; take the function away"),
            )]);
        }
        let optimised = state.optimize(&plan).map_err(|e| self.problem(e, inputs))?;
        let read = columns_read(&optimised).map_err(|e| at_query(message(&e)))?;
        let phi = reads_phi(&optimised).map_err(|e| at_query(message(&e)))?;
        let schema = stored_schema(plan.schema().as_arrow(), phi);
        self.check_keys(&schema)?;
        let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        let mut signature = Signature::new(schema, &keys);
        let mut wanted: Columns = inputs
            .ports
            .iter()
            .map(|(port, input)| {
                // Key columns are always read: they say which rows there are.
                let read = read.get(&table_name(port)).cloned().unwrap_or_default();
                let columns =
                    names(&input.schema).filter(|name| read.contains(name) || input.keys.contains(name));
                let columns: BTreeSet<String> = columns.collect();
                (port.clone(), if columns.is_empty() { names(&input.schema).collect() } else { columns })
            })
            .collect();
        self.add_named(inputs, &mut wanted).map_err(|e| at_query(message(&e)))?;
        for (port, input) in &inputs.ports {
            // In the order of the table, so that `*` means the same as when the query was planned.
            let columns: Vec<String> =
                names(&input.schema).filter(|name| wanted[port].contains(name)).collect();
            signature = signature.reads(port, columns);
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
    /// Adds the columns that the query names and does not need: where a part of it folds to a constant, as
    /// `where true or state = 'present'` does, it reads fewer columns than it takes to understand it.
    fn add_named(&self, inputs: &Inputs, wanted: &mut Columns) -> datafusion::error::Result<()> {
        if self.is_understood(inputs, wanted)? {
            return Ok(());
        }
        let all: Columns =
            inputs.ports.iter().map(|(port, input)| (port.clone(), names(&input.schema).collect())).collect();
        for (port, columns) in &all {
            for column in columns {
                let mut without = all.clone();
                without.entry(port.clone()).or_default().remove(column);
                if !self.is_understood(inputs, &without)? {
                    wanted.entry(port.clone()).or_default().insert(column.clone());
                }
            }
        }
        Ok(())
    }

    /// Whether the query can be planned where its tables have these columns alone.
    fn is_understood(&self, inputs: &Inputs, columns: &Columns) -> datafusion::error::Result<bool> {
        let session = step_session();
        for (port, input) in &inputs.ports {
            let kept = input.schema.fields().iter().filter(|field| columns[port].contains(field.name()));
            let schema = column::schema(kept.map(|field| field.as_ref().clone()));
            session.register_batch(table_name(port), marked(&RecordBatch::new_empty(schema))?)?;
        }
        Ok(wait(logical_plan(&session.state(), &self.query)).is_ok())
    }

    /// What is wrong with the query. It is planned once more for the place.
    fn problem(&self, error: DataFusionError, inputs: &Inputs) -> Vec<Problem> {
        let session = placing_session();
        let again = register(&session, inputs).and_then(|()| {
            wait(async { plan(&session, &self.query).await?.into_optimized_plan().map(drop) })
        });
        let error = again.err().unwrap_or(error);
        let tables: Vec<_> = inputs.ports.iter().map(|(port, input)| table(port, &input.schema)).collect();
        vec![placed(mistake(&error, &self.query, &tables))]
    }

    fn check_keys(&self, schema: &SchemaRef) -> Result<(), Vec<Problem>> {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let absent = self.keys.iter().enumerate().filter(|(_, key)| schema.field_with_name(key).is_err());
        let problems: Vec<Problem> = absent
            .map(|(place, key)| {
                Problem::at(
                    ["with".to_owned(), "keys".into(), place.to_string()],
                    format!("the result has no column `{key}`"),
                )
                .help(nearest(key, &names, "columns"))
            })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// The columns of tables, by port.
type Columns = BTreeMap<String, BTreeSet<String>>;

fn names(schema: &SchemaRef) -> impl Iterator<Item = String> {
    schema.fields().iter().map(|field| field.name().clone())
}

/// The step's tables, without rows.
fn register(session: &SessionContext, inputs: &Inputs) -> datafusion::error::Result<()> {
    for (port, input) in &inputs.ports {
        let empty = marked(&RecordBatch::new_empty(input.schema.clone()))?;
        session.register_batch(table_name(port), empty)?;
    }
    Ok(())
}

/// A mistake in the query, at its place there.
fn placed(mistake: Mistake) -> Problem {
    let Mistake { message, part, help } = mistake;
    let problem = Problem { part, ..Problem::at(["with", "query"], message) };
    help.into_iter().fold(problem, Problem::help)
}
