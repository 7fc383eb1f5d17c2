//! A frame: the records of one turn, as they stand on disk and on the link.
//!
//! `length u32 | crc32c u32 | version u8 | groups u8 | solo u8 | 0 u8 | terms 2 × u64 | position | predecessor's
//! position | applied_peer | wall time u64 | count u32 | records`, little-endian. `length` counts what follows the
//! checksum; the checksum covers the same bytes.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use presence_engine::ids::{Position, Term};
use presence_engine::record::{CodecError, Cursor, Record, put_position, take_position};
use thiserror::Error;

/// Version of the format that this node writes.
pub const VERSION: u8 = 1;
/// Largest frame, in bytes.
pub const MAX_BYTES: usize = 64 << 20;
/// Bytes before the part that the checksum covers.
pub const PREFIX: usize = 8;

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The bytes end inside the frame: the tail of a log after a crash.
    #[error("the frame is cut short")]
    Short,
    /// The checksum does not fit.
    #[error("the checksum of a frame is wrong: the bytes were damaged")]
    Checksum,
    /// Written by another version.
    #[error("frame format {0} is not known here (this node writes {VERSION}): upgrade this node first")]
    Version(u8),
    /// The length makes no sense.
    #[error("a frame of {0} bytes is over the limit")]
    Length(usize),
    /// A record inside is not readable.
    #[error(transparent)]
    Record(#[from] CodecError),
}

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Groups that its records belong to, as a bit mask by index.
    pub groups: u8,
    /// Groups that the writer led alone when it wrote the frame.
    pub solo: u8,
    /// Terms of both groups as the writer knew them.
    pub terms: [Term; 2],
    /// Where it stands.
    pub at: Position,
    /// The frame before it in the same log.
    pub prev: Position,
    /// How far the writer had applied the other log before these records.
    pub applied_peer: Position,
    /// Wall time of the turn, milliseconds since 1970.
    pub now_ms: u64,
    /// What happened.
    pub records: Vec<Record>,
}

impl Frame {
    /// The bytes for disk and link.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&[0; PREFIX]);
        out.extend_from_slice(&[VERSION, self.groups, self.solo, 0]);
        for term in self.terms {
            out.extend_from_slice(&term.0.to_le_bytes());
        }
        for at in [self.at, self.prev, self.applied_peer] {
            put_position(&mut out, at);
        }
        out.extend_from_slice(&self.now_ms.to_le_bytes());
        out.extend_from_slice(&(self.records.len() as u32).to_le_bytes());
        self.records.iter().for_each(|r| r.encode(&mut out));
        let length = (out.len() - PREFIX) as u32;
        let crc = crc32c::crc32c(&out[PREFIX..]);
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        Bytes::from(out)
    }

    /// Length of the frame that starts with these bytes, prefix included.
    pub fn length(front: &[u8]) -> Result<usize, FrameError> {
        let Some(length) = front.get(..4) else { return Err(FrameError::Short) };
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        if !(80..=MAX_BYTES).contains(&length) {
            return Err(FrameError::Length(length));
        }
        Ok(PREFIX + length)
    }

    /// Checks one whole frame without reading its records; its position.
    pub fn check(bytes: &[u8]) -> Result<Position, FrameError> {
        match Frame::length(bytes)? {
            length if bytes.len() < length => return Err(FrameError::Short),
            length if bytes.len() > length => return Err(FrameError::Length(length)),
            _ => {}
        }
        let crc = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
        if crc32c::crc32c(&bytes[PREFIX..]) != crc {
            return Err(FrameError::Checksum);
        }
        if bytes[8] != VERSION {
            return Err(FrameError::Version(bytes[8]));
        }
        let u64_at = |i: usize| u64::from_le_bytes(bytes[i..i + 8].try_into().expect("eight bytes"));
        Ok(Position { seq: u64_at(28), inc: u64_at(36) })
    }

    /// Reads one whole frame.
    pub fn decode(bytes: &Bytes) -> Result<Frame, FrameError> {
        Frame::check(bytes)?;
        let mut c = Cursor::new(bytes.slice(PREFIX..));
        let [_, groups, solo, _] = [c.u8()?, c.u8()?, c.u8()?, c.u8()?];
        let terms = [Term(c.u64()?), Term(c.u64()?)];
        let (at, prev) = (take_position(&mut c)?, take_position(&mut c)?);
        let (applied_peer, now_ms) = (take_position(&mut c)?, c.u64()?);
        let count = c.u32()?;
        let mut records = Vec::with_capacity(c.room_for::<Record>(count as usize));
        for _ in 0..count {
            records.push(Record::decode(&mut c)?);
        }
        if !c.is_empty() {
            return Err(CodecError::Bad("length").into());
        }
        Ok(Frame { groups, solo, terms, at, prev, applied_peer, now_ms, records })
    }
}

#[cfg(test)]
mod tests {
    use presence_engine::ids::{NodeIx, SmId};

    use super::*;

    fn frame() -> Frame {
        Frame {
            groups: 1,
            solo: 2,
            terms: [Term(2), Term(5)],
            at: Position { seq: 7, inc: 9 },
            prev: Position { seq: 6, inc: 8 },
            applied_peer: Position { seq: 3, inc: 1 },
            now_ms: 11,
            records: vec![
                Record::Trim { session: SmId([3; 16]), h: 4 },
                Record::Absorb { from: NodeIx::A, into: NodeIx::B },
            ],
        }
    }

    #[test]
    fn a_frame_is_read_back() {
        let bytes = frame().encode();
        assert_eq!(Frame::length(&bytes), Ok(bytes.len()));
        assert_eq!(Frame::check(&bytes), Ok(frame().at));
        assert_eq!(Frame::decode(&bytes), Ok(frame()));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = frame().encode();
        for n in 0..bytes.len() {
            assert!(Frame::decode(&bytes.slice(..n)).is_err(), "cut at {n}");
            for bit in 0..8 {
                let mut damaged = bytes.to_vec();
                damaged[n] ^= 1 << bit;
                assert!(Frame::decode(&Bytes::from(damaged)).is_err(), "byte {n} bit {bit}");
            }
        }
    }

    #[test]
    fn an_unknown_record_type_is_refused_by_name() {
        let mut bytes = frame().encode().to_vec();
        bytes[88] = 200;
        let crc = crc32c::crc32c(&bytes[PREFIX..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        let error = Frame::decode(&Bytes::from(bytes)).unwrap_err();
        assert_eq!(error, FrameError::Record(CodecError::UnknownType(200)));
    }
}
