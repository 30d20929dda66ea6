//! The measures, by variant and by the number of nearest images that count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, ensure};
use argent_engine::column;
use argent_stats::{Interval, LabelRetrieval, best_ranks, chance_of_a_hit, cluster_bootstrap_each, hits_at};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, SchemaRef};

use super::cohort::{Images, Labelled, Texts};
use super::{EvalRetrieval, Variant};
use crate::eval::cohort::{LEVEL, clusters, cohort_digest};

/// A variant's value at one K.
pub(super) struct Measured {
    variant: Variant,
    k: usize,
    value: Option<f64>,
    interval: Option<Interval>,
    chance: Option<f64>,
    queries: usize,
    gallery_size: usize,
    groups: usize,
    cohort_digest: String,
}

/// By K: the value of each query, none where the gallery is too small for K; and what chance gives.
struct OfQueries {
    ks: Vec<usize>,
    values: Vec<Option<Vec<f64>>>,
    chance: Vec<Option<f64>>,
    gallery_size: usize,
}

impl EvalRetrieval {
    /// Recall@K: the texts are the queries.
    pub(super) fn recall(
        &self,
        variant: Variant,
        images: &Images,
        texts: &Texts,
    ) -> anyhow::Result<Vec<Measured>> {
        let targets = targets(variant, images, texts)?;
        let ranks = best_ranks(&texts.vectors, &images.vectors, &targets)
            .context("the vectors of `texts` are compared with those of `embeddings`")?;
        let (ks, gallery_size) = (self.ks(variant), images.ids.len());
        let chance = |k: &usize| {
            let each = targets.iter().map(|targets| chance_of_a_hit(gallery_size, targets.len(), *k));
            let sum = each.sum::<Option<f64>>()?;
            Some(sum / targets.len() as f64)
        };
        let values = ks.iter().map(|k| (*k <= gallery_size).then(|| hits_at(&ranks, *k))).collect();
        let chance = ks.iter().map(chance).collect();
        let groups = texts.images.iter().map(|own| images.groups[own[0]].as_str());
        let of_queries = OfQueries { ks, values, chance, gallery_size };
        self.measured(variant, of_queries, groups.collect(), texts.ids.iter().map(String::as_str).collect())
    }

    /// What the nearest images have in common with an image.
    pub(super) fn overlaps(
        &self,
        variants: &BTreeSet<Variant>,
        images: &Labelled,
    ) -> anyhow::Result<Vec<Measured>> {
        let overlaps = variants.iter().filter_map(|variant| Some((*variant, variant.overlap()?)));
        let overlaps: Vec<_> = overlaps.collect();
        let largest = overlaps.iter().filter_map(|(variant, _)| self.ks(*variant).last().copied()).max();
        let retrieval = LabelRetrieval::new(&images.vectors, &images.labels, largest.unwrap_or(0))?;
        let mut rows = Vec::new();
        for (variant, measure) in overlaps {
            let (ks, queries) = (self.ks(variant), retrieval.queries(measure));
            let of_queries = OfQueries {
                values: retrieval.values(measure, &ks),
                chance: retrieval.chance(measure, &ks),
                gallery_size: retrieval.gallery_size(),
                ks,
            };
            let groups = queries.iter().map(|query| images.groups[*query].as_str()).collect();
            let ids = queries.iter().map(|query| images.ids[*query].as_str()).collect();
            rows.extend(self.measured(variant, of_queries, groups, ids)?);
        }
        Ok(rows)
    }

    fn measured(
        &self,
        variant: Variant,
        of_queries: OfQueries,
        groups: Vec<&str>,
        ids: Vec<&str>,
    ) -> anyhow::Result<Vec<Measured>> {
        let OfQueries { ks, values, chance, gallery_size } = of_queries;
        let all: Vec<usize> = (0..ids.len()).collect();
        let means = |rows: &[usize]| -> Vec<Option<f64>> {
            values.iter().map(|values| mean(values.as_deref()?, rows)).collect()
        };
        let (clusters, value) = (clusters(groups.iter().copied()), means(&all));
        let draws = self.bootstrap;
        let drawn = cluster_bootstrap_each(&clusters, draws.draws, draws.seed, LEVEL, ks.len(), means)?;
        // An interval of no width would claim certainty where every query gives the same.
        let interval =
            |at: usize| drawn[at].map(|drawn| drawn.interval).filter(|interval| interval.low < interval.high);
        let digest = cohort_digest(ids.iter().copied());
        let distinct = groups.iter().collect::<BTreeSet<_>>().len();
        let row = |(at, k): (usize, usize)| Measured {
            variant,
            k,
            value: value[at],
            interval: interval(at),
            chance: chance[at],
            queries: ids.len(),
            gallery_size,
            groups: distinct,
            cohort_digest: digest.clone(),
        };
        Ok(ks.iter().copied().enumerate().map(row).collect())
    }
}

/// By text: the images that count as found.
fn targets(variant: Variant, images: &Images, texts: &Texts) -> anyhow::Result<Vec<Vec<usize>>> {
    if variant == Variant::RecallPair {
        let several = texts.images.iter().filter(|images| images.len() > 1).count();
        ensure!(
            several == 0,
            "{several} texts belong to several images, expected one each for `recall_pair`; measure `recall_scan`, \
             or write `gallery: first_reconstruction`"
        );
        return Ok(texts.images.clone());
    }
    let mut by_scan: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (image, scan) in images.scans.iter().enumerate() {
        by_scan.entry(scan).or_default().push(image);
    }
    let of_text = |own: &Vec<usize>| -> Vec<usize> {
        let scans: BTreeSet<&str> = own.iter().map(|image| images.scans[*image].as_str()).collect();
        scans.iter().flat_map(|scan| &by_scan[scan]).copied().collect()
    };
    Ok(texts.images.iter().map(of_text).collect())
}

/// The mean over these queries; none without a query.
fn mean(values: &[f64], queries: &[usize]) -> Option<f64> {
    let sum: f64 = queries.iter().map(|query| values[*query]).sum();
    (!queries.is_empty()).then(|| sum / queries.len() as f64)
}

/// The columns of the table.
pub(super) fn fields() -> Vec<Field> {
    let mut fields = vec![column::text("variant"), column::whole("k")];
    fields.extend(["value", "low", "high", "chance"].map(column::number));
    fields.extend(["queries", "gallery_size", "groups"].map(column::whole));
    fields.extend(["gallery", "similarity", "quirk", "cohort_digest"].map(column::text));
    fields
}

/// The table, a row per variant and K.
pub(super) fn batch(
    schema: SchemaRef,
    parameters: &EvalRetrieval,
    rows: &[Measured],
) -> anyhow::Result<RecordBatch> {
    let text = |of: &dyn Fn(&Measured) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    let whole = |of: fn(&Measured) -> usize| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| of(row) as i64)))
    };
    let number = |of: fn(&Measured) -> Option<f64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<Float64Array>())
    };
    let columns = vec![
        text(&|row| Some(row.variant.name())),
        whole(|row| row.k),
        number(|row| row.value),
        number(|row| row.interval.map(|interval| interval.low)),
        number(|row| row.interval.map(|interval| interval.high)),
        number(|row| row.chance),
        whole(|row| row.queries),
        whole(|row| row.gallery_size),
        whole(|row| row.groups),
        text(&|_| Some(parameters.gallery.name())),
        text(&|_| Some(parameters.similarity.name())),
        text(&|row| row.variant.quirk(parameters.gallery)),
        text(&|row| Some(&row.cohort_digest)),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}
