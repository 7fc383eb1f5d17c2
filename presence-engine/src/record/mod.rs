//! Records: the changes of state that the log carries. [`crate::state::State::apply`] is the only thing that reads
//! their meaning, on the owner, on the standby and in replay alike.

mod codec;

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use xmpp_core::jid::{BareJid, Jid};

use crate::ids::{Away, Epoch, Group, NodeIx, Position, RecordId, Reg, SmId, StanzaId};
use crate::state::{GroupInfo, Item, RosterVersion};

pub use codec::{CodecError, Cursor, put_bytes, put_position, take_position};

/// SCRAM verifiers of one account (RFC 5802 3), one for each hash.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Verifiers {
    /// Salt, the same on both nodes. Each password has its own, so it names the password too.
    pub salt: Bytes,
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// StoredKey and ServerKey of SCRAM-SHA-1.
    pub sha1: (Bytes, Bytes),
    /// StoredKey and ServerKey of SCRAM-SHA-256.
    pub sha256: (Bytes, Bytes),
    /// StoredKey and ServerKey of SCRAM-SHA-512.
    pub sha512: (Bytes, Bytes),
}

/// One visible effect of a stanza. Effects are carried by the record of the stanza that caused them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Appended to a session's out-queue; the session numbers it (XEP-0198 4).
    Out {
        /// The receiving session.
        to: SmId,
        /// Whose stanza.
        id: StanzaId,
        /// Goes to offline storage if the session ends before the client handled it (XEP-0160).
        keep: bool,
        /// As the client gets it.
        stanza: Bytes,
    },
    /// A volatile stanza takes a number in each of these sessions and leaves no body (D2).
    Gap {
        /// Full JID whose presence it was: a resumed session is told its current presence. `None` for a chat state.
        about: Option<Jid>,
        /// The receiving sessions.
        to: Vec<SmId>,
    },
    /// Kept until the user is available (XEP-0160).
    Offline {
        /// The receiving account.
        user: BareJid,
        /// Whose stanza.
        id: StanzaId,
        /// When it was stored, in milliseconds since 1970.
        at_ms: u64,
        /// No resource was given it: whichever is available next takes it.
        open: bool,
        /// Resources that are to get it all the same: others were given it, they have older messages to take first.
        due: Vec<CompactString>,
        /// As it will be delivered, without the delay stamp.
        stanza: Bytes,
    },
    /// For a user of the other node, which processes it (D3).
    Forward(Forward),
    /// The same, from a branch of the sender's session that is void: taken only if it is not there already (D7).
    Offer(Forward),
    /// The session's own presence (RFC 6121 4).
    Presence {
        /// The session.
        session: SmId,
        /// Priority (RFC 6121 4.7.2.3); `None` when it became unavailable.
        priority: Option<i8>,
        /// The stanza as sent.
        stanza: Bytes,
    },
    /// What is stored offline for the session goes into its out-queue, oldest first, stamped with its delay (XEP-0203).
    FlushOffline {
        /// The session.
        session: SmId,
        /// Messages at most: what its queue has room for.
        count: u32,
    },
    /// One stanza for many users of the other node: a forward for each, the bytes once.
    FanOut {
        /// Whose stanza.
        id: StanzaId,
        /// The addressees.
        to: Vec<BareJid>,
        /// The stanza, stamped with its sender.
        stanza: Bytes,
    },
    /// A roster item is set or removed (RFC 6121 2).
    Roster {
        /// The roster's owner.
        user: BareJid,
        /// The contact.
        contact: BareJid,
        /// What the roster says from now on; `None`: nothing.
        item: Option<Item>,
        /// The roster's version from now on; `None` where clients see no change.
        version: Option<RosterVersion>,
    },
    /// A switch of a session.
    Flag {
        /// The session.
        session: SmId,
        /// Which.
        flag: Flag,
        /// Whether it is on from now on.
        on: bool,
    },
    /// The session sent directed presence there (RFC 6121 4.6), or took it back.
    Directed {
        /// The session.
        session: SmId,
        /// Where, as addressed.
        to: Jid,
        /// Sent, or taken back.
        on: bool,
    },
}

/// Switches of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flag {
    /// It asked for the roster and gets roster pushes (RFC 6121 2.2).
    Interested,
    /// It gets copies of its user's messages (XEP-0280 4).
    Carbons,
}

/// A stanza on its way to a user of the other node.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Forward {
    /// Addressee.
    pub to: Jid,
    /// Whose stanza.
    pub id: StanzaId,
    /// The stanza, stamped with its sender.
    pub stanza: Bytes,
}

