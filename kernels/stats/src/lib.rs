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
mod mcnemar;
mod normal;
mod precision_recall;
mod proportion;
mod ratio;
mod roc;
mod student;
mod threshold;
mod ties;

pub use agreement::{Kappa, cohen_kappa, fleiss_kappa, gwet_ac1, krippendorff_alpha};
pub use bootstrap::{
    Bootstrap, PairedBootstrap, bca_interval, cluster_bootstrap, cluster_bootstrap_bca,
    paired_cluster_bootstrap,
};
pub use calibration::{
    CALIBRATION_BINS, ReliabilityBin, brier_score, expected_calibration_error, reliability_table,
};
pub use confusion::Confusion;
pub use delong::{DelongTest, auc_interval_delong, delong_test};
pub use error::StatsError;
pub use interval::Interval;
pub use mcnemar::{McNemar, holm, mcnemar};
pub use normal::{normal_quantile, normal_two_sided_p};
pub use precision_recall::average_precision;
pub use proportion::wilson;
pub use ratio::{RatioTotal, ratio_total};
pub use roc::{RocPoint, roc_auc, roc_curve};
pub use threshold::{closest_to_corner_threshold, f1_threshold, youden_threshold};
