//! ROC curves as a table and as a picture.

use std::sync::Arc;

use argent_engine::column;
use argent_stats::{RocPoint, roc_vertices};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, SchemaRef};

use super::measures::Score;
use super::rows::Measured;
use crate::plot::{Figure, roc};

/// The ROC curve of a finding.
pub(super) struct Curve<'a> {
    score: &'a Score,
    vertices: Vec<RocPoint>,
}

/// The curves of the findings that have one.
pub(super) fn of<'a>(measured: &[Measured], scores: &'a [Score]) -> anyhow::Result<Vec<Curve<'a>>> {
    let mut curves = Vec::new();
    for (measured, score) in measured.iter().zip(scores) {
        let (targets, found) = measured.columns();
        if let Some(vertices) = roc_vertices(&targets, &found)? {
            curves.push(Curve { score, vertices });
        }
    }
    Ok(curves)
}

/// The columns of the table.
pub(super) fn fields() -> Vec<Field> {
    let mut fields = vec![column::text("finding"), column::whole("point")];
    fields.extend(["threshold", "false_positive_rate", "sensitivity"].map(column::number));
    fields
}

/// The vertices of all curves.
pub(super) fn batch(schema: SchemaRef, curves: &[Curve]) -> anyhow::Result<RecordBatch> {
    let points: Vec<(&str, usize, &RocPoint)> = curves
        .iter()
        .flat_map(|curve| {
            let numbered = curve.vertices.iter().enumerate();
            numbered.map(|(at, point)| (curve.score.finding.as_str(), at + 1, point))
        })
        .collect();
    let number = |of: fn(&RocPoint) -> Option<f64>| -> ArrayRef {
        Arc::new(points.iter().map(|(_, _, point)| of(point)).collect::<Float64Array>())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(points.iter().map(|(finding, _, _)| finding))),
        Arc::new(Int64Array::from_iter_values(points.iter().map(|(_, at, _)| *at as i64))),
        number(|point| point.threshold.is_finite().then_some(point.threshold)),
        number(|point| Some(point.false_positive_rate)),
        number(|point| Some(point.true_positive_rate)),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The picture of all curves.
pub(super) fn figure(part: &str, curves: &[Curve]) -> Figure {
    let curve = |curve: &Curve| roc::Curve {
        finding: curve.score.finding.clone(),
        points: curve.vertices.iter().map(|p| [p.false_positive_rate, p.true_positive_rate]).collect(),
        auc: curve.score.auc.unwrap_or(f64::NAN),
        interval: curve.score.auc_interval.map(|interval| [interval.low, interval.high]),
    };
    roc::figure(&format!("ROC curves on the part {part}"), &curves.iter().map(curve).collect::<Vec<_>>())
}
