//! Delay stamps (XEP-0203 2.0) in the form of XEP-0082, computed without a clock or a library of time zones.

use bytes::Bytes;

/// `2026-11-21T03:44:07.123Z` for milliseconds since 1970.
pub fn stamp(at_ms: u64) -> String {
    let (days, ms) = ((at_ms / 86_400_000) as i64, at_ms % 86_400_000);
    // Civil date of a day number: years begin in March, so that the leap day comes last.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1_000)
}

/// The stanza with a `<delay/>` of `from` as its last child. The payload is copied, not built anew.
pub fn with_delay(stanza: &Bytes, from: &str, at_ms: u64) -> Bytes {
    let delay = format!("<delay xmlns='urn:xmpp:delay' from='{from}' stamp='{}'/>", stamp(at_ms));
    let text = &stanza[..];
    let mut out = Vec::with_capacity(text.len() + delay.len() + 16);
    if text.ends_with(b"/>") {
        let name_end = text.iter().position(|c| c.is_ascii_whitespace() || *c == b'/').unwrap_or(text.len());
        out.extend_from_slice(&text[..text.len() - 2]);
        out.push(b'>');
        out.extend_from_slice(delay.as_bytes());
        out.extend_from_slice(b"</");
        out.extend_from_slice(&text[1..name_end]);
        out.push(b'>');
    } else {
        let close = text.windows(2).rposition(|w| w == b"</").unwrap_or(text.len());
        out.extend_from_slice(&text[..close]);
        out.extend_from_slice(delay.as_bytes());
        out.extend_from_slice(&text[close..]);
    }
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_civil_dates() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(stamp(951_868_799_999), "2000-02-29T23:59:59.999Z");
        assert_eq!(stamp(1_795_232_647_123), "2026-11-21T03:44:07.123Z");
        assert_eq!(stamp(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn the_delay_is_the_last_child_and_nothing_else_changes() {
        let text = Bytes::from_static(b"<message to='a@b'><body>x &lt;/y&gt;</body></message>");
        let out = with_delay(&text, "b", 0);
        assert_eq!(
            out,
            "<message to='a@b'><body>x &lt;/y&gt;</body><delay xmlns='urn:xmpp:delay' from='b' \
             stamp='1970-01-01T00:00:00.000Z'/></message>"
        );
        let empty = with_delay(&Bytes::from_static(b"<message to='a@b'/>"), "b", 0);
        assert!(empty.starts_with(b"<message to='a@b'><delay ") && empty.ends_with(b"/></message>"));
    }
}
