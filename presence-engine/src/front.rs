//! What a front and an owner say to each other (D5): the front has the socket, the owner has the session.
//!
//! Each time that a front attaches a connection to an owner, it draws a new name for it, never used before nor after. So
//! whatever is late, from before a break of the link, a restart or a takeover, names a connection that nobody knows any
//! more, and is dropped.
//!
//! Binary form: kind u8, then the fields in order as the log's records have them.

use bytes::Bytes;
use xmpp_core::jid::BareJid;
use xmpp_core::ns;
use xmpp_core::stanza::Stanza;

use crate::engine::Token;
use crate::ids::{Conn, Epoch, SmId};
use crate::record::{CodecError, Cursor, put_bytes};

/// A session that a connection carries already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attach {
    /// The session.
    pub session: SmId,
    /// Which of its streams this is: see [`crate::state::JsmSession::streams`].
    pub stream: u32,
    /// The last number that was written to the client (XEP-0198 4).
    pub written: u32,
}

/// Front to owner. Unlogged: the front keeps elements until the owner's log counts them, or its credit comes back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Relay {
    /// `true`: all connections of this front follow, what it attached before is void. `false`: these were all.
    List(bool),
    /// A connection.
    Open {
        /// Its name, for this attachment only.
        conn: Conn,
        /// The account that it authenticated for.
        user: BareJid,
        /// Salt of the verifiers that it met: see [`crate::record::Verifiers::salt`].
        salt: Bytes,
        /// Becomes the SM-ID if it binds.
        entropy: [u8; 16],
        /// The session that it carries already.
        attach: Option<Attach>,
        /// The one-time token that it was let in by.
        token: Option<Token>,
    },
    /// A checked element of its client.
    Element {
        /// The connection.
        conn: Conn,
        /// Counts the elements of this attachment from 1: one that is missing ends it.
        seq: u64,
        /// Of a stanza, where it is known: its number in the session ([`crate::state::JsmSession::inbound`]). Of a
        /// `<resume/>`: which of the session's streams was the last that the front knew of when this came
        /// ([`crate::state::JsmSession::streams`]); the first, 0, where it knew of no such session.
        number: Option<u32>,
        /// It was relayed before, and nobody knows what became of it.
        again: bool,
        /// The element, standing alone.
        stanza: Bytes,
    },
    /// The client is gone. `clean`: it closed its stream.
    Closed {
        /// The connection.
        conn: Conn,
        /// Whether the session ends with it.
        clean: bool,
    },
}

/// Owner to front. Safe when it is sent: the front lets it go at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fronted {
    /// Bytes for the client.
    Deliver(Conn, Bytes),
    /// The oldest element that was relayed is dealt with.
    Credit(Conn),
    /// Last bytes, then the end of the stream (`true`) or of its TCP connection only.
    Close(Conn, Bytes, bool),
    /// The connection carries a session from the element on that is being dealt with.
    Attached {
        /// The connection.
        conn: Conn,
        /// The session.
        session: SmId,
        /// Which of its streams.
        stream: u32,
        /// Number of the client's last stanza that was handled.
        inbound: u32,
        /// Number of the last stanza given to the client; `None`: nobody counts (stream management is off).
        written: Option<u32>,
    },
    /// A dual client is to hear this epoch, and of the node that sends this as the place to park.
    Offer(Conn, Epoch),
    /// The connection that this comes on is new: what was said before may not have arrived. Attach everything again.
    Again,
}

fn put_conn(out: &mut Vec<u8>, conn: Conn) {
    out.push(conn.node.index() as u8);
    out.extend_from_slice(&conn.number.to_le_bytes());
}

fn take_conn(c: &mut Cursor) -> Result<Conn, CodecError> {
    Ok(Conn { node: c.node()?, number: c.u64()? })
}

fn put_number(out: &mut Vec<u8>, number: Option<u32>) {
    out.push(u8::from(number.is_some()));
    out.extend_from_slice(&number.unwrap_or(0).to_le_bytes());
}

fn take_number(c: &mut Cursor) -> Result<Option<u32>, CodecError> {
    let (some, number) = (c.flag()?, c.u32()?);
    Ok(some.then_some(number))
}

impl Relay {
    /// How often the front counts a session as resumed means nothing: it counts by a log that is not the owner's copy of it.
    pub fn count_no_attempts(&mut self) {
        let Relay::Element { number: Some(number), stanza, .. } = self else { return };
        if Stanza::from_bytes(stanza.clone()).is_ok_and(|stanza| stanza.head.is(ns::SM, "resume")) {
            *number = u32::MAX;
        }
    }

