//! What the engine is told, and what it says.

use bytes::Bytes;
use compact_str::CompactString;
use xmpp_core::jid::BareJid;
use xmpp_core::stanza::Stanza;

use super::{Notice, Print, Token, Unsent};
use crate::front::{Fronted, Relay};
use crate::ids::{Away, Conn, Group, NodeIx, Reg, SmId};
use crate::record::{Record, Verifiers};
use crate::state::GroupInfo;

/// Inputs.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client authenticated. `entropy` becomes its SM-ID if it binds.
    Opened {
        /// The connection.
        conn: Conn,
        /// The account.
        user: BareJid,
        /// Salt of the verifiers that it met: see [`Verifiers::salt`].
        salt: Bytes,
        /// Fresh random bytes.
        entropy: [u8; 16],
        /// It was let in by this one-time token.
        token: Option<Token>,
    },
    /// A top-level element of an authenticated stream.
    Element {
        /// The connection.
        conn: Conn,
        /// The element.
        stanza: Stanza,
    },
    /// The connection is gone. `clean`: the client closed its stream (`</stream:stream>`), which ends the session.
    Closed {
        /// The connection.
        conn: Conn,
        /// Whether the session ends with it.
        clean: bool,
    },
    /// This node may (or may no longer) emit records for the group: its core leads, and the register was written.
    Serving {
        /// The group.
        group: Group,
        /// Whether.
        on: bool,
    },
    /// The core leads the group with this register value: write it down, take over what is undone, call the clients.
    Lead {
        /// The group.
        group: Group,
        /// The register.
        reg: Reg,
        /// Taken over so late that the other may have acknowledged alone (D6).
        late: bool,
    },
    /// The link to the peer is up and its process answers.
    PeerUp(bool),
    /// The peer holds a parked stream of this session, or no longer.
    PeerParked {
        /// The session.
        session: SmId,
        /// Whether.
        on: bool,
        /// Number of the highest one-time token of it that was used there; 0: none was.
        token: u32,
    },
    /// The peer is the front of a client of ours.
    Relay(Relay),
    /// The peer owns the session of a client whose front this node is.
    Fronted(Fronted),
    /// This node is about to leave: it is nobody's front any more.
    Leaving,
    /// Time passed.
    Tick,
    /// Re-login limits have changed: dual clients are told.
    OfferAgain,
    /// Somebody wants to know whether turns are made: answered by [`Output::Probed`], which waits for nothing.
    Probe(u64),
    /// Write a record that says nothing, to see whether records become durable.
    Nothing,
    /// A request of the server to itself: the answer is delivered to the connection [`Conn::SELF`].
    Loop(Stanza),
    /// A message of the server to an account: answered by [`Output::Noticed`].
    Notice(Box<Notice>),
    /// Add an account.
    UserAdd {
        /// The account.
        user: BareJid,
        /// Its home.
        home: NodeIx,
        /// Its verifiers.
        verifiers: Verifiers,
    },
    /// Give an account another password and end its sessions.
    UserPasswd {
        /// The account.
        user: BareJid,
        /// Its new verifiers.
        verifiers: Verifiers,
    },
    /// Remove an account.
    UserRemove {
        /// The account.
        user: BareJid,
    },
    /// Hand the user over to the other node's register.
    HandOver {
        /// The user.
        user: BareJid,
    },
    /// Describe the presence redundancy group anew.
    Group(GroupInfo),
    /// Assign the user to another home, and move the sessions there; or to none, and end them.
    Assign {
        /// The user.
        user: BareJid,
        /// The home.
        home: Option<NodeIx>,
    },
    /// Mark a group's home node as failed over although it lives, or no longer.
    Away {
        /// The group.
        group: Group,
        /// Why; `None`: no longer.
        why: Option<Away>,
    },
    /// Take all users of the other register into our own (both are led here).
    Absorb {
        /// The register to be given back.
        from: Group,
    },
}

/// Outputs, in the order in which they must leave.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Must survive. `groups` has bit `1 << index` set for each group that it belongs to.
    Record {
        /// Bit mask of groups.
        groups: u8,
        /// The record.
        record: Record,
    },
    /// Bytes for a client.
    Deliver(Conn, Bytes),
    /// The client may send one more element.
    Credit(Conn),
    /// Last bytes for a client, then its stream ends; `end_stream`: with `</stream:stream>`, else only its TCP.
    Close(Conn, Bytes, bool),
    /// Prove to the client that this node lives.
    Vouch(Conn, CompactString),
    /// A parked client's answer to a query.
    Report {
        /// The parked connection.
        conn: Conn,
        /// Names the query.
        id: CompactString,
        /// The proof, if it has one.
        mac: Option<CompactString>,
    },
    /// A parked client says that its main stream died: worth a look at the peer.
    MainLost(SmId),
    /// A stream was parked here, or is gone: the peer wants to know.
    Parked(SmId, bool),
    /// As a front: for the owner. Waits like everything: what this node put out before for the same client comes first.
    Relay(Relay),
    /// As an owner: for the front. Deliveries, credits and closes of its connections go to it by themselves.
    Tell(Fronted),
    /// As a front: what the owner has let go leaves at once.
    Fronted(Box<Output>),
    /// An input was refused, because it was being handled at crashes before: operators want to know.
    Poison(Print),
    /// What this user said of this contact in a void branch (D7) found no room in the roster, and is not there.
    RosterFull(BareJid, BareJid),
    /// An account is there, and these are needed at login; `None`: it is gone.
    Account(BareJid, Option<Verifiers>),
    /// The probe of this number has come through the engine.
    Probed(u64),
    /// The message of the server of this number is kept, or why it is not.
    Noticed(u64, Result<(), Unsent>),
}
