//! Text tables.

/// Rows of text under a header, aligned; numbers stand to the right.
pub(crate) fn aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let right: Vec<bool> = (0..header.len()).map(|c| rows.iter().all(|row| is_number(&row[c]))).collect();
    let mut text = line(&header.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>(), &widths, &right);
    for row in rows {
        text.push_str(&line(row, &widths, &right));
    }
    text
}

/// A count with its noun: `1 row`, `12 rows`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// US dollars, with as many digits as tell small amounts apart.
pub(crate) fn dollars(usd: f64) -> String {
    match usd {
        0.0 => "$0".to_owned(),
        v if v >= 0.995 => format!("${v:.2}"),
        v if v >= 0.0095 => format!("${v:.4}"),
        v => format!("${v:.6}"),
    }
}

/// Bytes as a person says them.
pub(crate) fn bytes(number: u64) -> String {
    let mut rest = number as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if rest < 999.5 {
            return if unit == "B" || rest >= 99.5 {
                format!("{rest:.0} {unit}")
            } else {
                format!("{rest:.1} {unit}")
            };
        }
        rest /= 1000.0;
    }
    format!("{rest:.1} TB")
}

/// Seconds as a person says them.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if v < 9.95 => format!("{v:.1} s"),
        v if v < 120.0 => format!("{v:.0} s"),
        v if v < 7200.0 => format!("{:.0} min", v / 60.0),
        v => format!("{:.1} h", v / 3600.0),
    }
}

fn line(cells: &[String], widths: &[usize], right: &[bool]) -> String {
    let mut text = String::new();
    for (column, cell) in cells.iter().enumerate() {
        let gap = " ".repeat(widths[column] - cell.chars().count());
        let padded = if right[column] { gap + cell } else { cell.clone() + &gap };
        text.push_str(if column == 0 { "" } else { "  " });
        text.push_str(&padded);
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

fn is_number(cell: &str) -> bool {
    cell.is_empty()
        || cell == "-"
        || cell.chars().next().is_some_and(|c| c.is_ascii_digit() || "$-+".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "20".to_owned()]];
        assert_eq!(aligned(&["name", "n"], &rows), "name   n\na      1\nbcd   20\n");
    }

    #[test]
    fn counts_and_times_read_well() {
        assert_eq!((count(1, "row"), count(2, "row")), ("1 row".into(), "2 rows".into()));
        assert_eq!([7, 1500, 250_000, 12_000_000_000].map(bytes), ["7 B", "1.5 kB", "250 kB", "12.0 GB"]);
        assert_eq!([0.04, 61.0, 600.0, 9000.0].map(seconds), ["0.0 s", "61 s", "10 min", "2.5 h"]);
    }
}
