//! What stands in a trace.

use bytes::Bytes;
use session_mover::driver::Link;
use session_mover::frame::Frame;

/// A frame of a log by its records.
pub(super) fn in_words(link: Link, bytes: &Bytes) -> String {
    match Frame::decode(bytes) {
        Ok(f) => format!("Link({link:?}, Frame {} solo {} {:?})", f.at.seq, f.solo, f.records),
        Err(why) => format!("Link({link:?}, Frame, {why})"),
    }
}

/// Its beginning.
pub(super) fn shorten(what: &impl std::fmt::Debug) -> String {
    let mut text = format!("{what:?}");
    if text.len() > 420 {
        let end = (0..=420).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
