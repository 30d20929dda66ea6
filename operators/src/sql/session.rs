//! What every query shares: one configuration, one way to plan, one way to wait.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, LazyLock};

use argent_engine::column;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::MemoryCatalogProviderList;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::prelude::{DataFrame, SQLOptions, SessionConfig, SessionContext};

/// What all steps' sessions share: setting up functions and rules takes longer than planning a short query.
static STEP_STATE: LazyLock<SessionState> =
    LazyLock::new(|| SessionContext::new_with_config(configuration().with_target_partitions(1)).state());

/// A session for steps: one partition, so that sums of floating-point numbers repeat.
pub(crate) fn step_session() -> SessionContext {
    let state = SessionStateBuilder::new_from_existing(STEP_STATE.clone())
        .with_config(configuration().with_target_partitions(1).with_create_default_catalog_and_schema(true))
        // Each has its own tables.
        .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()));
    SessionContext::new_with_state(state.build())
}

/// A session that tells the places of mistakes in a query. Planning is slower in it, so it is asked only where
/// something is wrong.
pub(crate) fn placing_session() -> SessionContext {
    let mut config = configuration().with_target_partitions(1);
    config.options_mut().sql_parser.collect_spans = true;
    SessionContext::new_with_config(config)
}

/// A session for questions: as many partitions as there are cores.
pub(crate) fn question_session() -> SessionContext {
    let config =
        configuration().with_default_catalog_and_schema("store", "public").with_information_schema(true);
    SessionContext::new_with_config(config)
}

fn configuration() -> SessionConfig {
    let mut config = SessionConfig::new();
    // Text is one type in the store; views of it would be another.
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    config
}

/// Plans a query that only reads, to be run.
pub(crate) async fn plan(session: &SessionContext, query: &str) -> Result<DataFrame> {
    session.sql_with_options(query, reads_only()).await
}

/// Plans a query that only reads, to be looked at.
pub(crate) async fn logical_plan(state: &SessionState, query: &str) -> Result<LogicalPlan> {
    let plan = state.create_logical_plan(query).await?;
    reads_only().verify_plan(&plan)?;
    Ok(plan)
}

fn reads_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// Waits for a future on a plain thread: on the program's runtime where there is one.
pub(crate) fn wait<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(handle) => handle.block_on(future),
        Err(_) => {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.map_err(|e| DataFusionError::External(e.into()))?.block_on(future)
        }
    }
}

/// A message of DataFusion without the names of its layers and without its list of candidates.
pub(crate) fn message(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let text = text.lines().next().unwrap_or_default();
    let layers =
        ["Error during planning: ", "Schema error: ", "SQL error: ", "This feature is not implemented: "];
    let mut text = text;
    while let Some(rest) = layers.iter().find_map(|layer| text.strip_prefix(layer)) {
        text = rest;
    }
    text.trim_end_matches('.').to_owned()
}

/// The name under which a table is found: lower case, hyphens as underscores.
pub(crate) fn table_name(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// The columns that an optimised plan reads, by table; an empty list where only rows are counted.
pub(crate) fn columns_read(plan: &LogicalPlan) -> Result<BTreeMap<String, Vec<String>>> {
    let mut read: BTreeMap<String, Vec<String>> = BTreeMap::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let columns = read.entry(scan.table_name.table().to_owned()).or_default();
            columns.extend(scan.projected_schema.fields().iter().map(|f| f.name().clone()));
            for filter in &scan.filters {
                columns.extend(filter.column_refs().into_iter().map(|c| c.name.clone()));
            }
            columns.sort();
            columns.dedup();
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(read)
}

/// Whether an optimised plan reads a column that holds patient text; ids alone do not count.
pub(crate) fn reads_phi(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let phi = |f: &Field| column::has_role(f, "phi") && !column::has_role(f, "id");
            found |= scan.projected_schema.fields().iter().any(|f| phi(f));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The first function of a plan whose value is not decided by its arguments (`random`, `now`).
pub(crate) fn changing_function(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if let Expr::ScalarFunction(call) = part
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    found = Some(call.func.name().to_owned());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// The metadata by which a stored column is told from one that a query computes.
const STORED: &str = "stored";

/// The same table, its columns marked as stored.
pub(crate) fn marked(batch: &RecordBatch) -> arrow::error::Result<RecordBatch> {
    let mark = |field: &Field| {
        let mut metadata = field.metadata().clone();
        metadata.insert(STORED.to_owned(), String::new());
        field.clone().with_metadata(metadata)
    };
    let schema = column::schema(batch.schema().fields().iter().map(|f| mark(f)));
    RecordBatch::try_new(schema, batch.columns().to_vec())
}

/// A result's schema in the types of the store, with roles kept; text that is computed from patient text
/// counts as patient text.
pub(crate) fn stored_schema(schema: &Schema, reads_phi: bool) -> SchemaRef {
    column::schema(schema.fields().iter().map(|field| {
        let data_type = stored_type(field.data_type());
        let mut metadata = field.metadata().clone();
        let derived = metadata.remove(STORED).is_none();
        let text = data_type == DataType::Utf8;
        let field = Field::new(field.name(), data_type, true).with_metadata(metadata);
        if derived && text && reads_phi { column::with_roles(field, &["phi"]) } else { field }
    }))
}

/// The same rows in a schema that [`stored_schema`] gave.
///
/// # Errors
/// When a column does not cast, which a planned type rules out.
pub(crate) fn stored_batch(batch: &RecordBatch, schema: &SchemaRef) -> anyhow::Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns: Vec<ArrayRef> =
        columns.map(|(column, field)| Ok(cast(column, field.data_type())?)).collect::<anyhow::Result<_>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn stored_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, values) => stored_type(values),
        DataType::UInt64 => DataType::Int64,
        DataType::Null => DataType::Utf8,
        other => other.clone(),
    }
}
