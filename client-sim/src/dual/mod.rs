//! The client's half of the dual connection, pure: what comes in on both streams, and what to do about it.
//!
//! One stream is *main* and carries the session; the other is *parked* at the other node. The machine decides which is
//! which. It reads no clock and opens no socket: [`DualClient::on`] takes the time and one input and adds outputs, which the
//! runner in `session` carries out **in order**. A client without the extension is the same machine that was never
//! made an offer.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod machine;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use machine::DualClient;
use xmpp_core::dual::{Dual, Peer, Told};

/// How long the answer to `<lost/>` or `<resume/>` may take before the client helps itself.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// How long the main stream has for `<vouched/>`; the parked stream's node waits 1 s in all (R9).
pub const VOUCH_TIMEOUT: Duration = Duration::from_millis(700);
/// Shortest time between two `<lost/>` while the owner is said to live and cannot be reached.
pub const LOST_AGAIN: Duration = Duration::from_secs(1);
/// Most queries under way at once; the oldest gives way.
pub const MAX_QUERIES: usize = 8;

/// A wake-up the machine asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Time to park.
    Park,
    /// The main stream had its time to vouch.
    Vouch,
    /// The parked stream had its time to answer.
    Answer,
}

/// What happens to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A stream carries the session, by bind or by a resume that was no flip.
    MainUp {
        /// Where it is.
        at: Peer,
        /// Id of the session for resumption; `None` if it cannot be resumed.
        sm_id: Option<String>,
        /// Bound anew rather than resumed.
        anew: bool,
        /// The stream features had `<dual/>` (and this client wants it).
        dual: bool,
    },
    /// Something arrived on the main stream.
    Main(Dual),
    /// The main stream ended, or has been silent for too long.
    MainDied,
    /// Something arrived on the parked stream.
    Parked(Dual),
    /// `<resumed/>` on the parked stream.
    Resumed,
    /// The `<failed/>` of XEP-0198 on the parked stream.
    Failed,
    /// The counts of both sides do not fit: the session can never be resumed, on whatever stream that was found out.
    Gone,
    /// The stream to park is authenticated.
    ParkedOpen,
    /// The parked stream ended, or could not be opened.
    ParkedDied,
    /// One attempt to reach a node for the main stream failed; the attempts go on.
    ReconnectFailed,
    /// A wake-up.
    Timer(Timer),
}

/// Why a session moved to the parked stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlipCause {
    /// The server said `<take/>` before the client noticed anything.
    TakeUnasked,
    /// The client said `<lost/>` first.
    TakeAfterLost,
    /// The owner handed the session over.
    Moving,
    /// The owner said that it stays fenced.
    Stalled,
}

/// What to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Say this on the main stream.
    Main(Dual),
    /// Say this on the parked stream.
    Parked(Dual),
    /// `<resume/>` on the parked stream, with `h` as it is when this is carried out.
    Resume {
        /// The session.
        previd: String,
        /// The epochs that the main stream told.
        told: Option<Told>,
    },
    /// Whether to read from and to write stanzas to the main stream from now on.
    MainMode {
        /// Read what arrives.
        read: bool,
        /// Write stanzas; otherwise they wait.
        write: bool,
    },
    /// Close the main stream without a word.
    CloseMain,
    /// Open an authenticated stream there, then say `ParkedOpen` or `ParkedDied`.
    ConnectParked(Peer),
    /// Close the parked stream, or stop opening it.
    CloseParked,
    /// The parked stream is the main one now: drop what `<resumed h/>` covers, write the rest.
    Flip {
        /// Why.
        cause: FlipCause,
        /// The old main stream is the parked one now; otherwise close it.
        keep_old: bool,
    },
    /// Look for the session as a client without a parked stream does, alternating between the nodes.
    Reconnect {
        /// Name of the node to begin with.
        first: Option<String>,
        /// The session is known to be gone: do not try to resume it.
        anew: bool,
    },
    /// Stop looking.
    StopReconnect,
    /// Wake the machine after this time; replaces an earlier wake-up of this kind.
    SetTimer(Timer, Duration),
    /// Wake the machine after a random time between the two.
    SetRandomTimer(Timer, Duration, Duration),
    /// Do not wake it.
    CancelTimer(Timer),
}
