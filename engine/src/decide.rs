//! What becomes of a step: one function, [`Decider::decide`], says it; `plan` shows what it says and `run`
//! does it. It sees values only, never clocks or names.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use argent_cache::{Digest, DigestMap, Manifest};
use serde_json::Value;

use crate::drift;
use crate::engine::Engine;
use crate::operator::{FILES, Kind};
use crate::pipeline::Node;
use crate::recipe;
use crate::rows::{RowWork, keyed_columns};
use crate::table::{self, Member, Table};

/// What becomes of a step.
pub(crate) enum Decision {
    /// Its stored result holds.
    Reuse(Result),
    /// Its inputs changed by less than its `rerun` asks for, so its last result holds.
    Accept(Result, f64),
    /// It has work to do.
    Run(Box<Work>),
}

/// A step's result: the manifest, and the digest of the blob that holds it.
#[derive(Debug, Clone)]
pub(crate) struct Result {
    pub(crate) digest: Digest,
    pub(crate) manifest: Arc<Manifest>,
}

/// What a step has to do, and why.
pub(crate) struct Work {
    pub(crate) key: Digest,
    pub(crate) recipe: Value,
    pub(crate) inputs: BTreeMap<String, Table>,
    /// Of a row operator: its rows, and which of them are pending.
    pub(crate) rows: Option<RowWork>,
    pub(crate) why: Vec<String>,
    /// The result that the step's name stands for now.
    pub(crate) last: Option<Manifest>,
}

/// Decides about steps, from the values of their inputs.
pub(crate) struct Decider<'a> {
    pub(crate) engine: &'a Engine<'a>,
    /// What the pipeline's step names stand for, before this run.
    pub(crate) head: BTreeMap<String, Digest>,
    /// Those of these results that nothing is wrong with, by key: most steps of most runs need no other.
    sound: DigestMap<Result>,
}

