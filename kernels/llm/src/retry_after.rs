//! How long a server asks to wait.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;

/// The wait that a response asks for: `retry-after-ms`, then `retry-after` in seconds (fractions too) or as an HTTP
/// date. A date is taken relative to the response's own `date`, so that the two clocks need not agree; without
/// one, relative to `now`.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(wait) = text("retry-after-ms").and_then(|ms| duration(ms, 1e-3)) {
        return Some(wait);
    }
    let value = text("retry-after")?;
    if let Some(wait) = duration(value, 1.0) {
        return Some(wait);
    }
    let until = http_date_seconds(value)?;
    let from = text("date").and_then(http_date_seconds).unwrap_or_else(|| {
        now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
    });
    Some(Duration::from_secs(u64::try_from(until - from).unwrap_or(0)))
}

/// Whether a response says `x-should-retry: false`.
pub(crate) fn forbids_retry(headers: &HeaderMap) -> bool {
    headers.get("x-should-retry").is_some_and(|value| value == "false")
}

fn duration(number: &str, unit_seconds: f64) -> Option<Duration> {
    let seconds = number.parse::<f64>().ok()? * unit_seconds;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Seconds since 1970 of an HTTP date in the only form that servers may write (IMF-fixdate, RFC 9110 section
/// 5.6.7), such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date_seconds(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_weekday, date) = text.split_once(", ")?;
    let [day, month, year, time, "GMT"] = date.split(' ').collect::<Vec<_>>()[..] else { return None };
    let [hours, minutes, seconds] = time.split(':').collect::<Vec<_>>()[..] else { return None };
    let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
    let month = MONTHS.iter().position(|&name| name == month)? as i64 + 1;
    let days = days_since_1970(number(year)?, month, number(day)?);
    Some(((days * 24 + number(hours)?) * 60 + number(minutes)?) * 60 + number(seconds)?)
}

/// Days from 1 January 1970 to a date of the Gregorian calendar: years begin in March, so that the leap day is the
/// last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days_before_month = (153 * month + 2) / 5;
    // 719,468 days lie between 1 March of the year 0 and 1 January 1970.
    year * 365 + leap_days + days_before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(headers: &[(&'static str, &str)]) -> Option<Duration> {
        let headers =
            headers.iter().map(|(name, value)| ((*name).try_into().unwrap(), value.parse().unwrap()));
        retry_after(
            &headers.collect::<HeaderMap>(),
            SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770),
        )
    }

    #[test]
    fn http_dates_are_seconds_since_1970() {
        // From Python's email.utils.parsedate_to_datetime(text).timestamp().
        assert_eq!(http_date_seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date_seconds("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        assert_eq!(http_date_seconds("Fri, 01 Mar 2024 00:00:00 GMT"), Some(1_709_251_200));
        assert_eq!(http_date_seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date_seconds("Mon, 01 Mar 2100 12:00:00 GMT"), Some(4_107_585_600));
        assert_eq!(http_date_seconds("Sunday, 06-Nov-94 08:49:37 GMT"), None);
    }

    #[test]
    fn a_wait_is_read_from_milliseconds_then_seconds_then_a_date() {
        assert_eq!(
            wait(&[("retry-after-ms", "250"), ("retry-after", "9")]),
            Some(Duration::from_millis(250))
        );
        assert_eq!(wait(&[("retry-after", "1.5")]), Some(Duration::from_millis(1500)));
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]), Some(Duration::from_secs(7)));
        let skewed =
            [("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), ("date", "Sun, 06 Nov 1994 08:49:35 GMT")];
        assert_eq!(wait(&skewed), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_wait_that_cannot_be_read_is_none() {
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&[("retry-after", "-3")]), None);
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[("retry-after-ms", "NaN")]), None);
    }

    #[test]
    fn a_date_in_the_past_is_no_wait() {
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), Some(Duration::ZERO));
    }
}
