//! Binary form of records: type u16, length u32, body; integers little-endian, strings and bytes with a u32 length.

use bytes::Bytes;
use compact_str::CompactString;
use thiserror::Error;
use xmpp_core::jid::{BareJid, Jid};

use super::{Effect, Flag, Forward, Record, Verifiers};
use crate::ids::{Away, Epoch, Mode, NodeIx, Position, RecordId, Reg, SmId, StanzaId, Term};
use crate::state::{GroupInfo, Item, RosterVersion};
use crate::subscription::Subscription;

/// Why bytes are not records.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The bytes end inside a value.
    #[error("a record is cut short")]
    Short,
    /// Written by a newer version: refuse the frame before it is acknowledged.
    #[error("unknown record type {0}: the peer runs a newer version; upgrade this node first")]
    UnknownType(u16),
    /// A value that no version writes.
    #[error("a record holds a bad {0}")]
    Bad(&'static str),
}

/// Reads values off the front of a buffer.
pub struct Cursor {
    rest: Bytes,
}

type Read<T> = Result<T, CodecError>;

impl Cursor {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: Bytes) -> Cursor {
        Cursor { rest: bytes }
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Read<Bytes> {
        if self.rest.len() < n {
            return Err(CodecError::Short);
        }
        Ok(self.rest.split_to(n))
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(<[u8; N]>::try_from(&bytes[..]).expect("length was checked"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Length and bytes.
    pub fn bytes(&mut self) -> Read<Bytes> {
        let n = self.u32()? as usize;
        self.take(n)
    }

    fn text(&mut self) -> Read<CompactString> {
        CompactString::from_utf8(self.bytes()?).map_err(|_| CodecError::Bad("string"))
    }

    /// A bare JID.
    pub fn bare(&mut self) -> Read<BareJid> {
        BareJid::parse(&self.text()?).map_err(|_| CodecError::Bad("JID"))
    }

    fn jid(&mut self) -> Read<Jid> {
        Jid::parse(&self.text()?).map_err(|_| CodecError::Bad("JID"))
    }

    /// A node, by its index.
    pub fn node(&mut self) -> Read<NodeIx> {
        NodeIx::from_index(self.u8()?.into()).ok_or(CodecError::Bad("node"))
    }

    fn away(&mut self) -> Read<Option<Away>> {
        match self.u8()? {
            0 => Ok(None),
            n => Away::ALL.get(usize::from(n) - 1).copied().map(Some).ok_or(CodecError::Bad("away")),
        }
    }

    /// True or false.
    pub fn flag(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Bad("flag")),
        }
    }

    /// A session's id.
    pub fn session(&mut self) -> Read<SmId> {
        Ok(SmId(self.array()?))
    }

    fn stanza_id(&mut self) -> Read<StanzaId> {
        Ok(StanzaId { session: self.session()?, number: self.u32()? })
    }

    /// A register value.
    pub fn reg(&mut self) -> Read<Reg> {
        let term = Term(self.u64()?);
        let primary = self.node()?;
        let mode = if self.flag()? { Mode::Solo } else { Mode::Pair };
        Ok(Reg { term, primary, mode, settled: Term(self.u64()?) })
    }

    fn record_id(&mut self) -> Read<RecordId> {
        Ok(RecordId { log: self.node()?, at: take_position(self)?, index: self.u32()? })
    }

    fn option<T>(&mut self, item: impl FnOnce(&mut Cursor) -> Read<T>) -> Read<Option<T>> {
        if self.flag()? { item(self).map(Some) } else { Ok(None) }
    }

    fn item(&mut self) -> Read<Item> {
        let (name, groups) = (self.text()?, self.list(Cursor::text)?);
        let subscription = Subscription::from_index(self.u8()?).ok_or(CodecError::Bad("subscription"))?;
        let (listed, approved) = (self.flag()?, self.flag()?);
        Ok(Item { name, groups, subscription, listed, approved, request: self.bytes()? })
    }

    fn roster_version(&mut self) -> Read<RosterVersion> {
        let epoch = Epoch { term: self.u64()?, moves: self.u32()? };
        Ok(RosterVersion { epoch, at: take_position(self)?, number: self.u32()? })
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Cursor) -> Read<T>) -> Read<Vec<T>> {
        let n = self.u32()? as usize;
        // Each item takes a byte at least.
        if n > self.rest.len() {
            return Err(CodecError::Short);
        }
        let mut items = Vec::with_capacity(self.room_for::<T>(n));
        for _ in 0..n {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// For how many of `n` items there may be room at once: a forged count makes us reserve no more than the frame is long.
    pub fn room_for<T>(&self, n: usize) -> usize {
        n.min(self.rest.len() / size_of::<T>().max(1))
    }

    fn forward(&mut self) -> Read<Forward> {
        Ok(Forward { to: self.jid()?, id: self.stanza_id()?, stanza: self.bytes()? })
    }

    fn effect(&mut self) -> Read<Effect> {
        Ok(match self.u8()? {
            1 => {
                let (to, id, keep) = (self.session()?, self.stanza_id()?, self.flag()?);
                Effect::Out { to, id, keep, stanza: self.bytes()? }
            }
            2 => Effect::Gap { about: self.option(Cursor::jid)?, to: self.list(Cursor::session)? },
            3 => {
                let (user, id, at_ms) = (self.bare()?, self.stanza_id()?, self.u64()?);
                let (open, due) = (self.flag()?, self.list(Cursor::text)?);
                Effect::Offline { user, id, at_ms, open, due, stanza: self.bytes()? }
            }
            4 => Effect::Forward(self.forward()?),
            5 => {
                let session = self.session()?;
                let priority = self.option(|c| Ok(c.u8()? as i8))?;
                Effect::Presence { session, priority, stanza: self.bytes()? }
            }
            6 => Effect::FlushOffline { session: self.session()?, count: self.u32()? },
            7 => Effect::Offer(self.forward()?),
            8 => {
                let (id, to) = (self.stanza_id()?, self.list(Cursor::bare)?);
                Effect::FanOut { id, to, stanza: self.bytes()? }
            }
            9 => {
                let (user, contact) = (self.bare()?, self.bare()?);
                let item = self.option(Cursor::item)?;
                Effect::Roster { user, contact, item, version: self.option(Cursor::roster_version)? }
            }
            10 => {
                let session = self.session()?;
                let flag = match self.u8()? {
                    0 => Flag::Interested,
                    1 => Flag::Carbons,
                    _ => return Err(CodecError::Bad("switch")),
                };
                Effect::Flag { session, flag, on: self.flag()? }
            }
            11 => Effect::Directed { session: self.session()?, to: self.jid()?, on: self.flag()? },
            _ => return Err(CodecError::Bad("effect")),
        })
    }

    fn verifiers(&mut self) -> Read<Verifiers> {
        let (salt, iterations) = (self.bytes()?, self.u32()?);
        let sha1 = (self.bytes()?, self.bytes()?);
        let sha256 = (self.bytes()?, self.bytes()?);
        Ok(Verifiers { salt, iterations, sha1, sha256, sha512: (self.bytes()?, self.bytes()?) })
    }
}

/// Appends length and bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a position.
pub fn put_position(out: &mut Vec<u8>, at: Position) {
    out.extend_from_slice(&at.seq.to_le_bytes());
    out.extend_from_slice(&at.inc.to_le_bytes());
}

/// Reads a position.
pub fn take_position(c: &mut Cursor) -> Result<Position, CodecError> {
    Ok(Position { seq: c.u64()?, inc: c.u64()? })
}

fn put_reg(out: &mut Vec<u8>, reg: &Reg) {
    out.extend_from_slice(&reg.term.0.to_le_bytes());
    out.push(reg.primary.index() as u8);
    out.push((reg.mode == Mode::Solo) as u8);
    out.extend_from_slice(&reg.settled.0.to_le_bytes());
}

impl Reg {
    /// Appends the binary form, as [`Cursor::reg`] reads it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_reg(out, self);
    }
}

fn put_stanza_id(out: &mut Vec<u8>, id: &StanzaId) {
    out.extend_from_slice(&id.session.0);
    out.extend_from_slice(&id.number.to_le_bytes());
}

fn put_effect(out: &mut Vec<u8>, effect: &Effect) {
    match effect {
        Effect::Out { to, id, keep, stanza } => {
            out.push(1);
            out.extend_from_slice(&to.0);
            put_stanza_id(out, id);
            out.push(*keep as u8);
            put_bytes(out, stanza);
        }
        Effect::Gap { about, to } => {
            out.push(2);
            put_option(out, about.as_ref(), |out, jid| put_bytes(out, jid.as_str().as_bytes()));
            put_list(out, to, |out, session| out.extend_from_slice(&session.0));
        }
        Effect::Offline { user, id, at_ms, open, due, stanza } => {
            out.push(3);
            put_bytes(out, user.as_str().as_bytes());
            put_stanza_id(out, id);
            out.extend_from_slice(&at_ms.to_le_bytes());
            out.push(*open as u8);
            put_list(out, due, |out, resource| put_bytes(out, resource.as_bytes()));
            put_bytes(out, stanza);
        }
        Effect::Forward(f) | Effect::Offer(f) => {
            out.push(if matches!(effect, Effect::Offer(_)) { 7 } else { 4 });
            put_bytes(out, f.to.as_str().as_bytes());
            put_stanza_id(out, &f.id);
            put_bytes(out, &f.stanza);
        }
        Effect::Presence { session, priority, stanza } => {
            out.push(5);
            out.extend_from_slice(&session.0);
            put_option(out, priority.as_ref(), |out, priority| out.push(*priority as u8));
            put_bytes(out, stanza);
        }
        Effect::FlushOffline { session, count } => {
            out.push(6);
            out.extend_from_slice(&session.0);
            out.extend_from_slice(&count.to_le_bytes());
        }
        Effect::FanOut { id, to, stanza } => {
            out.push(8);
            put_stanza_id(out, id);
            put_list(out, to, |out, jid| put_bytes(out, jid.as_str().as_bytes()));
            put_bytes(out, stanza);
        }
        Effect::Roster { user, contact, item, version } => {
            out.push(9);
            put_bytes(out, user.as_str().as_bytes());
            put_bytes(out, contact.as_str().as_bytes());
            put_option(out, item.as_ref(), put_item);
            put_option(out, version.as_ref(), put_roster_version);
        }
        Effect::Flag { session, flag, on } => {
            out.push(10);
            out.extend_from_slice(&session.0);
            out.push(matches!(flag, Flag::Carbons) as u8);
            out.push(*on as u8);
        }
        Effect::Directed { session, to, on } => {
            out.push(11);
            out.extend_from_slice(&session.0);
            put_bytes(out, to.as_str().as_bytes());
            out.push(*on as u8);
        }
    }
}

fn put_item(out: &mut Vec<u8>, item: &Item) {
    put_bytes(out, item.name.as_bytes());
    put_list(out, &item.groups, |out, group| put_bytes(out, group.as_bytes()));
    out.push(item.subscription as u8);
    out.push(item.listed as u8);
    out.push(item.approved as u8);
    put_bytes(out, &item.request);
}

fn put_roster_version(out: &mut Vec<u8>, version: &RosterVersion) {
    out.extend_from_slice(&version.epoch.term.to_le_bytes());
    out.extend_from_slice(&version.epoch.moves.to_le_bytes());
    put_position(out, version.at);
    out.extend_from_slice(&version.number.to_le_bytes());
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    out.push(value.is_some() as u8);
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    out.extend_from_slice(&(items.len() as u32).to_le_bytes());
    items.iter().for_each(|item| put(out, item));
}

fn put_verifiers(out: &mut Vec<u8>, v: &Verifiers) {
    put_bytes(out, &v.salt);
    out.extend_from_slice(&v.iterations.to_le_bytes());
    for (stored_key, server_key) in [&v.sha1, &v.sha256, &v.sha512] {
        put_bytes(out, stored_key);
        put_bytes(out, server_key);
    }
}

fn put_effects(out: &mut Vec<u8>, effects: &[Effect]) {
    put_list(out, effects, put_effect);
}

impl Record {
    /// Number of the type on disk and on the link; never reused.
    pub fn type_number(&self) -> u16 {
        match self {
            Record::Lead { .. } => 1,
            Record::UserAdd { .. } => 2,
            Record::Bind { .. } => 3,
            Record::Enable { .. } => 4,
            Record::Dual { .. } => 5,
            Record::SmIn { .. } => 6,
            Record::Trim { .. } => 7,
            Record::Resumed { .. } => 8,
            Record::Detached { .. } => 9,
            Record::End { .. } => 10,
            Record::HandOver { .. } => 11,
            Record::Absorb { .. } => 12,
            Record::Done { .. } => 13,
            Record::Away { .. } => 14,
            Record::Reattached { .. } => 16,
            Record::Kept { .. } => 15,
            Record::Lapse { .. } => 20,
            Record::Flush { .. } => 21,
            Record::UserPasswd { .. } => 30,
            Record::UserRemove { .. } => 31,
            Record::Cancel { .. } => 32,
            Record::Group(_) => 33,
            Record::Assign { .. } => 34,
            Record::Token { .. } => 35,
        }
    }

