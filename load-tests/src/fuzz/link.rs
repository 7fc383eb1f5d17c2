//! What one node reads from the other: every message is read back as it was, none is taken that was cut, and a stream of them
//! gives the same however it was split, with the lengths that it may have.
//!
//! Input: a byte that chooses, then one message without its length (0), a stream (1), or pieces with a length byte each, of
//! which a stream is made whose lengths fit (2). For a stream the next byte chooses a split.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use presence_engine::record::Cursor;
use session_mover::link::{Ended, GREETING_BYTES, read_all};
use session_mover::msg::{self, Msg};
use session_mover::runs::Runs;
use tokio::io::{AsyncRead, ReadBuf};

use super::input::{Input, pieces};

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 3 {
        0 => {
            if let Ok(msg) = Msg::decode(Bytes::copy_from_slice(input.0)) {
                check(&msg, input.0.len());
            }
        }
        1 => {
            let split = input.byte();
            stream(input.0, split);
        }
        _ => {
            let (split, mut bytes) = (input.byte(), Vec::new());
            while !input.is_empty() {
                let length = usize::from(input.byte()).min(input.0.len());
                let (piece, rest) = input.0.split_at(length);
                input.0 = rest;
                bytes.extend_from_slice(&(length as u32).to_le_bytes());
                bytes.extend_from_slice(piece);
            }
            stream(&bytes, split);
        }
    }
}

/// A message that was read from so many bytes.
fn check(msg: &Msg, read: usize) {
    let bytes = msg.encode();
    let length = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    assert_eq!(length + 4, bytes.len());
    // What JIDs become when they are prepared may be longer.
    assert!(bytes.len() <= 16 * read + 4, "{} bytes of {read}", bytes.len());
    assert_eq!(Msg::decode(bytes.slice(4..)).as_ref(), Ok(msg));
    let open_ended = matches!(msg, Msg::Frame(_) | Msg::Control(_));
    let cut = 4 + (read * 7) % length;
    assert!(open_ended || Msg::decode(bytes.slice(4..cut)).is_err(), "{msg:?} cut at {cut}");
    let longer = [&bytes[4..], &[0]].concat();
    assert!(open_ended || Msg::decode(longer.into()).is_err(), "{msg:?} and one byte more");
    if let Msg::Hello(hello) = msg {
        without_holes(&hello.runs);
    }
}

fn without_holes(runs: &Runs) {
    let mut bytes = Vec::new();
    runs.encode(&mut bytes);
    let mut c = Cursor::new(bytes.into());
    let mut before = 0;
    for _ in 0..c.u32().expect("a count") {
        let mut number = || c.u64().expect("a number");
        let (inc, first, last) = (number(), number(), number());
        assert!(Some(first) == u64::checked_add(before, 1) && last >= first, "{runs:?}");
        assert_eq!(runs.at(last).map(|at| at.inc), Some(inc), "{runs:?}");
        before = last;
    }
    assert_eq!(runs.end().seq, before);
}

/// What a stream says by its lengths, against what is told of it.
fn stream(bytes: &[u8], split: u8) {
    let (mut rest, mut limit, mut expected) = (bytes, GREETING_BYTES, Vec::new());
    let bad = loop {
        let Some((length, behind)) = rest.split_first_chunk() else { break false };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > limit {
            break true;
        }
        let Some((body, behind)) = behind.split_at_checked(length) else { break false };
        let Ok(msg) = Msg::decode(Bytes::copy_from_slice(body)) else { break true };
        if matches!(msg, Msg::Hello(_)) {
            limit = msg::MAX_BYTES;
        }
        expected.push(msg);
        rest = behind;
    };
    for pieces in [vec![bytes], bytes.chunks(1).collect(), pieces(bytes, split)] {
        let (told, ended) = read(&pieces);
        assert_eq!(told, expected);
        assert_eq!(matches!(ended, Ended::Bad(_)), bad, "{ended:?}");
        assert!(bad || ended == Ended::Fin, "{ended:?}");
    }
}

/// All that is told of a stream that arrives in these pieces and ends.
fn read(pieces: &[&[u8]]) -> (Vec<Msg>, Ended) {
    let mut told = Vec::new();
    let ended = {
        let mut reading = pin!(read_all(Arriving { pieces, taken: 0, wait: false }, |msg| told.push(msg)));
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(ended) = reading.as_mut().poll(&mut context) {
                break ended;
            }
        }
    };
    (told, ended)
}

/// A connection on which nothing is there between two pieces.
struct Arriving<'a> {
    pieces: &'a [&'a [u8]],
    /// Of the first of them.
    taken: usize,
    wait: bool,
}

impl AsyncRead for Arriving<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.wait = !self.wait;
        if self.wait {
            return Poll::Pending;
        }
        if let Some((first, rest)) = self.pieces.split_first() {
            let left = &first[self.taken..];
            let taken = left.len().min(buf.remaining());
            buf.put_slice(&left[..taken]);
            self.taken += taken;
            if taken == left.len() {
                (self.pieces, self.taken) = (rest, 0);
            }
        }
        Poll::Ready(Ok(()))
    }
}
