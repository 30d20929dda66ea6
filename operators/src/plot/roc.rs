//! ROC curves, a panel per finding.

use super::{Axis, Figure, Panel, Series};

/// The ROC curve of one finding.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The finding.
    pub finding: String,
    /// Its false positive rates and sensitivities, from 0, 0 to 1, 1.
    pub points: Vec<[f64; 2]>,
    /// The area below it.
    pub auc: f64,
    /// The ends of the area's 95 % interval, where it has one.
    pub interval: Option<[f64; 2]>,
}

/// A figure of the curves, each with its area and interval.
pub fn figure(title: &str, curves: &[Curve]) -> Figure {
    Figure { title: title.to_owned(), panels: curves.iter().map(panel).collect() }
}

fn panel(curve: &Curve) -> Panel {
    let interval = curve.interval.map(|[low, high]| format!(" ({low:.3}–{high:.3})")).unwrap_or_default();
    let rate = |label: &str| Axis { label: label.to_owned(), range: Some([0.0, 1.0]) };
    Panel {
        title: curve.finding.clone(),
        subtitle: format!("AUC {:.3}{interval}", curve.auc),
        x: rate("1 − specificity"),
        y: rate("sensitivity"),
        series: vec![Series { name: curve.finding.clone(), points: curve.points.clone(), has_dots: false }],
        has_diagonal: true,
    }
}
