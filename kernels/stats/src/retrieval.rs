//! What a retrieval is worth: how often the right image is among the first K, and how much the first K have in common
//! with the query.

use std::collections::BTreeMap;

use crate::error::{StatsError, equal_lengths};
use crate::label_sets::LabelSet;
use crate::neighbours::nearest_neighbours;
use crate::vectors::Vectors;

/// By query: 1 where its target is among the first `k`, else 0. The mean is Recall@K.
pub fn hits_at(ranks: &[usize], k: usize) -> Vec<f64> {
    ranks.iter().map(|rank| if *rank <= k { 1.0 } else { 0.0 }).collect()
}

/// The chance that one of `targets` items is among the first `k` of `gallery` items in random order:
/// 1 - C(gallery - targets, k) / C(gallery, k), which is k / gallery for one target.
///
/// `None` where the gallery has fewer than `k` items or targets.
pub fn chance_of_a_hit(gallery: usize, targets: usize, k: usize) -> Option<f64> {
    if k > gallery || targets > gallery {
        return None;
    }
    if targets == 1 {
        return Some(k as f64 / gallery as f64);
    }
    let missed =
        (0..k).map(|place| (gallery - targets).saturating_sub(place) as f64 / (gallery - place) as f64);
    Some(1.0 - missed.product::<f64>())
}

/// How image-to-image retrieval is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlapMeasure {
    /// The mean Jaccard index of the first K with the query, which is not among them.
    Clean,
    /// The same with the query among them.
    SelfIncluded,
    /// As CT-CLIP's script computes "MAP@K": the mean of `SelfIncluded` over this K and all smaller ones that were asked
    /// for, because its list of values is never emptied.
    Cumulative,
    /// RadFinder's AP@K: over the places of the first K that share a finding with the query, the sum of the share of
    /// such up to there, divided by K. Queries are abnormal, and not among the first K.
    AveragePrecision,
}

/// Images with labels, and by image its nearest ones of those with a finding, which are the gallery.
#[derive(Clone, Debug)]
pub struct LabelRetrieval<'a> {
    labels: &'a [LabelSet],
    /// The images that can be found.
    gallery: Vec<usize>,
    /// By image: the nearest images of the gallery, the nearest first; itself is among them where it has a finding.
    nearest: Vec<Vec<usize>>,
}

impl<'a> LabelRetrieval<'a> {
    /// Finds the nearest images of each. `vectors` are prepared for their similarity, an image's in the row of its labels;
    /// of equally near images the first is the nearer one.
    ///
    /// # Errors
    /// As [`nearest_neighbours`]; and as many labels as there are no vectors.
    pub fn new(vectors: &Vectors, labels: &'a [LabelSet], largest_k: usize) -> Result<Self, StatsError> {
        equal_lengths(vectors.len(), labels.len())?;
        let gallery: Vec<usize> = (0..labels.len()).filter(|image| labels[*image].is_abnormal()).collect();
        // One more, because the image itself may be among them.
        let mut nearest = nearest_neighbours(vectors, &vectors.select(&gallery), largest_k + 1)?;
        for place in nearest.iter_mut().flatten() {
            *place = gallery[*place];
        }
        Ok(Self { labels, gallery, nearest })
    }

    /// How many images can be found.
    pub fn gallery_size(&self) -> usize {
        self.gallery.len()
    }

    /// The images that are looked from.
    pub fn queries(&self, measure: OverlapMeasure) -> Vec<usize> {
        match measure {
            OverlapMeasure::AveragePrecision => self.gallery.clone(),
            _ => (0..self.labels.len()).collect(),
        }
    }

    /// By each of `ks`, in ascending order, and by query: the value, whose mean over queries is the measure's. `None` where
    /// the gallery has fewer than K images beside the query (for the cumulative measure: for one of the smaller ones).
    pub fn values(&self, measure: OverlapMeasure, ks: &[usize]) -> Vec<Option<Vec<f64>>> {
        let queries = self.queries(measure);
        let of_k = |k: &usize| {
            let values = queries.iter().map(|query| self.value(measure, *query, *k));
            self.has_enough(measure, *k).then(|| values.collect())
        };
        let each: Vec<Option<Vec<f64>>> = ks.iter().map(of_k).collect();
        if measure == OverlapMeasure::Cumulative { running_means(&each) } else { each }
    }

    /// By each of `ks`, in ascending order: what a random order of the gallery is expected to give. Where the query counts as
    /// found, it is taken to be found first, as it is by the cosine.
    pub fn chance(&self, measure: OverlapMeasure, ks: &[usize]) -> Vec<Option<f64>> {
        let queries = self.queries(measure);
        if queries.is_empty() {
            return vec![None; ks.len()];
        }
        let overlaps = Overlaps::new(self.labels, &self.gallery);
        let of_k = |k: &usize| {
            let of_query = |query: &usize| overlaps.expected(measure, &self.labels[*query], *k);
            let sum: f64 = queries.iter().map(of_query).sum();
            self.has_enough(measure, *k).then(|| vec![sum / queries.len() as f64])
        };
        let each: Vec<Option<Vec<f64>>> = ks.iter().map(of_k).collect();
        let each = if measure == OverlapMeasure::Cumulative { running_means(&each) } else { each };
        each.into_iter().map(|value| value.map(|value| value[0])).collect()
    }

