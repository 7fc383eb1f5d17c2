//! Text of an event on its way into lines, headers and datagrams: nothing in it may end a line or grow without bound.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime_serde::re::humantime;

/// Last millisecond of the year 9999, the last that the formats of the receivers can say.
const LAST_MS: u64 = 253_402_300_799_999;

/// The text on one line: control characters, line and paragraph separators, and marks that turn the direction of writing
/// become spaces, so that no receiver takes a part of it for a line, a header or a message of its own.
pub(super) fn clean(text: &str) -> String {
    let breaks = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if breaks(c) { ' ' } else { c }).collect()
}

/// The longest beginning of at most `limit` bytes that ends between two characters.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// The moment of the wall clock, in milliseconds since 1970; later ones than the formats can say are the last.
pub(super) fn moment(at_ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(at_ms.min(LAST_MS))
}

/// RFC 3339 with milliseconds, UTC, such as `2026-11-26T21:04:09.120Z`.
pub(super) fn timestamp(at_ms: u64) -> String {
    humantime::format_rfc3339_millis(moment(at_ms)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_begin_a_line_of_its_own_becomes_a_space() {
        assert_eq!(clean("a\r\nb\tc\0d\u{85}e\u{2028}f\u{202e}g\x7fh"), "a  b c d e f g h");
        assert_eq!(clean("Grüße – 你好"), "Grüße – 你好");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!((cut("äöü", 3), cut("äöü", 4), cut("äöü", 99), cut("ä", 1)), ("ä", "äö", "äöü", ""));
    }

    #[test]
    fn moments_that_no_format_can_say_are_the_last_that_it_can() {
        assert_eq!(timestamp(1_795_727_049_120), "2026-11-26T21:04:09.120Z");
        assert_eq!(timestamp(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
