//! Round numbers along an axis.

/// The ends of an axis and the numbers that are written along it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    /// The numbers and how they are written.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Scale {
    /// A scale with about `wanted` steps of 1, 2 or 5 times a power of ten. Without ends of its own it begins and ends on
    /// such steps around the values; without values it goes from 0 to 1.
    pub(super) fn new(values: impl Iterator<Item = f64>, range: Option<[f64; 2]>, wanted: usize) -> Scale {
        let [low, high] = range.or_else(|| extremes(values)).unwrap_or([0.0, 1.0]);
        // A single value lies in the middle.
        let half = if low == 0.0 { 1.0 } else { low.abs() / 2.0 };
        let [low, high] = if low < high { [low, high] } else { [low - half, low + half] };
        let step = round_step((high - low) / wanted.max(1) as f64);
        let [first, last] = match range {
            Some(_) => [(low / step - 1e-9).ceil(), (high / step + 1e-9).floor()],
            None => [(low / step + 1e-9).floor(), (high / step - 1e-9).ceil()],
        };
        let [low, high] = if range.is_some() { [low, high] } else { [first * step, last * step] };
        let count = (last - first).max(0.0) as usize;
        let ticks = (0..=count).map(|at| (first + at as f64) * step);
        Scale { low, high, ticks: ticks.map(|tick| (tick, written(tick, step))).collect() }
    }

    /// Where a value lies: 0 at the low end, 1 at the high end.
    pub(super) fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

fn extremes(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    values.filter(|value| value.is_finite()).fold(None, |ends: Option<[f64; 2]>, value| {
        let [low, high] = ends.unwrap_or([value, value]);
        Some([low.min(value), high.max(value)])
    })
}

/// The step of 1, 2 or 5 times a power of ten that is nearest above a length.
fn round_step(length: f64) -> f64 {
    let power = 10_f64.powi(length.log10().floor() as i32);
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| length <= factor * power * (1.0 + 1e-9));
    factor.unwrap_or(10.0) * power
}

/// A number with the digits that its step needs; very large and very small steps are written with a power of ten.
fn written(tick: f64, step: f64) -> String {
    if tick.abs() < step / 2.0 {
        return "0".to_owned();
    }
    let exponent = step.log10().floor() as i32;
    if !(-3..5).contains(&exponent) {
        let power = tick.abs().log10().floor() as i32;
        let digits = (power - exponent).max(0) as usize;
        let number = format!("{tick:.digits$e}");
        let (mantissa, power) = number.split_once('e').unwrap_or((&number, "0"));
        let mantissa =
            if digits > 0 { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
        return format!("{mantissa}e{power}").replace('-', MINUS);
    }
    format!("{tick:.*}", (-exponent).max(0) as usize).replace('-', MINUS)
}

/// A minus sign as wide as a plus.
const MINUS: &str = "\u{2212}";

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(values: &[f64], range: Option<[f64; 2]>) -> String {
        let scale = Scale::new(values.iter().copied(), range, 5);
        let ticks: Vec<String> = scale.ticks.into_iter().map(|(_, text)| text).collect();
        format!("{}..{}: {}", scale.low, scale.high, ticks.join(" "))
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(ticks(&[], Some([0.0, 1.0])), "0..1: 0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(ticks(&[0.13, 0.71], None), "0..0.8: 0 0.2 0.4 0.6 0.8");
        assert_eq!(ticks(&[1.0, 48211.0], None), "0..50000: 0 10000 20000 30000 40000 50000");
        assert_eq!(ticks(&[-3.2, 4.1], None), "-4..6: −4 −2 0 2 4 6");
        assert_eq!(ticks(&[1e-6, 1e-4], None), "0..0.0001: 0 2e−5 4e−5 6e−5 8e−5 1e−4");
        assert_eq!(ticks(&[2e7, 9e7], None), "20000000..100000000: 2e7 4e7 6e7 8e7 1e8");
    }

    #[test]
    fn one_value_and_none_have_an_axis() {
        assert_eq!(ticks(&[0.5], None), "0.2..0.8: 0.2 0.3 0.4 0.5 0.6 0.7 0.8");
        assert_eq!(ticks(&[0.0], None), "-1..1: −1.0 −0.5 0 0.5 1.0");
        assert_eq!(ticks(&[f64::NAN, f64::INFINITY], None), "0..1: 0 0.2 0.4 0.6 0.8 1.0");
    }
}
