//! SQL, by DataFusion: the `sql` operator, predicates in other operators' parameters, and the catalog that
//! answers questions over everything in a store. No other folder knows DataFusion.

pub mod catalog;
mod mistake;
pub mod operator;
pub(crate) mod predicate;
mod session;
