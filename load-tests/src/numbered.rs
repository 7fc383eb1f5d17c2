//! Frames whose content follows from their position: what is read back can be checked without having been kept.

use bytes::Bytes;
use presence_engine::ids::{Position, SmId, Term};
use presence_engine::record::{Effect, Record};
use session_mover::frame::Frame;
use session_mover::log::{LogStore, Which};
use session_mover::runs::Runs;

/// How long the frames are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// 150 bytes to 24 KiB, mostly short: as in daily life.
    Usual,
    /// Around 1 MiB: a segment is soon full.
    Large,
}

/// The frame at a position, behind `prev`.
pub fn numbered_frame(at: Position, prev: Position, size: Size) -> Bytes {
    // Any mixing will do; splitmix64 it is.
    let mut state = at.seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at.inc;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    };
    let length = match size {
        Size::Usual if next() % 8 == 0 => next() % 24_000,
        Size::Usual => next() % 600,
        Size::Large => 500_000 + next() % 1_000_000,
    };
    let mut stanza = Vec::with_capacity(length as usize + 8);
    while (stanza.len() as u64) < length {
        stanza.extend_from_slice(&next().to_le_bytes());
    }
    let session = SmId([at.seq as u8; 16]);
    let effects = vec![Effect::Presence { session, priority: Some(1), stanza: stanza.into() }];
    let records = vec![Record::SmIn { session, number: at.seq as u32, effects }];
    let terms = [Term(2), Term(3)];
    let applied_peer = Position::default();
    Frame { groups: 1, solo: 0, terms, at, prev, applied_peer, now_ms: at.seq, records }.encode()
}

/// Reads a log through: every frame must be the one that belongs there, bit by bit.
pub fn check_log(store: &mut dyn LogStore, which: Which, size: Size) -> Result<Runs, String> {
    let mut runs = Runs::default();
    loop {
        let frames = store.read(which, runs.end().seq + 1, 1 << 20);
        if frames.is_empty() {
            return Ok(runs);
        }
        for bytes in frames {
            let prev = runs.end();
            let wrong = |why: String| format!("{which:?} log, after {prev:?}: {why}");
            let at = Frame::check(&bytes).map_err(|error| wrong(error.to_string()))?;
            if at.seq != prev.seq + 1 {
                return Err(wrong(format!("{at:?} follows")));
            }
            if bytes != numbered_frame(at, prev, size) {
                return Err(wrong(format!("{at:?} is not what was written there")));
            }
            runs.push(at);
        }
    }
}