    /// Appends type, length and body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.type_number().to_le_bytes());
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        self.encode_body(out);
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Record::Lead { group, reg, at_ms, late } => {
                out.push(group.index() as u8);
                put_reg(out, reg);
                out.extend_from_slice(&at_ms.to_le_bytes());
                out.push(*late as u8);
            }
            Record::UserAdd { user, home, verifiers: v } => {
                put_bytes(out, user.as_str().as_bytes());
                out.push(home.index() as u8);
                put_verifiers(out, v);
            }
            Record::UserPasswd { user, verifiers: v } => {
                put_bytes(out, user.as_str().as_bytes());
                put_verifiers(out, v);
            }
            Record::UserRemove { user, effects } => {
                put_bytes(out, user.as_str().as_bytes());
                put_effects(out, effects);
            }
            Record::Bind { session, user, resource, at_ms, effects } => {
                out.extend_from_slice(&session.0);
                put_bytes(out, user.as_str().as_bytes());
                put_bytes(out, resource.as_bytes());
                out.extend_from_slice(&at_ms.to_le_bytes());
                put_effects(out, effects);
            }
            Record::Enable { session, resume_ms: n } | Record::Detached { session, at_ms: n } => {
                out.extend_from_slice(&session.0);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Record::End { session, at_ms, effects } => {
                out.extend_from_slice(&session.0);
                out.extend_from_slice(&at_ms.to_le_bytes());
                put_effects(out, effects);
            }
            Record::Lapse { session, effects } => {
                out.extend_from_slice(&session.0);
                put_effects(out, effects);
            }
            Record::Dual { session } => out.extend_from_slice(&session.0),
            Record::Token { session, number } => {
                out.extend_from_slice(&session.0);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Record::SmIn { session, number, effects } => {
                out.extend_from_slice(&session.0);
                out.extend_from_slice(&number.to_le_bytes());
                put_effects(out, effects);
            }
            Record::Trim { session, h: n }
            | Record::Resumed { session, h: n }
            | Record::Reattached { session, written: n }
            | Record::Flush { session, count: n } => {
                out.extend_from_slice(&session.0);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Record::HandOver { user, to, epoch, applied_peer, counters } => {
                put_bytes(out, user.as_str().as_bytes());
                out.push(to.index() as u8);
                out.extend_from_slice(&epoch.term.to_le_bytes());
                out.extend_from_slice(&epoch.moves.to_le_bytes());
                put_position(out, *applied_peer);
                out.extend_from_slice(&(counters.len() as u32).to_le_bytes());
                for (session, inbound, outbound) in counters {
                    out.extend_from_slice(&session.0);
                    out.extend_from_slice(&inbound.to_le_bytes());
                    out.extend_from_slice(&outbound.to_le_bytes());
                }
            }
            Record::Group(group) => {
                out.extend_from_slice(&group.number.to_le_bytes());
                out.push(group.by.index() as u8);
                put_bytes(out, group.name.as_bytes());
                put_bytes(out, group.description.as_bytes());
                out.push(group.ha as u8);
            }
            Record::Assign { user, home } => {
                put_bytes(out, user.as_str().as_bytes());
                put_option(out, home.as_ref(), |out, home| out.push(home.index() as u8));
            }
            Record::Absorb { from, into } => out.extend_from_slice(&[from.index() as u8, into.index() as u8]),
            Record::Away { group, why } => {
                let why = why.and_then(|why| Away::ALL.iter().position(|known| *known == why));
                out.extend_from_slice(&[group.index() as u8, why.map_or(0, |n| n as u8 + 1)]);
            }
            Record::Done { forward, effects } | Record::Cancel { forward, effects } => {
                out.push(forward.log.index() as u8);
                put_position(out, forward.at);
                out.extend_from_slice(&forward.index.to_le_bytes());
                put_effects(out, effects);
            }
            Record::Kept { stanza, at_ms, effects } => {
                put_stanza_id(out, stanza);
                out.extend_from_slice(&at_ms.to_le_bytes());
                put_effects(out, effects);
            }
        }
    }

    /// Reads one record off the front.
    pub fn decode(c: &mut Cursor) -> Result<Record, CodecError> {
        let number = c.u16()?;
        let mut body = Cursor::new(c.bytes()?);
        let record = Record::decode_body(number, &mut body)?;
        if body.is_empty() { Ok(record) } else { Err(CodecError::Bad("length")) }
    }

    fn decode_body(number: u16, c: &mut Cursor) -> Result<Record, CodecError> {
        Ok(match number {
            1 => Record::Lead { group: c.node()?, reg: c.reg()?, at_ms: c.u64()?, late: c.flag()? },
            2 => Record::UserAdd { user: c.bare()?, home: c.node()?, verifiers: c.verifiers()? },
            30 => Record::UserPasswd { user: c.bare()?, verifiers: c.verifiers()? },
            31 => Record::UserRemove { user: c.bare()?, effects: c.list(Cursor::effect)? },
            3 => {
                let (session, user) = (c.session()?, c.bare()?);
                let (resource, at_ms) = (c.text()?, c.u64()?);
                Record::Bind { session, user, resource, at_ms, effects: c.list(Cursor::effect)? }
            }
            4 => Record::Enable { session: c.session()?, resume_ms: c.u64()? },
            5 => Record::Dual { session: c.session()? },
            6 => Record::SmIn { session: c.session()?, number: c.u32()?, effects: c.list(Cursor::effect)? },
            7 => Record::Trim { session: c.session()?, h: c.u32()? },
            8 => Record::Resumed { session: c.session()?, h: c.u32()? },
            9 => Record::Detached { session: c.session()?, at_ms: c.u64()? },
            10 => {
                let (session, at_ms) = (c.session()?, c.u64()?);
                Record::End { session, at_ms, effects: c.list(Cursor::effect)? }
            }
            11 => Record::HandOver {
                user: c.bare()?,
                to: c.node()?,
                epoch: Epoch { term: c.u64()?, moves: c.u32()? },
                applied_peer: take_position(c)?,
                counters: c.list(|c| Ok((c.session()?, c.u32()?, c.u32()?)))?,
            },
            12 => Record::Absorb { from: c.node()?, into: c.node()? },
            13 => Record::Done { forward: c.record_id()?, effects: c.list(Cursor::effect)? },
            32 => Record::Cancel { forward: c.record_id()?, effects: c.list(Cursor::effect)? },
            33 => {
                let (number, by) = (c.u64()?, c.node()?);
                let (name, description) = (c.text()?, c.text()?);
                Record::Group(GroupInfo { number, by, name, description, ha: c.flag()? })
            }
            35 => Record::Token { session: c.session()?, number: c.u32()? },
            34 => Record::Assign { user: c.bare()?, home: c.option(Cursor::node)? },
            14 => Record::Away { group: c.node()?, why: c.away()? },
            16 => Record::Reattached { session: c.session()?, written: c.u32()? },
            15 => {
                let (stanza, at_ms) = (c.stanza_id()?, c.u64()?);
                Record::Kept { stanza, at_ms, effects: c.list(Cursor::effect)? }
            }
            21 => Record::Flush { session: c.session()?, count: c.u32()? },
            20 => Record::Lapse { session: c.session()?, effects: c.list(Cursor::effect)? },
            other => return Err(CodecError::UnknownType(other)),
        })
    }
}
