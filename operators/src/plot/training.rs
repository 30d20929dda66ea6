//! The course of a training: losses and learning rate by step.

use super::{Axis, Figure, Panel, Series};

/// A step of the optimiser, as a trainer's history holds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Its number, counted from 1.
    pub step: u64,
    /// The learning rate.
    pub lr: f64,
    /// The loss of the step's batch.
    pub train_loss: f64,
    /// The loss of the validation part, where it was computed after this step.
    pub val_loss: Option<f64>,
}

/// A figure of the losses and of the learning rate.
pub fn figure(title: &str, steps: &[Step]) -> Figure {
    let points = |of: fn(&Step) -> Option<f64>| {
        steps.iter().filter_map(|step| Some([step.step as f64, of(step)?])).collect::<Vec<_>>()
    };
    let series = |name: &str, points, has_dots| Series { name: name.to_owned(), points, has_dots };
    let mut losses = vec![series("training", points(|step| Some(step.train_loss)), false)];
    let validation = points(|step| step.val_loss);
    if !validation.is_empty() {
        losses.push(series("validation", validation, true));
    }
    let rate = vec![series("learning rate", points(|step| Some(step.lr)), false)];
    Figure { title: title.to_owned(), panels: vec![panel("loss", losses), panel("learning rate", rate)] }
}

fn panel(label: &str, series: Vec<Series>) -> Panel {
    let axis = |label: &str| Axis { label: label.to_owned(), range: None };
    let (title, subtitle) = (String::new(), String::new());
    Panel { title, subtitle, x: axis("step"), y: axis(label), series, has_diagonal: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_is_drawn_with_its_validation_where_it_has_one() {
        let step = |step: u64| Step {
            step,
            lr: 1e-4,
            train_loss: 1.0 / step as f64,
            val_loss: step.is_multiple_of(10).then_some(0.5),
        };
        let figure = figure("encoder", &(1..=30).map(step).collect::<Vec<_>>());
        let names: Vec<Vec<(&str, usize)>> = figure
            .panels
            .iter()
            .map(|panel| {
                panel.series.iter().map(|series| (series.name.as_str(), series.points.len())).collect()
            })
            .collect();
        assert_eq!(names, [vec![("training", 30), ("validation", 3)], vec![("learning rate", 30)]]);
        let svg = figure.svg();
        assert!(svg.contains(">validation</text>") && svg.contains(">learning rate</text>"));
    }
}
