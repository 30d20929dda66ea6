//! Getting many answers at once: each row group is decompressed once, and all cores do it.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use rayon::prelude::*;

use super::segment::GROUP_MAX_ROWS;
use super::{Kind, Place, Shared, Source};
use crate::digest::Digest;

/// Answers for some row keys.
pub struct Answers {
    /// The values, many in one piece.
    pieces: Vec<Vec<u8>>,
    /// By key: the piece and the bytes in it.
    places: Vec<Option<(usize, Range<usize>)>>,
}

impl Answers {
    /// The answer for the key that was asked at this place; none if there is none.
    ///
    /// # Panics
    /// When fewer keys were asked.
    pub fn get(&self, place: usize) -> Option<&[u8]> {
        let (piece, bytes) = self.places[place].as_ref()?;
        Some(&self.pieces[*piece][bytes.clone()])
    }

    /// How many keys were asked.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no key was asked.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// A key that was asked: where its value lies, and its place among the keys.
type Asked = (Place, usize);

/// The values of some keys one after another, and where each of them lies.
type Piece = (Vec<u8>, Vec<(usize, Option<Range<usize>>)>);

impl Shared {
    pub(super) fn sort_by_place(&self, keys: &mut [Digest]) {
        let index = self.read_index();
        keys.sort_by_cached_key(|key| index.places.get(key).map(|place| (place.source, place.at)));
    }

    pub(super) fn get_many(&self, keys: &[Digest]) -> Result<Answers> {
        let (mut asked, sources) = {
            let index = self.read_index();
            let asked = keys.iter().enumerate();
            let asked = asked.filter_map(|(place, key)| Some((*index.places.get(key)?, place)));
            (asked.collect::<Vec<Asked>>(), index.sources.clone())
        };
        asked.sort_unstable_by_key(|(place, _)| (place.source, place.at));
        let together: Vec<&[Asked]> = asked
            .chunk_by(|(one, _), (next, _)| {
                one.source == next.source && group_of(&sources, one) == group_of(&sources, next)
            })
            .flat_map(|asked| asked.chunks(GROUP_MAX_ROWS))
            .collect();
        let read = together.into_par_iter().map(|asked| self.piece(keys, &sources[asked[0].0.source], asked));
        let mut answers = Answers { pieces: Vec::new(), places: vec![None; keys.len()] };
        for (number, piece) in read.collect::<Result<Vec<Piece>>>()?.into_iter().enumerate() {
            for (place, bytes) in piece.1 {
                answers.places[place] = bytes.map(|bytes| (number, bytes));
            }
            answers.pieces.push(piece.0);
        }
        Ok(answers)
    }

    /// The values of keys that lie in one source, and there in one row group.
    fn piece(&self, keys: &[Digest], source: &Source, asked: &[Asked]) -> Result<Piece> {
        let mut bytes = Vec::new();
        let mut places = Vec::with_capacity(asked.len());
        let mut put = |place: usize, value: Option<&[u8]>| {
            let start = bytes.len();
            bytes.extend_from_slice(value.unwrap_or_default());
            places.push((place, value.map(|_| start..bytes.len())));
        };
        match &source.kind {
            Kind::Segment { segment, damaged: false, .. } => {
                let group = segment.read_group(segment.group_of(asked[0].0.at))?;
                asked.iter().for_each(|(at, place)| put(*place, group.sound_value(at.at)));
            }
            _ => {
                for (_, place) in asked {
                    put(*place, self.get(&keys[*place])?.as_deref());
                }
            }
        }
        Ok((bytes, places))
    }
}

/// The row group of a place; journals have none.
fn group_of(sources: &[Arc<Source>], place: &Place) -> usize {
    match &sources[place.source].kind {
        Kind::Segment { segment, .. } => segment.group_of(place.at),
        Kind::Own(_) | Kind::Other { .. } | Kind::Unreadable | Kind::Gone => 0,
    }
}