    fn has_enough(&self, measure: OverlapMeasure, k: usize) -> bool {
        let beside = usize::from(!counts_itself(measure));
        k >= 1 && k + beside <= self.gallery.len()
    }

    fn value(&self, measure: OverlapMeasure, query: usize, k: usize) -> f64 {
        let nearest = &self.nearest[query];
        let found = nearest.iter().filter(|image| counts_itself(measure) || **image != query).take(k);
        let labels = found.map(|image| &self.labels[*image]);
        let own = &self.labels[query];
        match measure {
            OverlapMeasure::AveragePrecision => {
                average_precision_at(labels.map(|labels| own.shares_a_finding(labels)), k)
            }
            _ => labels.map(|labels| own.jaccard(labels)).sum::<f64>() / k as f64,
        }
    }
}

fn counts_itself(measure: OverlapMeasure) -> bool {
    matches!(measure, OverlapMeasure::SelfIncluded | OverlapMeasure::Cumulative)
}

fn average_precision_at(relevant: impl Iterator<Item = bool>, k: usize) -> f64 {
    let (mut found, mut sum) = (0, 0.0);
    for (place, relevant) in relevant.enumerate() {
        if relevant {
            found += 1;
            sum += f64::from(found) / (place + 1) as f64;
        }
    }
    sum / k as f64
}

/// The means of each list and all before it, number by number.
fn running_means(lists: &[Option<Vec<f64>>]) -> Vec<Option<Vec<f64>>> {
    let mut sums: Option<Vec<f64>> = lists.first().cloned().flatten().map(|list| vec![0.0; list.len()]);
    let mut means = Vec::new();
    for (before, list) in lists.iter().enumerate() {
        sums = sums.zip(list.as_ref()).map(|(mut sums, list)| {
            sums.iter_mut().zip(list).for_each(|(sum, value)| *sum += value);
            sums
        });
        means.push(sums.as_ref().map(|sums| sums.iter().map(|sum| sum / (before + 1) as f64).collect()));
    }
    means
}

/// What a random image of the gallery has in common with a query. Images with the same labels are counted together.
struct Overlaps<'a> {
    gallery: usize,
    /// By the labels of queries: the sum of Jaccard indices over the gallery, and how many share a finding.
    by_labels: BTreeMap<&'a LabelSet, (f64, usize)>,
}

impl<'a> Overlaps<'a> {
    fn new(labels: &'a [LabelSet], gallery: &[usize]) -> Self {
        let mut counts: BTreeMap<&LabelSet, usize> = BTreeMap::new();
        for image in gallery {
            *counts.entry(&labels[*image]).or_default() += 1;
        }
        let mut by_labels = BTreeMap::new();
        for own in labels {
            by_labels.entry(own).or_insert_with(|| {
                let jaccard = counts.iter().map(|(other, count)| own.jaccard(other) * *count as f64).sum();
                let sharing = counts.iter().filter(|(other, _)| own.shares_a_finding(other));
                (jaccard, sharing.map(|(_, count)| count).sum())
            });
        }
        Self { gallery: gallery.len(), by_labels }
    }

    /// The expected value of a query with these labels.
    fn expected(&self, measure: OverlapMeasure, own: &LabelSet, k: usize) -> f64 {
        let (jaccard, sharing) = self.by_labels[own];
        // A query with a finding is in the gallery, and shares it with itself.
        let itself = usize::from(own.is_abnormal());
        let others = (self.gallery - itself) as f64;
        let mean = if others == 0.0 { 0.0 } else { (jaccard - itself as f64) / others };
        match measure {
            OverlapMeasure::Clean => mean,
            OverlapMeasure::SelfIncluded | OverlapMeasure::Cumulative => {
                (itself as f64 + (k - itself) as f64 * mean) / k as f64
            }
            OverlapMeasure::AveragePrecision => {
                expected_average_precision(self.gallery - 1, sharing - itself, k)
            }
        }
    }
}

/// What AP@K is expected to be in random order: at each place, the chance that it is relevant, times the share of relevant
/// ones up to there that is expected then.
fn expected_average_precision(gallery: usize, relevant: usize, k: usize) -> f64 {
    if relevant == 0 {
        return 0.0;
    }
    let share = relevant as f64 / gallery as f64;
    let of_another = if gallery == 1 { 0.0 } else { (relevant - 1) as f64 / (gallery - 1) as f64 };
    let at = |place: usize| share * (1.0 + (place - 1) as f64 * of_another) / place as f64;
    (1..=k).map(at).sum::<f64>() / k as f64
}
