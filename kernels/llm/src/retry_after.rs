//! How long a server asks to wait.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use reqwest::header::HeaderMap;

/// The wait that a response asks for: `retry-after-ms`, then `retry-after` in seconds (fractions too) or as an HTTP
/// date, then the longest of the times until the limits are renewed that are used up. A date is taken relative to the
/// response's own `date`, so that the two clocks need not agree; without one, relative to `now`.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let now = date(headers).unwrap_or_else(|| now.into());
    if let Some(wait) = text(headers, "retry-after-ms").and_then(|ms| duration(ms, 1e-3)) {
        return Some(wait);
    }
    if let Some(wait) = text(headers, "retry-after")
        .and_then(|value| duration(value, 1.0).or_else(|| until(http_date(value)?, now)))
    {
        return Some(wait);
    }
    exhausted(headers, now)
}

/// The wait until every limit is renewed of which a response says that nothing remains.
///
/// OpenAI and most gateways write `x-ratelimit-remaining-tokens` and `x-ratelimit-reset-tokens: 6m0s`, Anthropic
/// `anthropic-ratelimit-input-tokens-remaining` and `…-reset: 2026-11-20T10:00:00Z`.
pub(crate) fn exhausted(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    const LIMITS: [&str; 4] = ["requests", "tokens", "input-tokens", "output-tokens"];
    let named = LIMITS.iter().flat_map(|limit| {
        [
            (format!("x-ratelimit-remaining-{limit}"), format!("x-ratelimit-reset-{limit}")),
            (format!("anthropic-ratelimit-{limit}-remaining"), format!("anthropic-ratelimit-{limit}-reset")),
        ]
    });
    let used_up = named.filter(|(remaining, _)| text(headers, remaining) == Some("0"));
    let waits = used_up.filter_map(|(_, reset)| {
        let value = text(headers, &reset)?;
        clock_duration(value)
            .or_else(|| until(DateTime::parse_from_rfc3339(value).ok()?.to_utc(), now))
            .or_else(|| duration(value, 1.0))
    });
    waits.max()
}

/// The date that a response bears.
pub(crate) fn date(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    http_date(text(headers, "date")?)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// The time from one moment to a later one; none at all where it has passed.
fn until(then: DateTime<Utc>, now: DateTime<Utc>) -> Option<Duration> {
    Some((then - now).to_std().unwrap_or(Duration::ZERO))
}

/// An HTTP date as servers must write it (IMF-fixdate, RFC 9110 section 5.6.7), such as
/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text).ok().map(|date| date.to_utc())
}

/// A duration of numbers with units, such as `6m0s`, `1.5s` or `20ms`.
fn clock_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit_seconds = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit_seconds;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

/// Whether a response says `x-should-retry: false`.
pub(crate) fn forbids_retry(headers: &HeaderMap) -> bool {
    headers.get("x-should-retry").is_some_and(|value| value == "false")
}

fn duration(number: &str, unit_seconds: f64) -> Option<Duration> {
    let seconds = number.parse::<f64>().ok()? * unit_seconds;
    Duration::try_from_secs_f64(seconds).ok()
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
    fn a_limit_that_is_used_up_is_waited_for_until_it_is_renewed() {
        let openai = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "250ms"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0.5s"),
        ];
        assert_eq!(wait(&openai), Some(Duration::from_millis(360_500)));
        let some_left = [("x-ratelimit-remaining-requests", "3"), ("x-ratelimit-reset-requests", "6m0s")];
        assert_eq!(wait(&some_left), None);
        let anthropic = [
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
            ("anthropic-ratelimit-input-tokens-reset", "1994-11-06T08:49:37Z"),
        ];
        assert_eq!(wait(&anthropic), Some(Duration::from_secs(7)));
        let asked = [openai[0], openai[1], ("retry-after", "2")];
        assert_eq!(wait(&asked), Some(Duration::from_secs(2)));
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
