//! The nearest of a gallery to each query, and how near a certain one is.
//!
//! All pairs are compared, a few queries and a part of the gallery at a time, so that the memory that it takes does not
//! grow with their product.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use pulp::Arch;
use rayon::prelude::*;

use crate::error::{StatsError, equal_lengths};
use crate::vectors::{LANES, Vectors};

/// Queries that one thread compares at a time.
const QUERIES: usize = 32;

/// Vectors of the gallery that they are compared with at a time: few enough to stay in the second cache.
const GALLERY: usize = 128;

/// By query: the places in the gallery of its `k` nearest vectors by dot product, the nearest first; fewer where the
/// gallery is smaller. Of equal similarities the vector that comes first in the gallery is the nearer one.
///
/// For the cosine, hand over [`Vectors::prepared`] ones.
///
/// # Errors
/// Queries of another dimension than the gallery, and similarities that are not finite.
pub fn nearest_neighbours(
    queries: &Vectors,
    gallery: &Vectors,
    k: usize,
) -> Result<Vec<Vec<usize>>, StatsError> {
    let k = k.min(gallery.len());
    let nearest = each_query(
        queries,
        gallery,
        |_| BinaryHeap::with_capacity(k + 1),
        |nearest, found| {
            // The heap's first is the farthest of those that are kept.
            let farthest = nearest.peek();
            if nearest.len() < k || farthest.is_some_and(|farthest| found < *farthest) {
                nearest.push(found);
                if nearest.len() > k {
                    nearest.pop();
                }
            }
        },
    )?;
    Ok(nearest
        .into_iter()
        .map(|heap| heap.into_sorted_vec().into_iter().map(|f| f.place).collect())
        .collect())
}

/// By query: the rank, counted from 1, of the nearest of its targets among the whole gallery; `targets` holds their places
/// in the gallery. Of equal similarities the vector that comes first in the gallery has the lower rank.
///
/// # Errors
/// As [`nearest_neighbours`]; a query without targets, and as many lists of targets as there are no queries.
pub fn best_ranks(
    queries: &Vectors,
    gallery: &Vectors,
    targets: &[Vec<usize>],
) -> Result<Vec<usize>, StatsError> {
    equal_lengths(queries.len(), targets.len())?;
    if let Some(query) = targets.iter().position(Vec::is_empty) {
        return Err(StatsError::NoTarget { query });
    }
    let best = |query: usize| {
        let found = targets[query].iter().map(|place| Found {
            similarity: dot(queries.padded(query), gallery.padded(*place)),
            place: *place,
        });
        (found.min(), 0_usize)
    };
    let counted = each_query(queries, gallery, best, |(best, nearer), found| {
        *nearer += usize::from(best.is_some_and(|best| found < best));
    })?;
    Ok(counted.into_iter().map(|(_, nearer)| nearer + 1).collect())
}

/// A vector of the gallery as a query sees it. The nearer one is the lesser one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found {
    similarity: f32,
    place: usize,
}

impl Eq for Found {}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        // Similarities are finite, and 0 and -0 are tied.
        let nearer = other.similarity.partial_cmp(&self.similarity).unwrap_or(Ordering::Equal);
        nearer.then(self.place.cmp(&other.place))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Shows each query the whole gallery, in its order.
