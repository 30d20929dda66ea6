//! The images that take part, their texts and their labels.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use argent_engine::Io;
use argent_engine::joining::{Index, account, texts};
use argent_stats::{LabelSet, Vectors};
use arrow::array::{Array, RecordBatch};

use super::{EvalRetrieval, Gallery, SCAN};
use crate::eval::cohort::truth_by_id;
use crate::eval::vectors;
use crate::train::classifier::part_by_id;

/// The images that take part, in the order of their ids.
pub(super) struct Images {
    pub(super) ids: Vec<String>,
    pub(super) groups: Vec<String>,
    /// The scan of each, where the step needs to know it; else its id.
    pub(super) scans: Vec<String>,
    /// Its row in the table of embeddings.
    rows: Vec<usize>,
    pub(super) vectors: Vectors,
}

/// The texts whose image takes part, in the order of their ids.
pub(super) struct Texts {
    pub(super) ids: Vec<String>,
    pub(super) vectors: Vectors,
    /// By text: the images that it is a report of.
    pub(super) images: Vec<Vec<usize>>,
}

/// The images that have labels.
pub(super) struct Labelled {
    pub(super) ids: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) vectors: Vectors,
    pub(super) labels: Vec<LabelSet>,
}

impl EvalRetrieval {
    /// Reads the images of the measured part, one per scan where the gallery says so.
    pub(super) fn images(&self, io: &mut Io) -> anyhow::Result<Images> {
        let table = io.input("embeddings")?.clone();
        let read = vectors::of_rows(io, "embeddings", &table, self.similarity.kernel())?;
        let ids = texts(&table, "id")?;
        let distinct = ids.iter().flatten().collect::<BTreeSet<_>>().len();
        ensure!(
            distinct == table.num_rows(),
            "`embeddings` has rows with the same id, expected one vector per image"
        );
        let group = self.group.clone().unwrap_or_else(|| column_or_id(&table, "patient").to_owned());
        let (groups, scans) = (texts(&table, &group)?, texts(&table, column_or_id(&table, SCAN))?);
        let in_part = self.in_part(io, &table)?;
        let mut order: Vec<usize> =
            (0..table.num_rows()).filter(|row| in_part[*row] && read[*row].is_some()).collect();
        order.sort_by_key(|row| ids.value(*row));
        if self.gallery == Gallery::FirstReconstruction {
            let mut seen = BTreeSet::new();
            order.retain(|row| seen.insert(scans.value(*row)));
        }
        ensure!(!order.is_empty(), "no image with a vector takes part{}", self.of_part(io));
        let kept: Vec<Vec<f32>> = order.iter().filter_map(|row| read[*row].clone()).collect();
        let owned = |column: &arrow::array::StringArray| -> Vec<String> {
            order.iter().map(|row| column.value(*row).to_owned()).collect()
        };
        Ok(Images {
            ids: owned(ids),
            groups: owned(groups),
            scans: owned(scans),
            vectors: vectors::prepared(&kept, self.similarity.kernel())?,
            rows: order,
        })
    }

    /// Whether each row of the embeddings is in the measured part; all are where there is no split.
    fn in_part(&self, io: &mut Io, table: &RecordBatch) -> anyhow::Result<Vec<bool>> {
        if !io.has_input("split") {
            return Ok(vec![true; table.num_rows()]);
        }
        let on = io.on("split").to_owned();
        let parts = part_by_id(&io.input("split")?.clone(), &on)?;
        let (ids, by_split) = (texts(table, "id")?, texts(table, &on)?);
        let part = |row: usize| parts.get(by_split.value(row));
        let without: Vec<String> = (0..table.num_rows())
            .filter(|row| part(*row).is_none())
            .map(|row| ids.value(row).to_owned())
            .collect();
        account(io, "embeddings", "split", table.num_rows(), &without, self.unmatched)?;
        Ok((0..table.num_rows()).map(|row| part(row).is_some_and(|part| *part == self.part)).collect())
    }

