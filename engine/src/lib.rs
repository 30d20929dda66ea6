//! Decides: spec -> plan -> run.
//!
//! ```text
//! text --yaml--> Node --spec--> Spec --check--> Pipeline --engine--> Plan or Run
//! ```
//!
//! The engine knows no operator, no terminal, no SQL engine and no GPU: operators come in through a
//! [`Registry`], what happens goes out as [`Event`]s.

pub mod axes;
pub mod canary;
pub mod check;
pub mod column;
mod contract;
mod decide;
pub mod diagnostic;
pub mod diff;
mod drift;
pub mod engine;
pub mod event;
mod execute;
pub mod forget;
mod forgotten;
mod io;
pub mod joining;
pub mod operator;
pub mod pipeline;
pub mod plan;
mod pools;
pub mod recipe;
mod rows;
mod schedule;
pub mod schema;
pub mod select;
pub mod shape;
pub mod spec;
mod statics;
pub mod table;
pub mod trial;
pub mod yaml;

pub use engine::{End, Engine, Options, Outcome};
pub use event::Event;
pub use io::{CommonPart, Io, QuestionKeys, RowError, find_source, shared_memo};
pub use operator::{Entry, Inputs, Kind, Needed, Operator, Port, Problem, Registry, Signature};
pub use pipeline::Pipeline;
pub use pools::Resources;
pub use statics::StaticAnswers;