impl<'a> Decider<'a> {
    pub(crate) fn new(engine: &'a Engine<'a>) -> anyhow::Result<Decider<'a>> {
        let head = engine.store.head(&engine.pipeline.name)?.map(|h| h.steps).unwrap_or_default();
        let digests: Vec<Digest> = head.values().copied().collect();
        let results = engine.store.manifests(&digests).into_iter();
        let sound = results.filter(|(_, manifest)| manifest.complete && manifest.stats.failed == 0);
        let sound = sound.map(|(digest, manifest)| {
            let manifest = Arc::new(manifest);
            (manifest.key, Result { digest, manifest })
        });
        Ok(Decider { engine, head, sound: sound.collect() })
    }

    /// Says what becomes of a node. `upstream` holds the results that its inputs read, in their order.
    pub(crate) fn decide(&self, node: &Node, upstream: &[Arc<Manifest>]) -> anyhow::Result<Decision> {
        let store = self.engine.store;
        let inputs = self.inputs(node, upstream)?;
        let ports = self.digests(node, &inputs)?;
        let recipe = recipe::step_recipe(node, &ports);
        let key = recipe::key(&recipe, store.secret());
        if let Some(result) = self.standing(&key)? {
            return Ok(Decision::Reuse(result));
        }
        let last = self.last(&node.name)?;
        if let Some((digest, last)) = &last
            && let Some(drift) = drift::accepted(self.engine, node, last, &recipe, &inputs)?
        {
            return Ok(Decision::Accept(Result { digest: *digest, manifest: Arc::new(last.clone()) }, drift));
        }
        let last = last.map(|(_, manifest)| manifest);
        Ok(Decision::Run(Box::new(self.work(node, inputs, &ports, recipe, last)?)))
    }

    /// All that there is to do of a row operator's step, whether its stored result holds or not.
    pub(crate) fn whole_work(&self, node: &Node, upstream: &[Arc<Manifest>]) -> anyhow::Result<Work> {
        let inputs = self.inputs(node, upstream)?;
        let ports = self.digests(node, &inputs)?;
        let recipe = recipe::step_recipe(node, &ports);
        let last = self.last(&node.name)?.map(|(_, manifest)| manifest);
        self.work(node, inputs, &ports, recipe, last)
    }

    fn work(
        &self,
        node: &Node,
        inputs: BTreeMap<String, Table>,
        ports: &BTreeMap<String, BTreeMap<String, Digest>>,
        recipe: Value,
        last: Option<Manifest>,
    ) -> anyhow::Result<Work> {
        let store = self.engine.store;
        let why = match &last {
            Some(last) => recipe::difference(&last.recipe, &recipe, &node.file_paths),
            None => vec!["there is no result yet".to_owned()],
        };
        let why = if why.is_empty() { vec![unfinished(last.as_ref())] } else { why };
        let rows = match node.kind {
            Kind::Row(port) => {
                let operator = recipe::row_operator(node, port, ports, store.secret());
                let retry = self.engine.options.retry_errors;
                Some(RowWork::find(node, port, &inputs[port], &operator, store, retry)?)
            }
            Kind::Table | Kind::OneOf(_) => None,
        };
        let key = recipe::key(&recipe, store.secret());
        Ok(Work { key, recipe, inputs, rows, why, last })
    }

    /// The stored result of a node that lists no files, if it holds: what [`Decider::decide`] finds first,
    /// without the cost of anything else.
    pub(crate) fn at_once(&self, node: &Node, upstream: &[Arc<Manifest>]) -> anyhow::Result<Option<Result>> {
        if !node.operator.patterns().is_empty() {
            return Ok(None);
        }
        let ports = self.digests(node, &self.inputs(node, upstream)?)?;
        self.standing(&recipe::key(&recipe::step_recipe(node, &ports), self.engine.store.secret()))
    }

    /// The result of this key, if nothing of it is to be tried again.
    fn standing(&self, key: &Digest) -> anyhow::Result<Option<Result>> {
        if let Some(result) = self.sound.get(key)
            && self.engine.store.holds(&result.manifest)
        {
            return Ok(Some(result.clone()));
        }
        let Some((digest, manifest)) = self.engine.store.action_record(key)? else { return Ok(None) };
        let again = self.engine.options.retry_errors && manifest.stats.failed > 0;
        let holds = manifest.complete && manifest.stats.retryable == 0 && !again;
        Ok(holds.then(|| Result { digest, manifest: Arc::new(manifest) }))
    }

    /// By port, the digests of the columns that enter the step's key.
    fn digests(
        &self,
        node: &Node,
        inputs: &BTreeMap<String, Table>,
    ) -> anyhow::Result<BTreeMap<String, BTreeMap<String, Digest>>> {
        let digests = inputs.iter().map(|(port, table)| {
            Ok((port.clone(), table.digests(self.engine.store, &decisive_columns(node, port))?))
        });
        digests.collect()
    }

    /// The tables that fill the node's ports.
    fn inputs(&self, node: &Node, upstream: &[Arc<Manifest>]) -> anyhow::Result<BTreeMap<String, Table>> {
        let store = self.engine.store;
        let mut inputs = BTreeMap::new();
        let patterns = node.operator.patterns();
        for (input, manifest) in node.inputs.iter().zip(upstream) {
            let record = manifest.outputs.get(&input.output);
            let record =
                record.with_context(|| format!("`{}` has no output `{}`", node.name, input.output))?;
            if !input.axes.is_empty() {
                let member = Member { axes: input.axes.clone(), table: record.clone() };
                match inputs.entry(input.port.clone()).or_insert_with(|| Table::Gathered(Vec::new())) {
                    Table::Gathered(members) => members.push(member),
                    Table::Stored(_) | Table::Listed(_) => bail!("`{}` is filled twice", input.port),
                }
                continue;
            }
            let mut table = Table::Stored(record.clone());
            if input.port == FILES {
                table = Table::Listed(table::files_of_table(store, &table, &patterns)?);
            }
            inputs.insert(input.port.clone(), table);
        }
        if let Some(gathered @ Table::Gathered(_)) = inputs.get(FILES) {
            let files = table::files_of_table(store, gathered, &patterns)?;
            inputs.insert(FILES.to_owned(), Table::Listed(files));
        }
        if !patterns.is_empty() && !inputs.contains_key(FILES) {
            let files = table::files_on_disk(store, &self.engine.pipeline.folder, &patterns)?;
            if files.num_rows() == 0 {
                bail!("no file matches {}", patterns.join(", "));
            }
            inputs.insert(FILES.to_owned(), Table::Listed(files));
        }
        if let Some(Table::Listed(files)) = inputs.get_mut(FILES) {
            *files = node.operator.annotate(files.clone())?;
        }
        Ok(inputs)
    }

    /// What the step's name stands for now; none where that was collected.
    pub(crate) fn last(&self, step: &str) -> anyhow::Result<Option<(Digest, Manifest)>> {
        let Some(digest) = self.head.get(step) else { return Ok(None) };
        Ok(self.engine.store.manifest(digest).ok().map(|manifest| (*digest, manifest)))
    }
}

/// The columns of a port whose digests enter the step's key.
pub(crate) fn decisive_columns(node: &Node, port: &str) -> Vec<String> {
    match node.kind {
        Kind::Row(row_port) if row_port == port => keyed_columns(node, port),
        _ => node.signature.reads.get(port).cloned().unwrap_or_default(),
    }
}

fn unfinished(last: Option<&Manifest>) -> String {
    match last {
        Some(last) if !last.complete => "the last result is not complete".to_owned(),
        Some(last) if last.stats.retryable > 0 => format!("{} rows failed for now", last.stats.retryable),
        Some(last) if last.stats.failed > 0 => format!("{} rows failed", last.stats.failed),
        _ => "the stored result is gone".to_owned(),
    }
}
