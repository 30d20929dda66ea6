//! Rule labelling of radiology reports: text becomes mentions, each mention an assertion, and the
//! assertions of a report one state per finding.
//!
//! A [`Pack`] says which words and patterns stand for which finding; the lexicon of negation and
//! uncertainty is built in and a pack can extend it ([`Cues`]). [`Labeller::label`] applies both to
//! the sections of one report and answers with a state, a score and the words it rests on.
//!
//! The order of the steps follows NegEx (Chapman et al., J Biomed Inform 2001;34:301-310) and the
//! rule labeller SARLE (Draelos et al., Med Image Anal 2021;67:101857): sentences, clauses, masked
//! pseudo-negations, mentions with required and forbidden context, negation on either side of the
//! mention, uncertainty, and the strongest assertion of the report.

mod assertion;
mod cues;
mod english;
mod german;
mod headings;
mod labeller;
mod pack;
mod pattern;
mod probe;
mod sections;
mod sentences;
mod tally;
mod text;

pub use cues::{Cues, Language, Languages};
pub use labeller::{Evidence, FindingLabel, Labeller, State};
pub use pack::{Finding, Mapping, Mistake, NotMentioned, Pack, PackError, Rules, TakenBack, Term, Uncertain};
pub use sections::{Section, Splitter};
pub use text::normalised;
