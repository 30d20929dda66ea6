//! Statistics of diagnostic tests: what a score or a label is worth against a reference standard.
//!
//! ```text
//! targets, scores -> roc_auc, average_precision, roc_curve       how well the scores order the rows
//!                 -> auc_interval_delong, delong_test            how sure that is
//!                 -> youden_threshold, f1_threshold, ..          where to cut
//!                 -> Confusion -> sensitivity, ppv, kappa, ..    what the cut decides
//!                 -> brier_score, expected_calibration_error     whether a score is a probability
//! two decisions   -> mcnemar, holm                               whether they differ
//! labellers       -> cohen_kappa, gwet_ac1, krippendorff_alpha   how far they agree beyond chance
//! rows, clusters  -> cluster_bootstrap, paired_cluster_bootstrap an interval for any of them, or a difference
//! vectors         -> nearest_neighbours, best_ranks               which of a gallery are near, and how near one is
//!                 -> LabelRetrieval, hits_at                     what a retrieval is worth
//!                 -> zero_shot_probabilities                     what an image has, by texts that say so
//! sizes, a few    -> ratio_total                                 what the rest will come to
//! ```
//!
//! Three rules hold everywhere. A quantity that the data leave undefined is `None`, never 0. A score that is
//! not a number is an error, and is sorted nowhere. A row is called positive when `score >= threshold`.

mod agreement;
mod bootstrap;
mod calibration;
mod confusion;
mod delong;
mod error;
mod interval;
mod label_sets;
mod mcnemar;
mod neighbours;
mod normal;
mod precision_recall;
mod proportion;
mod ranking;
mod ratio;
mod retrieval;
mod roc;
mod student;
mod threshold;
mod ties;
mod vectors;
mod zero_shot;

pub use agreement::{Kappa, cohen_kappa, fleiss_kappa, gwet_ac1, krippendorff_alpha};
pub use bootstrap::{
    Bootstrap, PairedBootstrap, bca_interval, cluster_bootstrap, cluster_bootstrap_bca,
    cluster_bootstrap_each, paired_cluster_bootstrap,
};
pub use calibration::{
    CALIBRATION_BINS, ReliabilityBin, brier_score, expected_calibration_error, reliability_table,
};
pub use confusion::Confusion;
pub use delong::{DelongTest, auc_interval_delong, delong_test};
pub use error::StatsError;
pub use interval::Interval;
pub use label_sets::LabelSet;
pub use mcnemar::{McNemar, holm, mcnemar};
pub use neighbours::{best_ranks, nearest_neighbours};
pub use normal::{normal_quantile, normal_two_sided_p};
pub use precision_recall::average_precision;
pub use proportion::wilson;
pub use ranking::{DrawnRanking, Ranking};
pub use ratio::{RatioTotal, ratio_total};
pub use retrieval::{LabelRetrieval, OverlapMeasure, chance_of_a_hit, hits_at};
pub use roc::{RocPoint, roc_auc, roc_curve, roc_vertices};
pub use threshold::{closest_to_corner_threshold, f1_threshold, youden_threshold};
pub use vectors::{Similarity, Vectors};
pub use zero_shot::{Comparison, Ensemble, zero_shot_probabilities};
