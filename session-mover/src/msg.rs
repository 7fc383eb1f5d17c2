//! What the two nodes say to each other. Each node dials the other: on the connection that it dialled its own log goes
//! out, acknowledgements come back. One message: length u32, type u8, body.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use presence_engine::front::{Fronted, Relay};
use presence_engine::ids::{NodeIx, Position, Reg, SmId};
use presence_engine::record::{CodecError, Cursor, put_bytes, put_position, take_position};

use crate::driver::check::Part;
use crate::runs::Runs;

/// Versions of the link that this node speaks.
pub const VERSIONS: (u8, u8) = (3, 5);
/// The version from which on nodes know of one-time tokens: the record `Token`, and the fields named `token`. To a peer
/// of the version before nothing is sent that has any.
pub const TOKENS: u8 = 4;
/// The version from which on nodes compare what they hold: `Check` and its answer.
pub const CHECKS: u8 = 5;
/// Longest message, in bytes.
pub const MAX_BYTES: usize = crate::frame::MAX_BYTES + 64;

/// First words of both sides.
#[derive(Clone, PartialEq, Debug)]
pub struct Hello {
    /// Oldest and newest version of the link that is spoken.
    pub versions: (u8, u8),
    /// Identity of the cluster: disks of another one are refused.
    pub cluster: u64,
    /// The speaker.
    pub node: NodeIx,
    /// Its run.
    pub boot: u64,
    /// Its register copies of both groups.
    pub regs: [Option<Reg>; 2],
    /// The dialler: its own log. The acceptor: its copy of the dialler's log.
    pub runs: Runs,
}

/// How far the acceptor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ack {
    /// Everything of the dialler's log up to here is written.
    pub at: Position,
    /// Up to here it is applied,
    pub applied: u64,
    /// and up to here on disk for good.
    pub kept: u64,
    /// The acceptor's own log is on its disk for good up to here.
    pub own: u64,
}

/// A message of the link.
#[derive(Clone, PartialEq, Debug)]
pub enum Msg {
    /// Dialler, then acceptor, first.
    Hello(Hello),
    /// Dialler: my log parts from your copy after this sequence number, and your rest says nothing of whom you lead: set it
    /// aside.
    Rewind(u64),
    /// Dialler: I lack the end of my own log; send me your copy from here.
    Fetch(u64),
    /// Acceptor: some frames of the dialler's own log; the flag says that these were the last. If not, the dialler
    /// asks for more.
    Fetched(Vec<Bytes>, bool),
    /// Dialler: one frame of its log.
    Frame(Bytes),
    /// Acceptor: how far it is.
    Ack(Ack),
    /// Dialler: make your copy of my log durable up to here, and acknowledge.
    Keep(u64),
    /// Dialler: you lack what is no longer in my log. This is the mark of my store; ask for what is in it.
    Snapshot(Bytes),
    /// Acceptor: the pairs behind this key.
    Want(Bytes),
    /// Dialler: some pairs of the store; none: these were all.
    Pairs(Vec<(Bytes, Bytes)>),
    /// Either: a stream is parked here for the session, or no longer; and the number of the highest one-time token of it
    /// that was used, 0 for none.
    Parked(SmId, bool, u32),
    /// Dialler: for the owner of a session whose socket it has (D5).
    Relay(Relay),
    /// Dialler: for the front of a session that it owns.
    Fronted(Fronted),
    /// Dialler: whatever the recovery manager has to say.
    Control(Bytes),
    /// Dialler: what it holds of some of its users at a point of its log.
    Check(Part),
    /// Acceptor: the part of that number, and names of what is held otherwise here.
    Checked(u32, Vec<Bytes>),
}

