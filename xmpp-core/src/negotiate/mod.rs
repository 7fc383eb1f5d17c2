//! The server's side of a c2s stream from its header to authentication (RFC 6120 4 to 6): one type per state, pure.
//!
//! Order (S9): STARTTLS or direct TLS, then SASL, then a new stream with resource binding and the rest as features.
//! From [`Output::Authenticated`] on each top-level element belongs to the caller.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod auth;
mod header;
mod plain;
mod tls;

use bytes::Bytes;
use compact_str::CompactString;

pub use auth::{ExpectAuth, ExpectCredentials, ExpectResponse};
pub use header::ExpectHeader;
pub use plain::ExpectChecked;
pub use tls::{ExpectHandshake, ExpectStartTls};

use crate::error::{StreamCondition, StreamError};
use crate::jid::BareJid;
use crate::sasl::{Bindings, PlainCheck, ScramCredentials, ScramHash, TokenName};
use crate::stanza::Stanza;
use crate::xml::{Limits, StreamHeader};

/// Random bytes that one turn may use: a stream id or a nonce.
pub const ENTROPY_BYTES: usize = 18;

/// What all streams of a listener share.
#[derive(Clone, Debug)]
pub struct Config {
    /// Domains served here, in prepared form; the first answers where none was asked for.
    pub domains: Vec<CompactString>,
    /// SCRAM is offered with these hashes, on TLS 1.3 with -PLUS too.
    pub hashes: Vec<ScramHash>,
    /// Whether PLAIN is offered, inside TLS.
    pub plain: bool,
    /// Limits before authentication.
    pub before_auth: Limits,
    /// Limits after it.
    pub after_auth: Limits,
    /// Failed attempts at SASL after which the stream is closed (RFC 6120 6.4.5 asks for 2 to 5).
    pub auth_attempts: u32,
}

impl Config {
    /// One domain, SCRAM with every hash and no PLAIN, the usual limits, 3 attempts.
    pub fn new(domain: impl Into<CompactString>) -> Self {
        Config {
            domains: vec![domain.into()],
            hashes: ScramHash::ALL.to_vec(),
            plain: false,
            before_auth: Limits::BEFORE_AUTH,
            after_auth: Limits::C2S,
            auth_attempts: 3,
        }
    }
}

/// Who a client is, and by which of the account's passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// The account.
    pub user: BareJid,
    /// Salt of the credentials that were met. Each new password has another, so it tells whether the password was changed
    /// while the client was logging in.
    pub salt: Bytes,
    /// It was a one-time token: it lets in to its session only, and whoever keeps sessions must see that it is not dead.
    pub token: Option<TokenName>,
}

/// Answer to [`Output::Lookup`].
#[derive(Clone)]
pub enum Lookup {
    /// The account's credentials for the hash.
    Found(ScramCredentials),
    /// No such account. The credentials are made up, always the same for the same name and on both nodes (S17).
    Unknown(ScramCredentials),
    /// Cannot be told now; becomes `temporary-auth-failure`, never `not-authorized`.
    Unavailable,
}

/// Answer to [`Output::Check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The password fits.
    Holds,
    /// It does not.
    Wrong,
    /// Cannot be told now, for instance because too many passwords are being checked.
    Unavailable,
}

/// What carries the bytes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// TCP alone.
    Clear,
    /// TLS.
    Tls {
        /// What clients may bind to; only TLS 1.3 gives it.
        bindings: Option<Bindings>,
    },
}

/// What happens to a stream that is being negotiated.
#[allow(clippy::large_enum_variant, reason = "moved once")]
pub enum Input {
    /// A stream header.
    Header(StreamHeader),
    /// A top-level element.
    Element(Stanza),
    /// The client closed the stream.
    End,
    /// The framer or the shell found an error.
    Fault(StreamError),
    /// The TLS handshake asked for by [`Output::StartTls`] is done.
    TlsReady {
        /// As in [`Carrier::Tls`].
        bindings: Option<Bindings>,
    },
    /// The answer to [`Output::Lookup`].
    Credentials(Lookup),
    /// The answer to [`Output::Check`].
    Checked(Checked),
}

