//! Which answers go with the rows that are forgotten: a row operator's by the row keys of its input rows, a
//! language model's by the calls that the removed labels name.

use std::collections::{BTreeMap, HashSet};

use argent_cache::Digest;
use argent_cache::collect::request;
use argent_cache::keys::row_error_key;

use super::{Search, has_column, strings_of, tables};

impl Search<'_> {
    /// By memo: the keys that go.
    pub(super) fn doomed_answers(&self) -> anyhow::Result<BTreeMap<Digest, HashSet<Digest>>> {
        let mut doomed = BTreeMap::new();
        // Nobody is named, as by a slip of the pen: then no answer is anybody's.
        if self.tombstones.is_empty() {
            return Ok(doomed);
        }
        for operator in self.store.memo_digests()? {
            let keys = match self.shared_memos.contains(&operator) {
                true => self.doomed_calls(&operator)?,
                false => self.doomed_rows(&operator)?,
            };
            doomed.insert(operator, keys);
        }
        Ok(doomed)
    }

    /// The keys of one row operator's answers and failures for removed rows. All of them go where no result
    /// says which columns the operator reads: a run was cut off, and nothing tells whose its answers are.
    fn doomed_rows(&self, operator: &Digest) -> anyhow::Result<HashSet<Digest>> {
        let memos = self.records.manifests.values().filter_map(|manifest| manifest.memo.as_ref());
        let memo = memos.into_iter().find(|memo| memo.operator == *operator);
        let mut gone: HashSet<Digest> = HashSet::new();
        let held = self.store.memo(operator)?;
        let Some(memo) = memo else {
            held.each(&mut |key, _| {
                gone.insert(*key);
            })?;
            return Ok(gone);
        };
        let mut kept: HashSet<Digest> = HashSet::new();
        for table in tables(&self.records) {
            if !memo.columns.iter().all(|name| has_column(&table, name)) {
                continue;
            }
            let keys = self.store.table_row_keys(operator, &memo.columns, &table)?;
            let marked = self.marked.get(&table.parts);
            for (row, key) in keys.into_iter().enumerate() {
                let keys = [key, row_error_key(self.store.secret(), &key)];
                let is_gone = marked.is_some_and(|marked| marked[row]);
                if is_gone { gone.extend(keys) } else { kept.extend(keys) }
            }
        }
        gone.retain(|key| !kept.contains(key) && held.contains(key));
        // Failures that quote a file's name, and answers for rows that no table has any more.
        held.each(&mut |key, value| {
            if !kept.contains(key) && self.names_someone(&String::from_utf8_lossy(value)) {
                gone.insert(*key);
            }
        })?;
        Ok(gone)
    }

    /// The keys of the requests about removed rows: those that only their labels name, other tries of the same
    /// requests, and all that hold a section that only they had: those that failed, those that were mended, and those
    /// about other rows that showed it as an example, which are asked again without it.
    fn doomed_calls(&self, memo: &Digest) -> anyhow::Result<HashSet<Digest>> {
        let held = self.store.memo(memo)?;
        let only_gone = self.calls.only_gone();
        let mut requests: HashSet<String> = HashSet::new();
        held.each(&mut |key, value| {
            if only_gone.contains(&key.to_string()) {
                requests.extend(request(value));
            }
        })?;
        let mut gone = HashSet::new();
        held.each(&mut |key, value| {
            let name = key.to_string();
            let text = plain_text(value);
            let asked = || request(value).is_some_and(|request| requests.contains(&request));
            let is_kept = self.calls.kept.contains(&name);
            if self.quotes_someone(&text)
                || !is_kept && (only_gone.contains(&name) || asked() || self.names_someone(&text))
            {
                gone.insert(*key);
            }
        })?;
        Ok(gone)
    }
}

impl Search<'_> {
    /// Whether a text holds a section that only removed rows had.
    pub(super) fn quotes_someone(&self, text: &str) -> bool {
        self.sections.iter().any(|section| text.contains(section.as_str()))
    }
}

/// The text in a value: that of all its strings where it is JSON, which writes quotes and line ends otherwise.
pub(super) fn plain_text(value: &[u8]) -> String {
    match serde_json::from_slice(value) {
        Ok(json) => strings_of(&json),
        Err(_) => String::from_utf8_lossy(value).into_owned(),
    }
}
