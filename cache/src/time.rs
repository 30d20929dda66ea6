//! The time, as records write it.

/// The present moment as RFC 3339 in UTC, to the millisecond.
pub fn timestamp() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