impl Msg {
    /// The bytes of the message, length first.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![0; 4];
        match self {
            Msg::Hello(h) => {
                out.extend_from_slice(&[1, h.versions.0, h.versions.1]);
                out.extend_from_slice(&h.cluster.to_le_bytes());
                out.push(h.node.index() as u8);
                out.extend_from_slice(&h.boot.to_le_bytes());
                for reg in &h.regs {
                    out.push(reg.is_some() as u8);
                    if let Some(reg) = reg {
                        reg.encode(&mut out);
                    }
                }
                h.runs.encode(&mut out);
            }
            Msg::Rewind(seq) | Msg::Fetch(seq) => {
                out.push(if matches!(self, Msg::Rewind(_)) { 2 } else { 3 });
                out.extend_from_slice(&seq.to_le_bytes());
            }
            Msg::Fetched(frames, last) => {
                out.extend_from_slice(&[4, *last as u8]);
                out.extend_from_slice(&(frames.len() as u32).to_le_bytes());
                frames.iter().for_each(|f| put_bytes(&mut out, f));
            }
            Msg::Frame(bytes) => {
                out.push(5);
                out.extend_from_slice(bytes);
            }
            Msg::Ack(ack) => {
                out.push(6);
                put_position(&mut out, ack.at);
                for n in [ack.applied, ack.kept, ack.own] {
                    out.extend_from_slice(&n.to_le_bytes());
                }
            }
            Msg::Keep(seq) => {
                out.push(11);
                out.extend_from_slice(&seq.to_le_bytes());
            }
            Msg::Snapshot(bytes) | Msg::Want(bytes) => {
                out.push(if matches!(self, Msg::Snapshot(_)) { 12 } else { 13 });
                put_bytes(&mut out, bytes);
            }
            Msg::Pairs(pairs) => {
                out.push(14);
                out.extend_from_slice(&(pairs.len() as u32).to_le_bytes());
                for (key, value) in pairs {
                    put_bytes(&mut out, key);
                    put_bytes(&mut out, value);
                }
            }
            Msg::Parked(session, on, token) => {
                out.push(7);
                out.extend_from_slice(&session.0);
                out.push(u8::from(*on) | u8::from(*token > 0) << 1);
                if *token > 0 {
                    out.extend_from_slice(&token.to_le_bytes());
                }
            }
            Msg::Control(bytes) => {
                out.push(8);
                out.extend_from_slice(bytes);
            }
            Msg::Check(part) => encode_part(part, &mut out),
            Msg::Checked(number, names) => {
                out.push(16);
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&(names.len() as u32).to_le_bytes());
                names.iter().for_each(|name| put_bytes(&mut out, name));
            }
            Msg::Relay(relay) => {
                out.push(9);
                relay.encode(&mut out);
            }
            Msg::Fronted(fronted) => {
                out.push(10);
                fronted.encode(&mut out);
            }
        }
        let length = (out.len() - 4) as u32;
        out[..4].copy_from_slice(&length.to_le_bytes());
        Bytes::from(out)
    }

    /// Reads a message without its length.
    pub fn decode(bytes: Bytes) -> Result<Msg, CodecError> {
        let mut c = Cursor::new(bytes);
        let all = |c: &mut Cursor| c.take(c.len());
        let msg = match c.u8()? {
            1 => Msg::Hello(decode_hello(&mut c)?),
            2 => Msg::Rewind(c.u64()?),
            3 => Msg::Fetch(c.u64()?),
            4 => {
                let last = c.u8()? != 0;
                let count = c.u32()?;
                let frames = (0..count).map(|_| c.bytes()).collect::<Result<_, _>>()?;
                Msg::Fetched(frames, last)
            }
            5 => Msg::Frame(all(&mut c)?),
            6 => {
                let at = take_position(&mut c)?;
                Msg::Ack(Ack { at, applied: c.u64()?, kept: c.u64()?, own: c.u64()? })
            }
            11 => Msg::Keep(c.u64()?),
            12 => Msg::Snapshot(c.bytes()?),
            13 => Msg::Want(c.bytes()?),
            14 => {
                let count = c.u32()?;
                let pairs = (0..count).map(|_| Ok((c.bytes()?, c.bytes()?)));
                Msg::Pairs(pairs.collect::<Result<_, CodecError>>()?)
            }
            7 => {
                let (session, has) = (c.session()?, c.u8()?);
                Msg::Parked(session, has & 1 != 0, if has & 2 != 0 { c.u32()? } else { 0 })
            }
            8 => Msg::Control(all(&mut c)?),
            9 => Msg::Relay(Relay::decode(&mut c)?),
            10 => Msg::Fronted(Fronted::decode(&mut c)?),
            15 => Msg::Check(decode_part(&mut c)?),
            16 => {
                let (number, count) = (c.u32()?, c.u32()?);
                Msg::Checked(number, (0..count).map(|_| c.bytes()).collect::<Result<_, _>>()?)
            }
            other => return Err(CodecError::UnknownType(other.into())),
        };
        if c.is_empty() { Ok(msg) } else { Err(CodecError::Bad("length")) }
    }
}

fn encode_part(part: &Part, out: &mut Vec<u8>) {
    out.push(15);
    out.extend_from_slice(&part.number.to_le_bytes());
    out.extend_from_slice(&part.at.to_le_bytes());
    out.push(u8::from(part.range.is_some()));
    if let Some((after, to)) = &part.range {
        put_bytes(out, after);
        put_bytes(out, to);
    }
    out.extend_from_slice(&(part.users.len() as u32).to_le_bytes());
    for (name, digest) in &part.users {
        put_bytes(out, name);
        out.push(u8::from(digest.is_some()));
        digest.iter().for_each(|digest| out.extend_from_slice(&digest.to_le_bytes()));
    }
}