fn each_query<S: Send>(
    queries: &Vectors,
    gallery: &Vectors,
    begin: impl Fn(usize) -> S + Sync,
    see: impl Fn(&mut S, Found) + Sync,
) -> Result<Vec<S>, StatsError> {
    if queries.is_empty() {
        return Ok(Vec::new());
    }
    if !gallery.is_empty() && queries.dimension() != gallery.dimension() {
        let (found, expected) = (gallery.dimension(), queries.dimension());
        return Err(StatsError::Dimension { row: 0, found, expected });
    }
    let arch = Arch::new();
    let firsts: Vec<usize> = (0..queries.len()).step_by(QUERIES).collect();
    let of_block = |first: &usize| {
        let block = *first..queries.len().min(first + QUERIES);
        let mut states: Vec<S> = block.clone().map(&begin).collect();
        let mut similarities = vec![0.0; QUERIES * GALLERY];
        for start in (0..gallery.len()).step_by(GALLERY) {
            let part = start..gallery.len().min(start + GALLERY);
            arch.dispatch(|| compare(queries, block.clone(), gallery, part.clone(), &mut similarities));
            for (place, state) in states.iter_mut().enumerate() {
                for (offset, similarity) in similarities[place * GALLERY..][..part.len()].iter().enumerate() {
                    if !similarity.is_finite() {
                        return Err(StatsError::SimilarityNotFinite { query: block.start + place });
                    }
                    see(state, Found { similarity: *similarity, place: start + offset });
                }
            }
        }
        Ok(states)
    };
    let blocks: Vec<Vec<S>> = firsts.par_iter().map(of_block).collect::<Result<_, _>>()?;
    Ok(blocks.into_iter().flatten().collect())
}

/// Writes the similarities of a block of queries with a part of the gallery, a row of `GALLERY` per query.
#[inline(always)]
fn compare(
    queries: &Vectors,
    block: std::ops::Range<usize>,
    gallery: &Vectors,
    part: std::ops::Range<usize>,
    similarities: &mut [f32],
) {
    const WIDE: usize = 4;
    const HIGH: usize = 2;
    let whole = |range: &std::ops::Range<usize>, tile: usize| range.len() / tile * tile;
    let (wide, high) = (whole(&block, WIDE), whole(&part, HIGH));
    for query in (0..wide).step_by(WIDE) {
        let rows: [&[f32]; WIDE] = std::array::from_fn(|i| queries.padded(block.start + query + i));
        for item in (0..high).step_by(HIGH) {
            let items: [&[f32]; HIGH] = std::array::from_fn(|i| gallery.padded(part.start + item + i));
            let tile = dots(rows, items);
            for (i, row) in tile.iter().enumerate() {
                similarities[(query + i) * GALLERY + item..][..HIGH].copy_from_slice(row);
            }
        }
    }
    for query in 0..block.len() {
        let begin = if query < wide { high } else { 0 };
        for item in begin..part.len() {
            let row = queries.padded(block.start + query);
            similarities[query * GALLERY + item] = dot(row, gallery.padded(part.start + item));
        }
    }
}

/// The dot product of two vectors that fill whole lanes.
#[inline(always)]
fn dot(one: &[f32], other: &[f32]) -> f32 {
    dots([one], [other])[0][0]
}

/// The dot products of each row with each item. Each is summed in the same order, whatever stands beside it: lane by lane,
/// then the lanes.
#[inline(always)]
fn dots<const R: usize, const I: usize>(rows: [&[f32]; R], items: [&[f32]; I]) -> [[f32; I]; R] {
    let rows = rows.map(|row| row.as_chunks::<LANES>().0);
    let items = items.map(|item| item.as_chunks::<LANES>().0);
    let chunks = rows.iter().chain(&items).map(|chunks| chunks.len()).min().unwrap_or(0);
    let (rows, items) = (rows.map(|row| &row[..chunks]), items.map(|item| &item[..chunks]));
    let mut sums = [[[0.0_f32; LANES]; I]; R];
    // Plain loops of fixed lengths, which the compiler keeps in vector registers.
    for chunk in 0..chunks {
        for i in 0..I {
            let item = items[i][chunk];
            for r in 0..R {
                let row = rows[r][chunk];
                for lane in 0..LANES {
                    sums[r][i][lane] += row[lane] * item[lane];
                }
            }
        }
    }
    sums.map(|sums| sums.map(|lanes| (0..LANES / 2).map(|lane| lanes[lane] + lanes[lane + LANES / 2]).sum()))
}