    /// Appends the binary form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Relay::List(on) => out.extend_from_slice(&[1, u8::from(*on)]),
            Relay::Open { conn, user, salt, entropy, attach, token } => {
                out.push(2);
                put_conn(out, *conn);
                put_bytes(out, user.as_str().as_bytes());
                put_bytes(out, salt);
                out.extend_from_slice(entropy);
                out.push(u8::from(attach.is_some()) | u8::from(token.is_some()) << 1);
                if let Some(attach) = attach {
                    out.extend_from_slice(&attach.session.0);
                    out.extend_from_slice(&attach.stream.to_le_bytes());
                    out.extend_from_slice(&attach.written.to_le_bytes());
                }
                // Only who was told a token has one, and no peer of a version before them tells any.
                if let Some(token) = token {
                    out.extend_from_slice(&token.session.0);
                    out.extend_from_slice(&token.number.to_le_bytes());
                }
            }
            Relay::Element { conn, seq, number, again, stanza } => {
                out.push(3);
                put_conn(out, *conn);
                out.extend_from_slice(&seq.to_le_bytes());
                put_number(out, *number);
                out.push(u8::from(*again));
                put_bytes(out, stanza);
            }
            Relay::Closed { conn, clean } => {
                out.push(4);
                put_conn(out, *conn);
                out.push(u8::from(*clean));
            }
        }
    }

    /// Reads it back.
    pub fn decode(c: &mut Cursor) -> Result<Relay, CodecError> {
        Ok(match c.u8()? {
            1 => Relay::List(c.flag()?),
            2 => {
                let (conn, user, salt, entropy) = (take_conn(c)?, c.bare()?, c.bytes()?, c.session()?.0);
                let has = c.u8()?;
                if has > 3 {
                    return Err(CodecError::Bad("flag"));
                }
                let attach = match has & 1 {
                    0 => None,
                    _ => Some(Attach { session: c.session()?, stream: c.u32()?, written: c.u32()? }),
                };
                let token = match has & 2 {
                    0 => None,
                    _ => Some(Token { session: c.session()?, number: c.u32()? }),
                };
                Relay::Open { conn, user, salt, entropy, attach, token }
            }
            3 => {
                let (conn, seq, number) = (take_conn(c)?, c.u64()?, take_number(c)?);
                Relay::Element { conn, seq, number, again: c.flag()?, stanza: c.bytes()? }
            }
            4 => Relay::Closed { conn: take_conn(c)?, clean: c.flag()? },
            other => return Err(CodecError::UnknownType(other.into())),
        })
    }
}

impl Fronted {
    /// Appends the binary form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Fronted::Deliver(conn, bytes) => {
                out.push(1);
                put_conn(out, *conn);
                put_bytes(out, bytes);
            }
            Fronted::Credit(conn) => {
                out.push(2);
                put_conn(out, *conn);
            }
            Fronted::Close(conn, bytes, end) => {
                out.push(3);
                put_conn(out, *conn);
                put_bytes(out, bytes);
                out.push(u8::from(*end));
            }
            Fronted::Attached { conn, session, stream, inbound, written } => {
                out.push(4);
                put_conn(out, *conn);
                out.extend_from_slice(&session.0);
                out.extend_from_slice(&stream.to_le_bytes());
                out.extend_from_slice(&inbound.to_le_bytes());
                put_number(out, *written);
            }
            Fronted::Offer(conn, epoch) => {
                out.push(5);
                put_conn(out, *conn);
                out.extend_from_slice(&epoch.term.to_le_bytes());
                out.extend_from_slice(&epoch.moves.to_le_bytes());
            }
            Fronted::Again => out.push(6),
        }
    }

    /// Reads it back.
    pub fn decode(c: &mut Cursor) -> Result<Fronted, CodecError> {
        Ok(match c.u8()? {
            1 => Fronted::Deliver(take_conn(c)?, c.bytes()?),
            2 => Fronted::Credit(take_conn(c)?),
            3 => Fronted::Close(take_conn(c)?, c.bytes()?, c.flag()?),
            4 => {
                let (conn, session, stream) = (take_conn(c)?, c.session()?, c.u32()?);
                Fronted::Attached { conn, session, stream, inbound: c.u32()?, written: take_number(c)? }
            }
            5 => Fronted::Offer(take_conn(c)?, Epoch { term: c.u64()?, moves: c.u32()? }),
            6 => Fronted::Again,
            other => return Err(CodecError::UnknownType(other.into())),
        })
    }
}
