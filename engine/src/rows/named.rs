//! What remembered answers name outside of their memo: side files, and answers in shared memos.

use argent_cache::encoding::decode_rows;
use argent_cache::{Digest, Memo, Store};
use arrow::array::AsArray;
use arrow::datatypes::SchemaRef;

use crate::column;
use crate::io::shared_memo;
use crate::pipeline::Node;

/// What remembered answers name outside of their memo: an answer counts only while all of it is still there.
pub(super) struct Named<'a> {
    store: &'a Store,
    schema: &'a SchemaRef,
    /// The columns of digests of side files.
    files: Vec<usize>,
    /// The column of keys in a shared memo, and that memo.
    shared: Option<(usize, Memo)>,
}

impl Named<'_> {
    pub(super) fn new<'a>(node: &'a Node, store: &'a Store) -> anyhow::Result<Named<'a>> {
        let schema = &node.signature.main().schema;
        let fields = schema.fields().iter().enumerate();
        let files = fields.filter(|(_, f)| column::has_role(f, "file")).map(|(place, _)| place).collect();
        let shared = match node.operator.shared_keys() {
            Some((column, memo)) => Some((schema.index_of(column)?, store.memo(&shared_memo(store, memo))?)),
            None => None,
        };
        Ok(Named { store, schema, files, shared })
    }

    /// For each key, whether the memo holds an answer and all that it names is there.
    pub(super) fn answered(&self, memo: &Memo, keys: &[Digest]) -> anyhow::Result<Vec<bool>> {
        if self.files.is_empty() && self.shared.is_none() {
            return Ok(keys.iter().map(|key| memo.contains(key)).collect());
        }
        let answers = memo.get_many(keys)?;
        (0..keys.len())
            .map(|place| answers.get(place).map_or(Ok(false), |value| self.is_there(value)))
            .collect()
    }

    fn is_there(&self, answer: &[u8]) -> anyhow::Result<bool> {
        let (rows, _) = decode_rows(self.schema, [answer])?;
        let digests = |column: usize| -> anyhow::Result<Vec<Digest>> {
            rows.column(column).as_string::<i32>().iter().flatten().map(str::parse).collect()
        };
        for column in &self.files {
            if !digests(*column)?.iter().all(|digest| self.store.has(digest)) {
                return Ok(false);
            }
        }
        let Some((column, shared)) = &self.shared else { return Ok(true) };
        Ok(digests(*column)?.iter().all(|key| shared.contains(key)))
    }
}