    /// Reads the texts and finds the images that each is a report of; those of images that take no part are left out.
    pub(super) fn texts(&self, io: &mut Io, images: &Images) -> anyhow::Result<Texts> {
        let (table, all) = (io.input("texts")?.clone(), io.input("embeddings")?.clone());
        let read = vectors::of_rows(io, "texts", &table, self.similarity.kernel())?;
        let on = io.on("texts").to_owned();
        let (ids, keys) = (texts(&table, "id")?, texts(&table, &on)?);
        let by_key = Index::new(&all, &on)?;
        let place: BTreeMap<usize, usize> =
            images.rows.iter().enumerate().map(|(place, row)| (*row, place)).collect();
        let with_vector: Vec<usize> = (0..table.num_rows()).filter(|row| read[*row].is_some()).collect();
        let without_image: Vec<String> = with_vector
            .iter()
            .filter(|row| keys.is_null(**row) || by_key.get(keys.value(**row)).is_empty())
            .map(|row| ids.value(*row).to_owned())
            .collect();
        account(io, "texts", "embeddings", with_vector.len(), &without_image, self.unmatched)?;
        let (mut kept, mut found) = (Vec::new(), Vec::new());
        let mut order = with_vector;
        order.sort_by_key(|row| ids.value(*row));
        for row in order {
            let own = by_key.get(keys.value(row)).iter().filter_map(|image| place.get(image).copied());
            let own: Vec<usize> = own.collect();
            if !own.is_empty() {
                kept.push(row);
                found.push(own);
            }
        }
        ensure!(!kept.is_empty(), "no text has an image that takes part{}", self.of_part(io));
        let vectors: Vec<Vec<f32>> = kept.iter().filter_map(|row| read[*row].clone()).collect();
        Ok(Texts {
            ids: kept.iter().map(|row| ids.value(*row).to_owned()).collect(),
            vectors: vectors::prepared(&vectors, self.similarity.kernel())?,
            images: found,
        })
    }

    /// Gives images their labels; one without any is left out.
    pub(super) fn labelled(&self, io: &mut Io, images: &Images) -> anyhow::Result<Labelled> {
        let (labels, all) = (io.input("labels")?.clone(), io.input("embeddings")?.clone());
        let on = io.on("labels").to_owned();
        let truth = truth_by_id(io, &labels, &on)?;
        let findings: BTreeSet<&str> = truth.keys().map(|(_, finding)| *finding).collect();
        let known: BTreeSet<&str> = truth.keys().map(|(id, _)| *id).collect();
        let keys = texts(&all, &on)?;
        let (with, without): (Vec<usize>, Vec<usize>) =
            (0..images.ids.len()).partition(|image| known.contains(keys.value(images.rows[*image])));
        let without: Vec<String> = without.iter().map(|image| images.ids[*image].clone()).collect();
        account(io, "embeddings", "labels", images.ids.len(), &without, self.unmatched)?;
        let of_image = |image: &usize| {
            let key = keys.value(images.rows[*image]);
            let label = |finding: &&str| truth.get(&(key, *finding)).copied().flatten();
            LabelSet::new(&findings.iter().map(label).collect::<Vec<_>>())
        };
        let owned = |texts: &[String]| with.iter().map(|image| texts[*image].clone()).collect();
        Ok(Labelled {
            ids: owned(&images.ids),
            groups: owned(&images.groups),
            vectors: images.vectors.select(&with),
            labels: with.iter().map(of_image).collect(),
        })
    }

    fn of_part(&self, io: &Io) -> String {
        if io.has_input("split") { format!(": none is in the part `{}`", self.part) } else { String::new() }
    }
}

/// A column, where the table has it, else that of the ids.
fn column_or_id<'a>(table: &RecordBatch, name: &'a str) -> &'a str {
    if table.column_by_name(name).is_some() { name } else { "id" }
}