/// A record of the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Record {
    /// The register of a group has this value; its primary writes this when it comes to lead and at each change of mode.
    Lead {
        /// The group.
        group: Group,
        /// The register.
        reg: Reg,
        /// When, in milliseconds since 1970.
        at_ms: u64,
        /// Taken over so late that the other may have acknowledged alone (D6).
        late: bool,
    },
    /// An account.
    UserAdd {
        /// The account.
        user: BareJid,
        /// Its home.
        home: NodeIx,
        /// Its SCRAM verifiers.
        verifiers: Verifiers,
    },
    /// An account has another password. Its sessions end with records of their own.
    UserPasswd {
        /// The account.
        user: BareJid,
        /// Its new SCRAM verifiers.
        verifiers: Verifiers,
    },
    /// An account is gone, with its roster and whatever waits for it.
    UserRemove {
        /// The account.
        user: BareJid,
        /// What its contacts are told: no subscription is left.
        effects: Vec<Effect>,
    },
    /// A resource was bound (RFC 6120 7). A session that had it before ends: its queue goes offline, and the new one
    /// takes over what contacts believe (D14).
    Bind {
        /// The new session.
        session: SmId,
        /// The account.
        user: BareJid,
        /// The resource.
        resource: CompactString,
        /// When, in milliseconds since 1970.
        at_ms: u64,
        /// Answers to requests that waited for the client of the session that ends.
        effects: Vec<Effect>,
    },
    /// Stream management was enabled (XEP-0198 3).
    Enable {
        /// The session.
        session: SmId,
        /// How long it outlives its stream, in milliseconds; 0: not resumable.
        resume_ms: u64,
    },
    /// The client asked for a dual connection.
    Dual {
        /// The session.
        session: SmId,
    },
    /// The client was let in by a one-time token: those with lower numbers are dead (D16).
    Token {
        /// The session.
        session: SmId,
        /// The token's number.
        number: u32,
    },
    /// A stanza of the client was handled: the counter step and all effects, atomically.
    SmIn {
        /// The session.
        session: SmId,
        /// Number of the stanza in the session.
        number: u32,
        /// All that it caused.
        effects: Vec<Effect>,
    },
    /// The client handled so many (XEP-0198 4): they leave the out-queue. Without stream management: so many of what it was
    /// given are let go ([`crate::state::EarlyOnes`]).
    Trim {
        /// The session.
        session: SmId,
        /// The client's count, or how many of the oldest.
        h: u32,
    },
    /// The session goes on on another stream; what is left is numbered anew from `h` + 1 (D2).
    Resumed {
        /// The session.
        session: SmId,
        /// The client's count.
        h: u32,
    },
    /// The session's stream goes on under another owner, or under the same after the path to its front was cut (D5): the
    /// client was given what is numbered up to `written`, and nothing after it.
    Reattached {
        /// The session.
        session: SmId,
        /// The last number that its front wrote to the client.
        written: u32,
    },
    /// The session's stream is gone; its time-out runs.
    Detached {
        /// The session.
        session: SmId,
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
    /// The session is over; its queue goes offline.
    End {
        /// The session.
        session: SmId,
        /// When, in milliseconds since 1970.
        at_ms: u64,
        /// What its contacts are told.
        effects: Vec<Effect>,
    },
    /// The session's queue has room again for messages that are stored offline.
    Flush {
        /// The session.
        session: SmId,
        /// Messages at most.
        count: u32,
    },
    /// The session never sent the presence that its predecessor's contacts still believe in: they are told (D14).
    Lapse {
        /// The session.
        session: SmId,
        /// What its contacts are told.
        effects: Vec<Effect>,
    },
    /// The user belongs to the register of `to` from here on (D4).
    HandOver {
        /// The user.
        user: BareJid,
        /// The receiver's register.
        to: Group,
        /// The user's new epoch.
        epoch: Epoch,
        /// How far the giver had processed the receiver's log.
        applied_peer: Position,
        /// Both counters of each session, as the giver knows them: (session, inbound, outbound).
        counters: Vec<(SmId, u32, u32)>,
    },
    /// All users of register `from` move into register `into`, which the same node leads (fallback, D4).
    Absorb {
        /// The register that is given back.
        from: Group,
        /// The giver's own register.
        into: Group,
    },
    /// The home node's users are away although it lives, or no longer.
    Away {
        /// The group.
        group: Group,
        /// Why; `None`: no longer.
        why: Option<Away>,
    },
    /// The presence redundancy group is described anew.
    Group(GroupInfo),
    /// An account is assigned to another home, or to none: then nobody logs in. A hand-over in the same frame moves its
    /// sessions.
    Assign {
        /// The account.
        user: BareJid,
        /// Its home from now on; `None`: it is not assigned.
        home: Option<NodeIx>,
    },
    /// A forwarded record was processed: its effects (D3).
    Done {
        /// The record.
        forward: RecordId,
        /// All that it caused.
        effects: Vec<Effect>,
    },
    /// A forwarded request waited too long for the node that should process it, which need not do so any more (D10).
    Cancel {
        /// The forward.
        forward: RecordId,
        /// What whoever asked is told.
        effects: Vec<Effect>,
    },
    /// What a void branch of a sender's session had brought to users of this node, or offers to those of the other
    /// (D7). It counts for no session. Without effects it says nothing: see [`Record::nothing`].
    Kept {
        /// The stanza.
        stanza: StanzaId,
        /// When it came, in milliseconds since 1970.
        at_ms: u64,
        /// What is left of its effects.
        effects: Vec<Effect>,
    },
}

impl Record {
    /// The effects that it carries.
    pub fn effects(&self) -> &[Effect] {
        match self {
            Record::SmIn { effects, .. }
            | Record::Done { effects, .. }
            | Record::Cancel { effects, .. }
            | Record::Bind { effects, .. }
            | Record::Kept { effects, .. }
            | Record::End { effects, .. }
            | Record::Lapse { effects, .. }
            | Record::UserRemove { effects, .. } => effects,
            _ => &[],
        }
    }

    /// One that changes nothing, and that every version reads: it is written to see whether records become durable.
    pub fn nothing() -> Record {
        let stanza = StanzaId { session: SmId::default(), number: 0 };
        Record::Kept { stanza, at_ms: 0, effects: Vec::new() }
    }

    /// Whether it is such a one.
    pub fn says_nothing(&self) -> bool {
        matches!(self, Record::Kept { effects, .. } if effects.is_empty())
    }
}
