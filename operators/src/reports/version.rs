//! What tells the versions of one report apart: a time, or a number.

use std::cmp::Ordering;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

/// A point in time, or a number; numbers come before times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Version {
    /// A version number.
    Number(f64),
    /// Microseconds since 1970-01-01; a time without a zone is taken as UTC.
    Time(i64),
}

impl Version {
    /// Reads a time as ISO 8601 writes it (`2024-05-01`, `2024-05-01T10:30:00+02:00`), as DICOM and HL7 do
    /// (`20240501`, `202405011030`, `20240501103000.5+0200`), or a number.
    ///
    /// # Errors
    /// When the text is neither; the message does not hold it.
    pub(crate) fn parse(text: &str) -> Result<Version, String> {
        let text = text.trim();
        let number = || text.parse::<f64>().ok().filter(|n| n.is_finite()).map(Version::Number);
        let time = iso(text).or_else(|| packed(text)).map(Version::Time);
        time.or_else(number).ok_or_else(|| {
            "the version is neither a time (such as 2024-05-01T10:30:00 or 20240501) nor a number".to_owned()
        })
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        match (self, other) {
            (Version::Number(one), Version::Number(other)) => one.total_cmp(other),
            (Version::Time(one), Version::Time(other)) => one.cmp(other),
            (Version::Number(_), Version::Time(_)) => Ordering::Less,
            (Version::Time(_), Version::Number(_)) => Ordering::Greater,
        }
    }
}

fn iso(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(&text.replacen(' ', "T", 1)) {
        return Some(time.timestamp_micros());
    }
    let forms = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    let time = forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|day| day.and_time(NaiveTime::MIN));
    time.or_else(day).map(|time| time.and_utc().timestamp_micros())
}

/// `YYYYMMDD`, `YYYYMMDDhhmm`, `YYYYMMDDhhmmss` with a fraction of a second and a zone behind it.
fn packed(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (day, rest) = text.split_at_checked(8)?;
    let day = NaiveDate::parse_from_str(day, "%Y%m%d").ok()?;
    let (time, zone) = match rest.find(['+', '-']) {
        Some(sign) => (&rest[..sign], &rest[sign..]),
        None => (rest, ""),
    };
    let time = match digits {
        8 if rest.is_empty() => NaiveTime::MIN,
        12 => NaiveTime::parse_from_str(time, "%H%M").ok()?,
        14 => NaiveTime::parse_from_str(time, "%H%M%S%.f").ok()?,
        _ => return None,
    };
    let micros = day.and_time(time).and_utc().timestamp_micros();
    if zone.is_empty() {
        return Some(micros);
    }
    let minutes: i64 = zone[1..].parse().ok().filter(|_| zone.len() == 5)?;
    let minutes = (minutes / 100) * 60 + minutes % 100;
    Some(if zone.starts_with('+') { micros - minutes * 60_000_000 } else { micros + minutes * 60_000_000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).expect(text)
    }

    #[test]
    fn one_moment_has_many_spellings() {
        let moment = version("2024-05-01T10:30:00Z");
        for text in [
            "2024-05-01T12:30:00+02:00",
            "2024-05-01 10:30:00",
            "2024-05-01T10:30",
            "202405011030",
            "20240501103000",
            "20240501123000.000+0200",
            "20240501053000-0500",
        ] {
            assert_eq!(version(text), moment, "{text}");
        }
        assert_eq!(version("2024-05-01"), version("20240501"));
    }

    #[test]
    fn later_is_more_and_numbers_are_numbers() {
        assert!(version("2024-05-01") < version("2024-05-01T00:00:01"));
        assert!(version("9") < version("10"));
        assert!(version("2") < version("2024-05-01"));
        assert!(version("20240501") > version("20240430235959"));
        for wrong in ["", "final", "2024-13-01", "NaN", "20241301x"] {
            assert!(Version::parse(wrong).is_err(), "{wrong}");
        }
    }
}
