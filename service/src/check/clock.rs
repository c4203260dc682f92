//! This machine's clock, compared with those of the check services.

use approov_verify::time::UnixTime;

/// How far this machine's clock is ahead of a server's at least, milliseconds; negative when it is behind. 0 when it
/// may be right: `date` is the response's `Date`, cut to a second, and was written between `sent` and `received`.
pub(super) fn offset(sent: UnixTime, received: UnixTime, date: UnixTime) -> i64 {
    let [sent, received, date] = [sent, received, date].map(UnixTime::as_millis);
    let at_least = sent.saturating_sub(date.saturating_add(1000));
    let at_most = received.saturating_sub(date);
    at_least.max(0) + at_most.min(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_way_and_the_cut_of_a_second_can_explain_is_no_offset() {
        let at = UnixTime::from_millis;
        for (sent, received, date, expected) in [
            (10_000, 10_050, 10_000, 0),
            (10_999, 11_050, 10_000, 0),
            // The server took eight seconds.
            (10_000, 18_000, 17_000, 0),
            (10_000, 18_000, 10_000, 0),
            (55_500, 55_600, 10_000, 44_500),
            (10_000, 10_050, 55_000, -44_950),
        ] {
            assert_eq!(offset(at(sent), at(received), at(date)), expected, "{sent} {received} {date}");
        }
    }
}
