//! A figure as the text of an SVG file.

use std::fmt::Write;

use super::ticks::Scale;
use super::{Axis, Figure, Panel, Series};

/// Classes instead of variables, because not every program that shows SVG knows those.
const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',Arial,sans-serif;font-size:12px;fill:#24292f}
.title{font-size:16px;font-weight:600}.head{font-size:13px;font-weight:600}.soft{fill:#57606a}
.ground{fill:#ffffff}.grid{stroke:#e6e9ed;stroke-width:1}.axis{stroke:#8c959f;stroke-width:1}
.chance{stroke:#8c959f;stroke-width:1;stroke-dasharray:4 4}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.dense{stroke-width:1;opacity:0.6}
.s0{stroke:#0072b2}.s1{stroke:#d55e00}.s2{stroke:#009e73}.s3{stroke:#b05a8f}.s4{stroke:#8a6d00}.s5{stroke:#3b8fc4}
.d0{fill:#0072b2}.d1{fill:#d55e00}.d2{fill:#009e73}.d3{fill:#b05a8f}.d4{fill:#8a6d00}.d5{fill:#3b8fc4}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.soft{fill:#9da7b3}.ground{fill:#0d1117}.grid{stroke:#21262d}.axis,.chance{stroke:#6e7681}
.s0{stroke:#56b4e9}.s1{stroke:#f0883e}.s2{stroke:#2fbf97}.s3{stroke:#cc79a7}.s4{stroke:#e0c341}.s5{stroke:#9ecbff}
.d0{fill:#56b4e9}.d1{fill:#f0883e}.d2{fill:#2fbf97}.d3{fill:#cc79a7}.d4{fill:#e0c341}.d5{fill:#9ecbff}
}
";

/// Colours, after which they begin anew.
const COLOURS: usize = 6;

/// Pixels around the plot area of a panel: left, above (without its lines of text), right, below.
const MARGIN: [f64; 4] = [66.0, 12.0, 22.0, 48.0];

/// The height of a line of text.
const LINE: f64 = 18.0;

/// The height of the figure's title.
const TITLE: f64 = 40.0;

/// The width of a letter, about: fonts are the reader's.
const LETTER: f64 = 6.8;

/// How many panels stand beside each other at most.
const COLUMNS: usize = 4;

/// The text of the SVG file.
pub(super) fn draw(figure: &Figure) -> String {
    let columns = ((figure.panels.len() as f64).sqrt().ceil() as usize).clamp(1, COLUMNS);
    let area = area(&figure.panels);
    let lines = figure.panels.iter().map(lines).max().unwrap_or(0);
    let width = MARGIN[0] + area[0] + MARGIN[2];
    let height = MARGIN[1] + lines as f64 * LINE + area[1] + MARGIN[3];
    let rows = figure.panels.len().div_ceil(columns);
    let size = [width * columns as f64, TITLE + height * rows as f64];
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\">\n\
         <title>{2}</title>\n<style>\n{STYLE}</style>\n<rect class=\"ground\" width=\"{0}\" height=\"{1}\"/>\n",
        number(size[0]),
        number(size[1]),
        escaped(&figure.title),
    );
    let fits = (size[0] / (LETTER * 1.35)) as usize;
    text(&mut svg, [16.0, 26.0], "title", "start", &cut(&figure.title, fits));
    for (place, panel) in figure.panels.iter().enumerate() {
        let corner = [(place % columns) as f64 * width, TITLE + (place / columns) as f64 * height];
        Frame { corner, area, lines, panel }.draw(&mut svg);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The size of a plot area: large where there is one panel, square where both axes are one measure.
fn area(panels: &[Panel]) -> [f64; 2] {
    let is_square = panels.iter().all(|panel| panel.x.range.is_some() && panel.x.range == panel.y.range);
    match (panels.len(), is_square) {
        (1, true) => [380.0, 380.0],
        (1, false) => [560.0, 340.0],
        (_, true) => [210.0, 210.0],
        (_, false) => [400.0, 280.0],
    }
}

/// The lines of text above a panel's plot area.
fn lines(panel: &Panel) -> usize {
    let has_legend = panel.series.len() > 1;
    usize::from(!panel.title.is_empty()) + usize::from(!panel.subtitle.is_empty()) + usize::from(has_legend)
}

/// A panel and where it stands.
struct Frame<'a> {
    corner: [f64; 2],
    area: [f64; 2],
    /// The lines of text above all plot areas.
    lines: usize,
    panel: &'a Panel,
}

impl Frame<'_> {
    fn draw(&self, svg: &mut String) {
        let (x, y) = self.scales();
        svg.push_str("<g>\n");
        self.draw_head(svg);
        self.draw_axes(svg, &x, &y);
        if self.panel.has_diagonal {
            let ([left, bottom], [right, top]) = (self.at(0.0, 0.0), self.at(1.0, 1.0));
            line(svg, "chance", [left, bottom], [right, top]);
        }
        for (place, series) in self.panel.series.iter().enumerate() {
            self.draw_series(svg, series, place % COLOURS, &x, &y);
        }
        svg.push_str("</g>\n");
    }

    fn scales(&self) -> (Scale, Scale) {
        let Panel { x, y, series, .. } = self.panel;
        let scale = |axis: &Axis, of: usize, wanted: f64| {
            let values = series.iter().flat_map(|series| series.points.iter().map(move |point| point[of]));
            Scale::new(values, axis.range, wanted as usize)
        };
        (scale(x, 0, self.area[0] / 65.0), scale(y, 1, self.area[1] / 45.0))
    }

    /// A point of the plot area in pixels; 0, 0 is its lower left.
    fn at(&self, x: f64, y: f64) -> [f64; 2] {
        let top = self.corner[1] + MARGIN[1] + self.lines as f64 * LINE;
        [self.corner[0] + MARGIN[0] + x * self.area[0], top + (1.0 - y) * self.area[1]]
    }

    fn draw_head(&self, svg: &mut String) {
        let [left, top] = self.at(0.0, 1.0);
        let fits = ((self.area[0] + MARGIN[2]) / LETTER) as usize;
        let own = lines(self.panel);
        let mut baseline = top - 8.0 - (own as f64 - 1.0) * LINE;
        for (class, words) in [("head", &self.panel.title), ("soft", &self.panel.subtitle)] {
            if !words.is_empty() {
                text(svg, [left, baseline], class, "start", &cut(words, fits));
                baseline += LINE;
            }
        }
        if self.panel.series.len() > 1 {
            let mut x = left;
            for (place, series) in self.panel.series.iter().enumerate() {
                let class = format!("line s{}", place % COLOURS);
                line(svg, &class, [x, baseline - 4.0], [x + 16.0, baseline - 4.0]);
                text(svg, [x + 22.0, baseline], "", "start", &series.name);
                x += 22.0 + series.name.chars().count() as f64 * LETTER + 16.0;
            }
        }
    }

    fn draw_axes(&self, svg: &mut String, x: &Scale, y: &Scale) {
        for (value, words) in &x.ticks {
            let [at, bottom] = self.at(x.place(*value), 0.0);
            line(svg, "grid", [at, bottom], [at, bottom - self.area[1]]);
            text(svg, [at, bottom + 17.0], "soft", "middle", words);
        }
        for (value, words) in &y.ticks {
            let [left, at] = self.at(0.0, y.place(*value));
            line(svg, "grid", [left, at], [left + self.area[0], at]);
            text(svg, [left - 7.0, at + 4.0], "soft", "end", words);
        }
        let ([left, bottom], [right, top]) = (self.at(0.0, 0.0), self.at(1.0, 1.0));
        line(svg, "axis", [left, bottom], [right, bottom]);
        line(svg, "axis", [left, bottom], [left, top]);
        text(svg, [(left + right) / 2.0, bottom + 36.0], "", "middle", &self.panel.x.label);
        let middle = [left - 50.0, (top + bottom) / 2.0];
        let turned = format!(" transform=\"rotate(-90 {} {})\"", number(middle[0]), number(middle[1]));
        text_with(svg, middle, "", "middle", &turned, &self.panel.y.label);
    }

    fn draw_series(&self, svg: &mut String, series: &Series, colour: usize, x: &Scale, y: &Scale) {
        let pixels: Vec<Option<[f64; 2]>> = series
            .points
            .iter()
            .map(|[a, b]| (a.is_finite() && b.is_finite()).then(|| self.at(x.place(*a), y.place(*b))))
            .collect();
        for run in pixels.split(Option::is_none) {
            let run: Vec<[f64; 2]> = run.iter().flatten().copied().collect();
            // A line that fills a band would hide what lies in it.
            let dense = if is_band(&run) { " dense" } else { "" };
            let path: String = thinned(&run)
                .iter()
                .enumerate()
                .map(|(at, [x, y])| {
                    format!("{}{} {}", if at == 0 { "M" } else { "L" }, number(*x), number(*y))
                })
                .collect();
            if run.len() > 1 {
                let _ = writeln!(svg, "<path class=\"line s{colour}{dense}\" d=\"{path}\"/>");
            }
            // A point that has no neighbour would not be seen as a line.
            let dots = if series.has_dots || run.len() == 1 { run.as_slice() } else { &[] };
            for [x, y] in dots {
                let (x, y) = (number(*x), number(*y));
                let _ = writeln!(svg, "<circle class=\"d{colour}\" cx=\"{x}\" cy=\"{y}\" r=\"3\"/>");
            }
        }
    }
}

/// Whether a line goes up and down by more than a few pixels within one.
fn is_band(run: &[[f64; 2]]) -> bool {
    let columns = run.chunk_by(|one, next| one[0].floor() == next[0].floor());
    let spans: Vec<f64> = columns
        .filter(|column| column.len() > 4)
        .map(|column| {
            let heights = column.iter().map(|point| point[1]);
            heights.clone().fold(f64::MIN, f64::max) - heights.fold(f64::MAX, f64::min)
        })
        .collect();
    spans.iter().sum::<f64>() > 4.0 * spans.len() as f64
}

/// A line of many points with at most four in each column of pixels: the first, the lowest, the highest and the last, which
/// look the same.
fn thinned(run: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let mut kept = Vec::new();
    for column in run.chunk_by(|one, next| one[0].floor() == next[0].floor()) {
        if column.len() <= 4 {
            kept.extend_from_slice(column);
            continue;
        }
        let place = |better: fn(f64, f64) -> bool| {
            (0..column.len())
                .fold(0, |best, at| if better(column[at][1], column[best][1]) { at } else { best })
        };
        let mut places = vec![0, place(|a, b| a < b), place(|a, b| a > b), column.len() - 1];
        places.sort_unstable();
        places.dedup();
        kept.extend(places.into_iter().map(|at| column[at]));
    }
    kept
}

fn line(svg: &mut String, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
    let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(number);
    let _ = writeln!(svg, "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>");
}

fn text(svg: &mut String, at: [f64; 2], class: &str, anchor: &str, words: &str) {
    text_with(svg, at, class, anchor, "", words);
}

fn text_with(svg: &mut String, at: [f64; 2], class: &str, anchor: &str, more: &str, words: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let [x, y] = at.map(number);
    let words = escaped(words);
    let _ = writeln!(svg, "<text{class} x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\"{more}>{words}</text>");
}

/// A tenth of a pixel is finer than any screen.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A text that is too long ends in an ellipsis.
fn cut(words: &str, letters: usize) -> String {
    if words.chars().count() <= letters {
        return words.to_owned();
    }
    words.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}

/// A text as it may stand in XML: characters with a meaning there are written out, those that XML has none for are replaced.
fn escaped(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for letter in words.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(points: Vec<[f64; 2]>) -> Panel {
        Panel {
            title: "a & b".to_owned(),
            subtitle: String::new(),
            x: Axis { label: "<x>".to_owned(), range: None },
            y: Axis { label: "y".to_owned(), range: None },
            series: vec![Series { name: "s".to_owned(), points, has_dots: false }],
            has_diagonal: false,
        }
    }

    fn drawn(points: Vec<[f64; 2]>) -> String {
        draw(&Figure { title: "\"t\"\u{1}".to_owned(), panels: vec![panel(points)] })
    }

    fn paths(svg: &str) -> Vec<&str> {
        svg.lines().filter(|line| line.starts_with("<path")).collect()
    }

    #[test]
    fn words_cannot_become_markup() {
        let svg = drawn(vec![[0.0, 0.0], [1.0, 1.0]]);
        assert!(svg.contains(">a &amp; b</text>") && svg.contains(">&lt;x&gt;</text>"), "{svg}");
        assert!(svg.contains("<title>&quot;t&quot;\u{fffd}</title>"), "{svg}");
    }

    #[test]
    fn a_line_goes_through_its_points_in_pixels() {
        // The area is 560 x 340 pixels, 66 from the left, and 40 + 12 + 18 from above.
        let svg = drawn(vec![[0.0, 0.0], [5.0, 2.0], [10.0, 1.0]]);
        assert_eq!(paths(&svg), ["<path class=\"line s0\" d=\"M66 410L346 70L626 240\"/>"]);
    }

    #[test]
    fn a_number_that_is_none_parts_the_line_and_one_point_is_a_dot() {
        let svg = drawn(vec![[0.0, 0.0], [1.0, 1.0], [2.0, f64::NAN], [3.0, 1.0]]);
        assert_eq!(paths(&svg).len(), 1);
        assert_eq!(svg.matches("<circle").count(), 1);
        let nothing = drawn(Vec::new());
        assert_eq!((paths(&nothing).len(), nothing.matches("<circle").count()), (0, 0));
    }

    #[test]
    fn a_line_of_a_hundred_thousand_points_is_a_small_file_with_its_peaks() {
        let mut points: Vec<[f64; 2]> = (0..100_000).map(|at| [f64::from(at), f64::from(at % 7)]).collect();
        points[54_321][1] = 50.0;
        let svg = drawn(points);
        assert!(svg.len() < 40_000, "{} bytes", svg.len());
        let path = paths(&svg)[0];
        assert!(
            path.split(['M', 'L']).any(|point| point.trim_end_matches("\"/>").ends_with(" 70")),
            "{path}"
        );
    }
}
