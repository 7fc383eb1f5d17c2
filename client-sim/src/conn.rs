//! One stream of a client: TCP, TLS, stream header, SASL, and then stanzas in both directions.

mod dial;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use xmpp_core::dual;
use xmpp_core::sasl::{
    ClientBinding, Exporter, KeyCache, Mechanism, ScramClient, TLS_EXPORTER_LABEL, TokenName, downgrade_check,
};
use xmpp_core::xml::{Event, Framer, Limits, Writer};
use xmpp_core::{Element, Stanza, StreamCondition, StreamError, ns};

pub use dial::Dialer;

/// Bytes read from the socket at a time.
const READ_BYTES: usize = 4096;
/// How often `see-other-host` is followed in one attempt.
pub const MAX_REDIRECTS: usize = 4;

/// Why a stream could not be had, or is no more.
#[derive(Debug, thiserror::Error)]
pub enum ConnError {
    /// Nobody listens there, or the network does not reach.
    #[error("cannot connect to {place}: {source}")]
    Connect {
        /// `host:port`.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// The TLS handshake failed: a certificate that does not fit, or a node that died under it.
    #[error("TLS with {place} failed: {source}")]
    Tls {
        /// `host:port`.
        place: String,
        /// What rustls says.
        source: io::Error,
    },
    /// The server took too long.
    #[error("no answer in time while waiting for {0}")]
    Timeout(&'static str),
    /// The connection broke without the end of the stream: the node died, or dropped us.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The server ended the stream in good order.
    #[error("the server closed the stream")]
    Ended,
    /// The server ended the stream with this error.
    #[error("stream error: {0}")]
    Stream(StreamError),
    /// The session is to be had elsewhere.
    #[error("the server sends us to {host}:{port}")]
    SeeOtherHost {
        /// Host name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The session that a one-time token belongs to cannot be resumed.
    #[error("the session is gone")]
    SessionGone,
    /// SASL refused us, with this condition.
    #[error("login refused: {0}")]
    Login(String),
    /// The server does not follow the protocol; its fault.
    #[error("unexpected: {0}")]
    Protocol(String),
}

impl ConnError {
    /// Whether asking again soon is pointless: the account or the password is refused.
    pub fn is_refusal(&self) -> bool {
        matches!(self, ConnError::Login(condition) if condition != "temporary-auth-failure")
    }

    /// Whether a one-time token is of no use any more: it is dead, or its session is gone.
    pub fn is_token_dead(&self) -> bool {
        match self {
            ConnError::Stream(error) => error.condition == StreamCondition::NotAuthorized,
            ConnError::SessionGone => true,
            other => other.is_refusal(),
        }
    }

    /// Whether the session can never be resumed: what was counted on both sides does not fit.
    pub fn ends_session(&self) -> bool {
        matches!(self, ConnError::Stream(error) if error.is_handled_count_too_high())
    }
}

/// Who logs in.
#[derive(Clone)]
pub struct Account {
    /// Localpart.
    pub user: String,
    /// Domain; also the name the certificate must have.
    pub domain: String,
    /// Password.
    pub password: String,
    /// Resource to ask for; the server chooses if `None`.
    pub resource: Option<String>,
    /// Shared by a fleet so that logging in again is cheap.
    pub keys: Arc<KeyCache>,
}

impl Account {
    /// The same account by a one-time token of its session (see [`TokenName`]); `None`: this is no token.
    pub fn by_token(&self, sm_id: &str, token: &str) -> Option<Account> {
        let user = TokenName::username(&self.user, sm_id, token)?;
        Some(Account { user, password: token.to_owned(), ..self.clone() })
    }

    /// The bare JID.
    pub fn bare_jid(&self) -> String {
        format!("{}@{}", self.user, self.domain)
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a stream offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// STARTTLS.
    pub starttls: bool,
    /// The mechanisms we know, as offered.
    pub mechanisms: Vec<Mechanism>,
    /// Everything that was offered for SASL, by name: mechanisms, and types of channel binding (XEP-0440).
    pub sasl: (Vec<String>, Vec<String>),
    /// Resource binding.
    pub bind: bool,
    /// XEP-0198, version 3.
    pub sm: bool,
    /// The dual connection.
    pub dual: bool,
}

impl Features {
    fn read(element: &Element) -> Self {
        let has = |ns, name| element.child(ns, name).is_some();
        let listed = element.child(ns::SASL, "mechanisms").into_iter();
        let names = listed.flat_map(|list| list.children_named(ns::SASL, "mechanism"));
        let names: Vec<String> = names.map(|m| m.text.trim().to_owned()).collect();
        let listed = element.child(ns::SASL_BINDING, "sasl-channel-binding").into_iter();
        let bindings = listed.flat_map(|list| list.children_named(ns::SASL_BINDING, "channel-binding"));
        let bindings = bindings.filter_map(|b| b.attr("type").map(str::to_owned)).collect();
        Features {
            starttls: has(ns::TLS, "starttls"),
            mechanisms: names.iter().filter_map(|name| Mechanism::parse(name)).collect(),
            sasl: (names, bindings),
            bind: has(ns::BIND, "bind"),
            sm: has(ns::SM, "sm"),
            dual: has(dual::NS, "dual"),
        }
    }
}

impl Features {
    /// The best mechanism for us: bound to the connection where both sides can, and never one that shows the password.
    fn best(&self, can_bind: bool) -> Option<Mechanism> {
        let ours = |mech: &Mechanism| *mech != Mechanism::Plain && (can_bind || !mech.binds());
        Mechanism::all().filter(ours).find(|mech| self.mechanisms.contains(mech))
    }

    /// What the server must say that it offered (XEP-0474).
    fn downgrade_check(&self, mech: Mechanism) -> String {
        let (names, bindings) = &self.sasl;
        let bindings = bindings.iter().map(String::as_str);
        downgrade_check(mech.hash(), names.iter().map(String::as_str), bindings)
    }
}

/// Whatever carries bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A client's end of a stream. `send` never waits: bytes go out whenever somebody waits in `recv` or `flush`, so a
/// peer that reads nothing cannot stop the client from listening.
pub struct Conn {
    io: Box<dyn Io>,
    framer: Framer,
    out: BytesMut,
    unflushed: bool,
    /// What this connection is bound to, on TLS 1.3.
    exporter: Option<Exporter>,
}

impl Conn {
    /// Over something that is connected already.
    pub fn over(io: impl Io + 'static) -> Self {
        Conn {
            io: Box::new(io),
            framer: Framer::new(Limits::S2S),
            out: BytesMut::new(),
            unflushed: false,
            exporter: None,
        }
    }

    /// Over TLS, which the login binds to where it can.
    fn secure<S: Io + 'static>(tls: tokio_rustls::client::TlsStream<S>) -> Self {
        let state = tls.get_ref().1;
        let tls13 = state.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let exporter = || state.export_keying_material([0; 32], TLS_EXPORTER_LABEL, Some(b"")).ok();
        Conn { exporter: tls13.then(exporter).flatten(), ..Conn::over(tls) }
    }

    /// Adds bytes to what goes out.
    pub fn send(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.unflushed = true;
    }

    /// How many bytes wait to go out.
    pub fn unsent(&self) -> usize {
        self.out.len()
    }

    /// The next top-level element. Cancel-safe. A stream error is an `Err`.
    pub async fn recv(&mut self) -> Result<Stanza, ConnError> {
        loop {
            match self.next_event()? {
                Some(Event::Stanza(stanza)) => return Ok(stanza),
                Some(_) => {}
                None => std::future::poll_fn(|cx| self.poll_fill(cx)).await?,
            }
        }
    }

    /// Waits until everything is with the operating system.
    pub async fn flush(&mut self) -> Result<(), ConnError> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Says `</stream:stream>` and waits until the server has ended its half too (RFC 6120 4.4), for `patience` at most.
    pub async fn close(mut self, patience: Duration) {
        self.send(b"</stream:stream>");
        let end = async { while self.recv().await.is_ok() {} };
        let _ = timeout(patience, end).await;
    }

    fn into_io(self) -> Box<dyn Io> {
        self.io
    }

    fn next_event(&mut self) -> Result<Option<Event>, ConnError> {
        match self.framer.next().map_err(|error| ConnError::Protocol(format!("bad XML: {error}")))? {
            Some(Event::StreamClose) => Err(ConnError::Ended),
            Some(Event::Stanza(stanza)) => match StreamError::parse(&stanza) {
                Some(error) => Err(stream_error(error)),
                None => Ok(Some(Event::Stanza(stanza))),
            },
            other => Ok(other),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnError>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out)).map_err(lost)?;
            if written == 0 {
                return Poll::Ready(Err(ConnError::Lost("nothing can be written".into())));
            }
            self.out.advance(written);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(lost)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what can be written and reads once.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnError>> {
        // A failure to write is no reason to leave unread what the server said before it died.
        let written = self.poll_flush(cx);
        let mut space = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
            Poll::Pending => match written {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            },
            Poll::Ready(Err(error)) => Poll::Ready(Err(lost(error))),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                Poll::Ready(Err(ConnError::Lost("end of file".into())))
            }
            Poll::Ready(Ok(())) => {
                self.framer.feed(buffer.filled());
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Sends the stream header and reads the server's, and its features.
    pub async fn open(&mut self, domain: &str) -> Result<Features, ConnError> {
        let mut header = Writer::new();
        header.open("stream:stream", ns::CLIENT).attr("xmlns:stream", ns::STREAM);
        header.attr("to", domain).attr("version", "1.0");
        self.send(&header.finish_open());
        let features = self.recv().await?;
        if !features.head.is(ns::STREAM, "features") {
            return Err(ConnError::Protocol(format!("<{}/> instead of features", features.head.name)));
        }
        Ok(Features::read(&features.element()))
    }

    /// SASL over a stream that is secure already, and the restart after it.
    pub async fn log_in(
        mut self,
        account: &Account,
        only: Option<Mechanism>,
    ) -> Result<(Conn, Features), ConnError> {
        let offered = self.open(&account.domain).await?;
        let mech = match only {
            Some(only) => offered.mechanisms.contains(&only).then_some(only),
            None => offered.best(self.exporter.is_some()),
        };
        let mech = mech.ok_or_else(|| ConnError::Protocol("no mechanism that we know".into()))?;
        let binding = match self.exporter {
            Some(exporter) if mech.binds() => ClientBinding::Exporter(exporter),
            // Who was told what to use has not looked at what else there was.
            Some(_) if only.is_none() => ClientBinding::NotOffered,
            _ => ClientBinding::Unsupported,
        };
        let bad = |error: xmpp_core::sasl::SaslError| ConnError::Login(error.to_string());
        let mut scram =
            ScramClient::new(mech.hash(), binding, &account.user, &account.password, rand::random())
                .map_err(bad)?
                .was_offered(offered.downgrade_check(mech));
        scram = match TokenName::read(&account.user) {
            Some(_) => scram.of_token(),
            None => scram.with_cache(Arc::clone(&account.keys)),
        };
        self.send(&sasl("auth", Some(mech), &scram.first()));
        let challenge = self.sasl_answer("challenge").await?;
        let (scram, response) = tokio::task::spawn_blocking(move || {
            let response = scram.respond(&challenge);
            (scram, response)
        })
        .await
        .map_err(|_| ConnError::Protocol("computing the proof failed".into()))?;
        self.send(&sasl("response", None, &response.map_err(bad)?));
        let success = self.sasl_answer("success").await?;
        scram.verify(&success).map_err(|_| ConnError::Login("the server cannot prove who it is".into()))?;
        self.framer.restart();
        let features = self.open(&account.domain).await?;
        Ok((self, features))
    }

    async fn sasl_answer(&mut self, wanted: &str) -> Result<Vec<u8>, ConnError> {
        let answer = self.recv().await?;
        if answer.head.is(ns::SASL, "failure") {
            let condition =
                answer.head.children.iter().find(|child| child.ns == ns::SASL && child.name != "text");
            return Err(ConnError::Login(condition.map_or("failure", |child| &child.name).to_owned()));
        }
        if !answer.head.is(ns::SASL, wanted) {
            return Err(ConnError::Protocol(format!("<{}/> instead of <{wanted}/>", answer.head.name)));
        }
        let text = answer.text();
        BASE64.decode(text.trim()).map_err(|_| ConnError::Protocol(format!("<{wanted}/> is no base64")))
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("unsent", &self.out.len()).finish_non_exhaustive()
    }
}

fn sasl(name: &str, mech: Option<Mechanism>, content: &[u8]) -> Bytes {
    let mut w = Writer::new();
    w.open(name, ns::SASL).attr_opt("mechanism", mech.map(Mechanism::name)).text(BASE64.encode(content));
    w.finish()
}

fn lost(error: io::Error) -> ConnError {
    ConnError::Lost(error.to_string())
}

fn stream_error(error: StreamError) -> ConnError {
    match error.other_host().and_then(host_and_port) {
        Some((host, port)) => ConnError::SeeOtherHost { host, port },
        None => ConnError::Stream(error),
    }
}

/// `host:port` or `[v6]:port`. Without a port we would not know which of the two it means.
fn host_and_port(place: &str) -> Option<(String, u16)> {
    let (host, port) = place.trim().rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then(|| Some((host.to_owned(), port.parse().ok()?)))?
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[test]
    fn other_hosts_are_read_with_their_port() {
        assert_eq!(host_and_port("b.example:5223"), Some(("b.example".into(), 5223)));
        assert_eq!(host_and_port(" [::1]:22 "), Some(("::1".into(), 22)));
        for bad in ["b.example", ":5223", "b:x", "b:70000", ""] {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn what_the_server_said_before_it_died_is_read() {
        let (ours, mut theirs) = duplex(1024);
        let mut conn = Conn::over(ours);
        theirs
            .write_all(
                b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>\
                  <message id='1'/><message id='2'/>",
            )
            .await
            .unwrap();
        drop(theirs);
        conn.send(b"<r/>");
        assert_eq!(conn.recv().await.unwrap().head.id.as_deref(), Some("1"));
        assert_eq!(conn.recv().await.unwrap().head.id.as_deref(), Some("2"));
        assert!(matches!(conn.recv().await, Err(ConnError::Lost(_))));
    }

    #[tokio::test]
    async fn bytes_go_out_while_waiting_and_a_full_pipe_does_not_stop_reading() {
        let (ours, mut theirs) = duplex(16);
        let mut conn = Conn::over(ours);
        conn.send(&[b' '; 100]);
        let header =
            b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'><a/>";
        let server = async {
            theirs.write_all(header).await.unwrap();
            let mut got = vec![0; 100];
            theirs.read_exact(&mut got).await.unwrap();
            theirs
        };
        let (mut theirs, first) = tokio::join!(server, async {
            let first = conn.recv().await.unwrap().head.name;
            conn.flush().await.unwrap();
            first
        });
        assert_eq!((first.as_str(), conn.unsent()), ("a", 0));
        theirs.write_all(b"</stream:stream>").await.unwrap();
        assert!(matches!(conn.recv().await, Err(ConnError::Ended)));
    }

    #[tokio::test]
    async fn a_stream_error_is_an_error() {
        let (ours, mut theirs) = duplex(1024);
        let mut conn = Conn::over(ours);
        let text = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>\
             <stream:error><see-other-host xmlns='{}'>b:5223</see-other-host></stream:error>",
            ns::STREAM_ERRORS
        );
        theirs.write_all(text.as_bytes()).await.unwrap();
        match conn.recv().await {
            Err(ConnError::SeeOtherHost { host, port }) => assert_eq!((host.as_str(), port), ("b", 5223)),
            other => panic!("{other:?}"),
        }
    }
}
