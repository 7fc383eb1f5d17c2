//! A connection up to authentication: does what [`crate::negotiate`] says.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Entry, Host, ServerConfig};
use crate::error::{StreamCondition, StreamError};
use crate::jid::BareJid;
use crate::negotiate::{ENTROPY_BYTES, Input, Negotiation, Output, Turn};
use crate::xml::{Event, Framer};

/// Read buffer in the clear, in bytes: a header and `<starttls/>`.
const CLEAR_BYTES: usize = 512;
/// What ends a stream.
pub(super) const END_STREAM: &[u8] = b"</stream:stream>";

/// An authenticated stream.
pub(super) struct Session {
    pub stream: TlsStream<TcpStream>,
    /// May hold elements that came with the stream header.
    pub framer: Framer,
    pub user: BareJid,
}

struct Login<'a> {
    config: &'a ServerConfig,
    host: &'a dyn Host,
    framer: Framer,
    negotiation: Negotiation,
    reply: Vec<u8>,
}

enum Flow {
    /// Wants more input.
    More,
    StartTls,
    User(BareJid),
    Closed,
}

/// Negotiates TLS and SASL. `None`: refused, closed or lost; the client has been told what could be told.
pub(super) async fn login(
    mut tcp: TcpStream,
    entry: Entry,
    config: &ServerConfig,
    host: &dyn Host,
) -> Option<Session> {
    let mut login = Login {
        config,
        host,
        framer: Framer::new(config.negotiation.before_auth),
        negotiation: Negotiation::new(entry == Entry::DirectTls),
        reply: Vec::new(),
    };
    if entry == Entry::StartTls {
        // The reader is dropped with all that came behind <starttls/> (S9).
        let mut clear = BufReader::with_capacity(CLEAR_BYTES, &mut tcp);
        let Ok(Flow::StartTls) = login.talk(&mut clear).await else { return None };
        login.framer.discard_buffered();
        login.framer.restart();
        login.input(Input::TlsReady);
    }
    let acceptor = TlsAcceptor::from(config.tls.clone());
    let mut stream = Box::pin(acceptor.accept(tcp)).await.ok()?;
    match login.talk(&mut stream).await {
        Ok(Flow::User(user)) => Some(Session { stream, framer: login.framer, user }),
        Ok(_) => {
            let _ = stream.shutdown().await;
            None
        }
        Err(_) => None,
    }
}

impl Login<'_> {
    /// Reads and answers until something other than more input is called for.
    async fn talk<S: AsyncBufRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<Flow> {
        loop {
            let data = stream.fill_buf().await?;
            let len = data.len();
            if len == 0 {
                return Ok(Flow::Closed);
            }
            self.framer.feed(data);
            stream.consume(len);
            let flow = catch_unwind(AssertUnwindSafe(|| self.advance())).unwrap_or_else(|_| {
                let error = StreamError::new(StreamCondition::InternalServerError);
                self.reply.extend_from_slice(&error.to_bytes());
                self.reply.extend_from_slice(END_STREAM);
                Flow::Closed
            });
            if !self.reply.is_empty() {
                stream.write_all(&std::mem::take(&mut self.reply)).await?;
                stream.flush().await?;
            }
            if !matches!(flow, Flow::More) {
                return Ok(flow);
            }
        }
    }

    /// Takes events off the framer as far as they go.
    fn advance(&mut self) -> Flow {
        loop {
            let flow = match self.framer.next() {
                Ok(None) => return Flow::More,
                Ok(Some(Event::StreamOpen(header))) => self.input(Input::Header(header)),
                Ok(Some(Event::Stanza(stanza))) => self.input(Input::Element(stanza)),
                Ok(Some(Event::StreamClose)) => self.input(Input::End),
                Err(error) => self.input(Input::Fault(error)),
            };
            if !matches!(flow, Flow::More) {
                return flow;
            }
        }
    }

    fn input(&mut self, input: Input) -> Flow {
        let mut outputs = VecDeque::from(self.turn(input));
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Send(bytes) => self.reply.extend_from_slice(&bytes),
                Output::StartTls => return Flow::StartTls,
                Output::Restart => {
                    self.framer.restart();
                    self.framer.set_limits(self.config.negotiation.after_auth);
                }
                Output::Lookup { user, mechanism } => {
                    let found = self.host.lookup(&user, mechanism);
                    outputs.extend(self.turn(Input::Credentials(found)));
                }
                Output::Authenticated(user) => return Flow::User(user),
                Output::End => {
                    self.reply.extend_from_slice(END_STREAM);
                    return Flow::Closed;
                }
                Output::Close(error) => {
                    self.reply.extend_from_slice(&error.to_bytes());
                    self.reply.extend_from_slice(END_STREAM);
                    return Flow::Closed;
                }
            }
        }
        Flow::More
    }

    fn turn(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        let mut entropy = [0; ENTROPY_BYTES];
        self.host.random(&mut entropy);
        let features = || self.host.features();
        let config = &self.config.negotiation;
        self.negotiation.handle(input, &mut Turn { config, entropy, features: &features, out: &mut out });
        out
    }
}
