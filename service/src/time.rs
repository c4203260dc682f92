//! Points in time as text. Time itself is [`UnixTime`], a value that is read once per request.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use approov_verify::time::UnixTime;

/// RFC 3339 text in UTC, to the second.
pub fn rfc3339(time: UnixTime) -> String {
    time::OffsetDateTime::from_unix_timestamp(time.as_secs())
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

/// Reads RFC 3339 text, of any zone.
pub fn parse_rfc3339(text: &str) -> Option<UnixTime> {
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok().map(UnixTime::from_millis)
}

/// The value of a `Date` header (RFC 9110 section 5.6.7).
pub fn http_date(time: UnixTime) -> String {
    httpdate::fmt_http_date(system_time(time))
}

/// The time that a `Date` header says, if it is well-formed.
pub fn parse_http_date(text: &str) -> Option<UnixTime> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(UnixTime::from_secs(i64::try_from(since.as_secs()).ok()?))
}

/// The same time as the standard library has it.
pub fn system_time(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: UnixTime = UnixTime::from_millis(1_620_127_950_391);

    #[test]
    fn rfc_3339_text_is_utc() {
        assert_eq!(rfc3339(TIME), "2021-05-04T11:32:30Z");
    }

    #[test]
    fn rfc_3339_text_of_any_zone_is_read() {
        for text in ["2021-05-04T11:32:30.391Z", "2021-05-04T13:32:30.391456+02:00", "2021-05-04t11:32:30.391z"] {
            assert_eq!(parse_rfc3339(text), Some(TIME), "{text}");
        }
        for bad in ["", "2021-05-04", "2021-05-04T11:32:30", "yesterday", "2021-13-04T11:32:30Z"] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_date_header_is_gmt() {
        assert_eq!(http_date(TIME), "Tue, 04 May 2021 11:32:30 GMT");
        assert_eq!(parse_http_date("Tue, 04 May 2021 11:32:30 GMT"), Some(UnixTime::from_secs(TIME.as_secs())));
        assert_eq!(parse_http_date("yesterday"), None);
    }
}
