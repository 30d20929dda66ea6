//! Plots: series of points as SVG files, which any browser shows.
//!
//! A picture is one text without scripts, fonts or files of its own. It is light or dark as the reader's screen is, and its
//! colours are told apart by the colour-blind (Okabe and Ito's palette).

pub mod roc;
pub mod stored;
mod svg;
mod ticks;
pub mod training;

use argent_engine::column;
use arrow::datatypes::Field;

/// Panels beside and below each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What all panels show.
    pub title: String,
    /// The panels, row by row.
    pub panels: Vec<Panel>,
}

/// One pair of axes and what is drawn between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What it shows; empty where the figure's title says it.
    pub title: String,
    /// A line of numbers below the title; empty for none.
    pub subtitle: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn. With more than one, a legend names them.
    pub series: Vec<Series>,
    /// Whether a line from the lower left to the upper right shows what chance gives.
    pub has_diagonal: bool,
}

/// An axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What it counts, with its unit.
    pub label: String,
    /// Its ends; left out, round numbers around the points.
    pub range: Option<[f64; 2]>,
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points, in the order in which they are joined. A point that is not finite parts the line.
    pub points: Vec<[f64; 2]>,
    /// Whether each point is marked, because there are few.
    pub has_dots: bool,
}

impl Figure {
    /// The figure as the text of an SVG file: a function of the figure alone.
    pub fn svg(&self) -> String {
        svg::draw(self)
    }
}

/// The columns of an output of plots, a row per `name`.
pub fn fields() -> Vec<Field> {
    vec![column::text("name"), column::file("svg")]
}
