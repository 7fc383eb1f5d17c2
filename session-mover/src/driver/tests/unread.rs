//! Frames of the peer that this node cannot read: of a newer program, or damaged on their way.

use presence_engine::record::CodecError;

use super::sides::{Side, pair, settle};
use super::*;
use crate::frame::{FrameError, PREFIX, VERSION};

/// What makes a good frame unreadable: its name, what is done to the bytes, whether length and checksum are made to fit then, as
/// a newer program would write them, and what is wrong with it.
type Harm = (&'static str, fn(&mut Vec<u8>), bool, FrameError);

/// The first record's type stands behind the frame's own 80 bytes.
const FIRST_RECORD: usize = PREFIX + 80;
const NEWER_TYPE: u8 = 250;

const HARMS: [Harm; 6] = [
    (
        "a record of a type that is not known here",
        |bytes| bytes[FIRST_RECORD] = NEWER_TYPE,
        true,
        FrameError::Record(CodecError::UnknownType(NEWER_TYPE as u16)),
    ),
    ("the next format of frames", |bytes| bytes[PREFIX] += 1, true, FrameError::Version(VERSION + 1)),
    ("more behind its records", |bytes| bytes.push(0), true, FrameError::Record(CodecError::Bad("length"))),
    ("a record that ends too soon", |bytes| _ = bytes.pop(), true, FrameError::Record(CodecError::Short)),
    ("less than its length says", |bytes| _ = bytes.pop(), false, FrameError::Short),
    ("one bit is another", |bytes| bytes[FIRST_RECORD + 2] ^= 1, false, FrameError::Checksum),
];

fn harmed(good: &Bytes, (what, harm, fitting, error): Harm) -> Bytes {
    let mut bytes = good.to_vec();
    harm(&mut bytes);
    if fitting {
        let length = (bytes.len() - PREFIX) as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[PREFIX..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    let bytes = Bytes::from(bytes);
    assert_eq!(Frame::decode(&bytes), Err(error), "{what}");
    bytes
}

/// The one frame that A has just written and sends.
fn sent(a: &mut Side) -> Bytes {
    while a.run() {}
    let frames = a.driver.take().into_iter().filter_map(|what| match what {
        Do::Send(Link::Out, Msg::Frame(bytes)) => Some(bytes),
        _ => None,
    });
    let frames: Vec<Bytes> = frames.collect();
    let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
    frame.clone()
}

#[test]
fn a_frame_that_cannot_be_read_is_neither_acknowledged_nor_written_and_ends_the_connection() {
    let [mut a, mut b] = pair(&[0, 1]);
    for (n, harm) in HARMS.into_iter().enumerate() {
        let what = harm.0;
        a.add(&format!("x{n}"));
        let good = sent(&mut a);
        a.add(&format!("y{n}"));
        let next = sent(&mut a);
        let held = |b: &Side| {
            let (copy, own) = (b.disk.log.frames(Which::Peer).to_vec(), b.driver.own_end());
            (copy, own, b.driver.peer_end(), b.users(), b.digest())
        };
        let before = held(&b);

        b.driver.on_in(Msg::Frame(harmed(&good, harm)), &mut b.disk);
        // It is not skipped either: what follows on this connection does not count.
        b.driver.on_in(Msg::Frame(next), &mut b.disk);
        while b.run() {}
        let dos = b.driver.take();
        let closed = dos.iter().find_map(|what| match what {
            Do::Close(Link::In, why) => Some(why.text()),
            _ => None,
        });
        assert_eq!(
            closed,
            Some("a frame that cannot be read: if the other node runs a newer version, upgrade this one"),
            "{what}"
        );
        let acknowledged = dos.iter().any(|what| matches!(what, Do::Send(_, Msg::Ack(_))));
        assert!(!acknowledged, "{what}: {dos:?}");
        assert_eq!(held(&b), before, "{what}");

        // Whoever sends it well on the next connection is taken.
        b.driver.peer_gone();
        a.driver.disconnected();
        a.driver.connected();
        settle(&mut a, &mut b);
        assert_eq!((b.driver.peer_end(), b.users(), b.digest()), (a.driver.own_end(), a.users(), a.digest()));
        assert_eq!(b.users(), before.3 + 2, "{what}");
    }
}