fn decode_part(c: &mut Cursor) -> Result<Part, CodecError> {
    let (number, at) = (c.u32()?, c.u64()?);
    let range = if c.u8()? != 0 { Some((c.bytes()?, c.bytes()?)) } else { None };
    let count = c.u32()?;
    let users = (0..count).map(|_| Ok((c.bytes()?, if c.u8()? != 0 { Some(c.u64()?) } else { None })));
    let users = users.collect::<Result<_, CodecError>>()?;
    Ok(Part { number, at, range, users })
}

fn decode_hello(c: &mut Cursor) -> Result<Hello, CodecError> {
    let versions = (c.u8()?, c.u8()?);
    let (cluster, node, boot) = (c.u64()?, c.node()?, c.u64()?);
    let mut reg = || Ok(if c.u8()? != 0 { Some(c.reg()?) } else { None });
    let regs = [reg()?, reg()?];
    Ok(Hello { versions, cluster, node, boot, regs, runs: Runs::decode(c)? })
}

#[cfg(test)]
mod tests {
    use presence_engine::engine::Token;
    use presence_engine::front::Attach;
    use presence_engine::ids::{Conn, Epoch, Mode, Term};
    use xmpp_core::jid::BareJid;

    use super::*;

    #[test]
    fn every_message_is_read_back_and_no_cut_is() {
        let reg = Reg { term: Term(4), primary: NodeIx::B, mode: Mode::Solo, settled: Term(2) };
        let mut runs = Runs::default();
        runs.push(Position { seq: 1, inc: 8 });
        let hello =
            Hello { versions: VERSIONS, cluster: 1, node: NodeIx::A, boot: 2, regs: [Some(reg), None], runs };
        let conn = Conn { node: NodeIx::B, number: 1 << 40 };
        let (session, user) = (SmId([7; 16]), BareJid::parse("u@d").unwrap());
        let (entropy, stanza) = ([3; 16], Bytes::from_static(b"<r/>"));
        let attach = Some(Attach { session, stream: 2, written: u32::MAX });
        let all = [
            Msg::Relay(Relay::List(true)),
            Msg::Relay(Relay::Open {
                conn,
                user: user.clone(),
                salt: Bytes::from_static(b"salt"),
                entropy,
                attach,
                token: Some(Token { session, number: 3 }),
            }),
            Msg::Relay(Relay::Open { conn, user, salt: Bytes::new(), entropy, attach: None, token: None }),
            Msg::Relay(Relay::Element { conn, seq: 4, number: Some(0), again: true, stanza }),
            Msg::Relay(Relay::Closed { conn, clean: true }),
            Msg::Fronted(Fronted::Deliver(conn, Bytes::from_static(b"<a/>"))),
            Msg::Fronted(Fronted::Credit(conn)),
            Msg::Fronted(Fronted::Again),
            Msg::Fronted(Fronted::Close(conn, Bytes::new(), true)),
            Msg::Fronted(Fronted::Attached { conn, session, stream: 1, inbound: 2, written: None }),
            Msg::Fronted(Fronted::Offer(conn, Epoch { term: 7, moves: 1 })),
            Msg::Hello(hello),
            Msg::Rewind(4),
            Msg::Fetch(5),
            Msg::Fetched(vec![Bytes::from_static(b"x"), Bytes::new()], true),
            Msg::Frame(Bytes::from_static(b"frame")),
            Msg::Ack(Ack { at: Position { seq: 1, inc: 2 }, applied: 3, kept: 4, own: 5 }),
            Msg::Keep(9),
            Msg::Snapshot(Bytes::from_static(b"mark")),
            Msg::Want(Bytes::new()),
            Msg::Pairs(vec![
                (Bytes::from_static(b"k"), Bytes::new()),
                (Bytes::new(), Bytes::from_static(b"v")),
            ]),
            Msg::Parked(SmId([7; 16]), true, 0),
            Msg::Parked(SmId([7; 16]), true, 5),
            Msg::Control(Bytes::from_static(b"{}")),
            Msg::Check(Part {
                number: 1,
                at: 2,
                range: Some((Bytes::new(), Bytes::from_static(b"u"))),
                users: vec![(Bytes::from_static(b"u"), Some(3)), (Bytes::from_static(b"v"), None)],
            }),
            Msg::Check(Part { number: 1, at: 2, range: None, users: Vec::new() }),
            Msg::Checked(4, vec![Bytes::from_static(b"u")]),
        ];
        for msg in all {
            let bytes = msg.encode();
            assert_eq!(Msg::decode(bytes.slice(4..)), Ok(msg.clone()));
            let open_ended = matches!(msg, Msg::Frame(_) | Msg::Control(_));
            for n in 4..bytes.len() {
                assert!(open_ended || Msg::decode(bytes.slice(4..n)).is_err(), "{msg:?} cut at {n}");
            }
        }
    }
}