/// What the shell has to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Write this.
    Send(Bytes),
    /// Throw away what has been received, do the handshake as server, restart the framer, answer with
    /// [`Input::TlsReady`].
    StartTls,
    /// Restart the framer and give it the limits for after authentication.
    Restart,
    /// Find these credentials; answer with [`Input::Credentials`] before anything else.
    Lookup {
        /// Local part of the account, prepared.
        user: CompactString,
        /// Not the password but this one-time token is to be proved.
        token: Option<TokenName>,
        /// Hash of the mechanism in use.
        hash: ScramHash,
    },
    /// Ask [`PlainCheck::holds`] where it may take its time; answer with [`Input::Checked`] before anything else.
    Check(PlainCheck),
    /// A password was wrong, or meant for an account that does not exist: somebody may be guessing.
    Guessed,
    /// This is who it is; the stream is open and has its features. Nothing more comes from here.
    Authenticated(Proved),
    /// The client closed the stream: write `</stream:stream>` and close the connection.
    End,
    /// Write the error and `</stream:stream>` and close the connection.
    Close(StreamError),
}

/// What a turn may read and where its outputs go.
pub struct Turn<'a> {
    /// Configuration.
    pub config: &'a Config,
    /// Random bytes of this turn only.
    pub entropy: [u8; ENTROPY_BYTES],
    /// Too much was guessed lately where this client is: proofs are not looked at now, and get
    /// `temporary-auth-failure`.
    pub throttled: bool,
    /// The accounts may have changed elsewhere: what does not fit gets `temporary-auth-failure`.
    pub stale: bool,
    /// Further stream features after SASL, as XML; asked when they are sent.
    pub features: &'a dyn Fn() -> Bytes,
    /// Outputs are appended here.
    pub out: &'a mut Vec<Output>,
}

impl Turn<'_> {
    fn send(&mut self, bytes: impl Into<Bytes>) {
        self.out.push(Output::Send(bytes.into()));
    }
}

/// What is known of the stream across restarts.
#[derive(Clone, Debug)]
struct Facts {
    /// What the stream runs over.
    carrier: Carrier,
    /// The domain of the first header; it cannot change any more (S12).
    domain: Option<CompactString>,
    /// Failed attempts at SASL.
    failures: u32,
    /// Who it is, once SASL has said so (S11).
    user: Option<Proved>,
}

/// The state after an input.
#[allow(missing_docs, reason = "each variant is named like its state")]
pub enum Next {
    Header(ExpectHeader),
    StartTls(ExpectStartTls),
    Handshake(ExpectHandshake),
    Auth(ExpectAuth),
    Credentials(ExpectCredentials),
    Response(ExpectResponse),
    Checked(ExpectChecked),
    /// Authenticated: the negotiation is over.
    Done,
}

impl Next {
    fn handle(self, input: Input, turn: &mut Turn<'_>) -> Result<Next, StreamError> {
        match self {
            Next::Header(state) => state.handle(input, turn),
            Next::StartTls(state) => state.handle(input, turn),
            Next::Handshake(state) => state.handle(input),
            Next::Auth(state) => state.handle(input, turn),
            Next::Credentials(state) => state.handle(input, turn),
            Next::Response(state) => state.handle(input, turn),
            Next::Checked(state) => state.handle(input, turn),
            Next::Done => Ok(Next::Done),
        }
    }
}

/// A stream in negotiation, whatever its state.
pub struct Negotiation {
    /// `None` once closed.
    state: Option<Next>,
}

impl Negotiation {
    /// A new connection; on a port with direct TLS after the handshake.
    pub fn new(carrier: Carrier) -> Self {
        let facts = Facts { carrier, domain: None, failures: 0, user: None };
        Negotiation { state: Some(Next::Header(ExpectHeader::new(facts))) }
    }

    /// Takes an input and appends what is to be done. After `Authenticated`, `End` or `Close` nothing is done any more.
    pub fn handle(&mut self, input: Input, turn: &mut Turn<'_>) {
        let Some(state) = self.state.take() else { return };
        let opened = !matches!(state, Next::Header(_) | Next::Handshake(_));
        let result = match input {
            Input::End => {
                turn.out.push(Output::End);
                return;
            }
            Input::Fault(error) => Err(error),
            input => state.handle(input, turn),
        };
        match result {
            Ok(Next::Done) => {}
            Ok(next) => self.state = Some(next),
            Err(error) => {
                // RFC 6120 4.9.1.2: an error in the header is answered on a stream that is opened for it.
                if !opened {
                    let domain = turn.config.domains.first().cloned().unwrap_or_default();
                    let header = header::answer(&domain, None, turn.entropy);
                    turn.send(header);
                }
                turn.out.push(Output::Close(error));
            }
        }
    }
}

/// An element or input that has no place before authentication.
fn not_authorized() -> StreamError {
    StreamError::new(StreamCondition::NotAuthorized).with_text("not before authentication")
}

#[cfg(test)]
mod tests;
