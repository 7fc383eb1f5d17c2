//! A real server under attack, and bystanders: clients with a ledger who must notice nothing.
//!
//! [`Attacker`] speaks raw bytes, so that an attack is what stands in the test.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client_sim::fleet::Snapshot;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use srm::demo::pair::{DOMAIN, PASSWORD};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use xmpp_core::sasl::{ClientBinding, Exporter, Mechanism, ScramClient, ScramHash, TLS_EXPORTER_LABEL};
use xmpp_core::tls::end_point;

use crate::rig::{Load, QUICK, Rig};

/// How long an answer may take. Long, because other builds may run on the machine.
pub const LIMIT: Duration = Duration::from_secs(20);
/// The header of a client's stream.
pub const HEADER: &str = "<?xml version='1.0'?><stream:stream to='demo.example' version='1.0' xmlns='jabber:client' \
     xmlns:stream='http://etherx.jabber.org/streams'>";
/// The account that attacks, where one is needed.
pub const MALLORY: &str = "mallory";

/// An account that the attacker has no business with.
pub const VICTIM: &str = "victim";

/// Who chats meanwhile.
const BYSTANDERS: Load = Load { users: 4, plain: 0.5, interval: Duration::from_millis(50), seed: 7 };

/// A server (or a pair) with bystanders that chat.
pub struct Siege {
    /// The processes and the bystanders.
    pub rig: Rig,
    calm: Snapshot,
}

impl Siege {
    /// Starts it: two pairs of bystanders, each sending every 50 ms.
    pub async fn begin(nodes: usize, settings: &[(&str, &str)]) -> Siege {
        Siege::begin_with(nodes, settings, &[]).await
    }

    /// The same with an environment for all starts of the nodes.
    pub async fn begin_with(nodes: usize, settings: &[(&str, &str)], env: &[(&str, &str)]) -> Siege {
        let settings: Vec<_> = QUICK.iter().chain(settings).copied().collect();
        let each = |node| env.iter().map(move |(key, value)| (node, *key, (*value).to_owned()));
        let env: Vec<_> = (0..nodes).flat_map(each).collect();
        Siege::of(Rig::start(nodes, BYSTANDERS, &settings, &env).await).await
    }

    /// The same with no test beside it, for one that measures times of milliseconds, or that takes all there is of the
    /// machine.
    pub async fn begin_alone(nodes: usize, settings: &[(&str, &str)]) -> Siege {
        let settings: Vec<_> = QUICK.iter().chain(settings).copied().collect();
        Siege::of(Rig::start_alone(nodes, BYSTANDERS, &settings, &[]).await).await
    }

    async fn of(rig: Rig) -> Siege {
        rig.pair.user_add(0, MALLORY, 0).expect("the attacker's account");
        rig.pair.user_add(0, VICTIM, 0).expect("the victim's account");
        rig.traffic(10).await;
        let calm = rig.fleet.snapshot();
        Siege { rig, calm }
    }

    /// The attack is over, and cost nobody else anything: no stream of a bystander was closed, the chat goes on, and
    /// their ledger is clean.
    pub async fn end(self) {
        self.undisturbed();
        self.rig.traffic(20).await;
        self.undisturbed();
        self.rig.settle().await;
    }

    /// Whether all bystanders have the streams that they had.
    pub fn undisturbed(&self) {
        let now = self.rig.fleet.snapshot();
        let streams = |s: &Snapshot| {
            (
                s.logged_in,
                s.parked,
                s.flips.total(),
                s.resumes,
                s.binds_anew,
                s.attempts_failed,
                s.bounced,
                s.errors,
            )
        };
        assert_eq!(
            streams(&now),
            streams(&self.calm),
            "bystanders were disturbed: {now:#?}\n{}",
            self.rig.logs()
        );
    }

    /// Where a node's clients begin with TLS.
    pub fn direct(&self, node: usize) -> SocketAddr {
        self.rig.pair.made.nodes[node].c2s_tls
    }

    /// Where they begin in the clear.
    pub fn starttls(&self, node: usize) -> SocketAddr {
        self.rig.pair.made.nodes[node].c2s
    }

    /// Memory of a node's process that is in RAM, in bytes.
    pub fn rss(&self, node: usize) -> u64 {
        rss(self.rig.pair.pid(node).expect("the node runs"))
    }

    /// How clients make TLS: they trust this server's authority.
    pub fn tls(&self) -> Arc<rustls::ClientConfig> {
        self.rig.pair.dialer().expect("a CA").tls()
    }

    /// The same, for a client that knows nothing newer than TLS 1.2.
    pub fn tls12(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(&self.rig.pair.made.ca).expect("a CA");
        roots.add(ca).expect("a CA");
        let provider = rustls::crypto::ring::default_provider().into();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .expect("TLS 1.2")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(client)
    }

    /// A connection with TLS, and the features read.
    pub async fn open(&self, node: usize) -> Attacker {
        let mut attacker = Attacker::secure(self.direct(node), self.tls()).await;
        attacker.say(HEADER).await;
        attacker.until("</stream:features>").await;
        attacker
    }

    /// A stream of the attacker that has logged in and has no resource yet.
    pub async fn logged_in(&self, node: usize) -> Attacker {
        self.logged_in_as(MALLORY, node).await
    }

    async fn logged_in_as(&self, user: &str, node: usize) -> Attacker {
        let mut attacker = self.open(node).await;
        attacker.scram_as(user).await;
        attacker.say(HEADER).await;
        attacker.until("</stream:features>").await;
        attacker
    }

    /// A session of the attacker, with this resource.
    pub async fn session(&self, resource: &str) -> Attacker {
        self.session_of(MALLORY, resource).await
    }

    /// A session of whoever has [`PASSWORD`].
    pub async fn session_of(&self, user: &str, resource: &str) -> Attacker {
        let mut attacker = self.logged_in_as(user, 0).await;
        attacker
            .say(&format!(
                "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}\
                 </resource></bind></iq>"
            ))
            .await;
        attacker.until("</iq>").await;
        attacker
    }
}

/// Memory of a process that is in RAM, in bytes.
pub fn rss(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

/// The most that a process has had in RAM since it began, in bytes.
pub fn peak_rss(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib =
        line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    1024 * kib.expect("the process lives")
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Io for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Io for TlsStream<Box<dyn Io>> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0.tcp()
    }
}

/// One end of a connection, in whatever state.
pub struct Attacker {
    io: Box<dyn Io>,
    unread: Vec<u8>,
    exporter: Option<Exporter>,
    end_point: Option<Bytes>,
}

impl Attacker {
    /// TCP alone.
    pub async fn clear(place: SocketAddr) -> Attacker {
        let tcp = TcpStream::connect(place).await.expect("the server listens");
        tcp.set_nodelay(true).expect("a socket");
        Attacker { io: Box::new(tcp), unread: Vec::new(), exporter: None, end_point: None }
    }

    /// TCP and TLS.
    pub async fn secure(place: SocketAddr, tls: Arc<rustls::ClientConfig>) -> Attacker {
        Attacker::clear(place).await.upgrade(tls).await
    }

    /// TLS over what is there.
    pub async fn upgrade(self, tls: Arc<rustls::ClientConfig>) -> Attacker {
        self.try_upgrade(tls).await.expect("a handshake")
    }

    /// TLS over what is there, if the server goes along.
    pub async fn try_upgrade(self, tls: Arc<rustls::ClientConfig>) -> Option<Attacker> {
        let name = ServerName::try_from(DOMAIN).expect("a name");
        let tls = tokio_rustls::TlsConnector::from(tls).connect(name, self.io).await.ok()?;
        let exporter = tls.get_ref().1.export_keying_material([0; 32], TLS_EXPORTER_LABEL, Some(b"")).ok();
        let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let end_point = certificate.and_then(|certificate| end_point(certificate));
        Some(Attacker { io: Box::new(tls), unread: Vec::new(), exporter, end_point })
    }

    /// Goes away without a word, and without leaving a trace in the kernel of this machine.
    pub fn reset(self) {
        let _ = self.io.tcp().set_zero_linger();
    }

    /// What this connection binds to.
    pub fn exporter(&self) -> Exporter {
        self.exporter.expect("TLS")
    }

    /// What the server's certificate binds to.
    pub fn end_point(&self) -> Bytes {
        self.end_point.clone().expect("TLS")
    }

    /// Sends text; see [`Attacker::send`].
    pub async fn say(&mut self, text: &str) -> bool {
        self.send(text.as_bytes()).await
    }

    /// Sends bytes. False if the server takes no more, which is one way to fend an attack off.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        matches!(timeout(LIMIT, sent).await, Ok(Ok(())))
    }

    /// Sends `bytes` over and over, as much as the server takes within a time, adding to `taken` how
    /// many bytes it took. Going on with the same `taken` goes on in the middle of `bytes`.
    pub async fn flood(&mut self, bytes: &[u8], taken: &AtomicUsize, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let rest = &bytes[taken.load(Relaxed) % bytes.len()..];
            match timeout(left, self.io.write(rest)).await {
                Ok(Ok(n)) if n > 0 => taken.fetch_add(n, Relaxed),
                _ => break,
            };
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        timeout(LIMIT, self.io.read_buf(&mut self.unread)).await.unwrap_or_else(|_| {
            panic!("no answer in time; so far: {}", String::from_utf8_lossy(&self.unread))
        })
    }

    /// Reads up to and with `wanted`; the server must not close before.
    pub async fn until(&mut self, wanted: &str) -> String {
        loop {
            if let Some(at) = self.unread.windows(wanted.len()).position(|w| w == wanted.as_bytes()) {
                let rest = self.unread.split_off(at + wanted.len());
                let text = std::mem::replace(&mut self.unread, rest);
                return String::from_utf8(text).expect("UTF-8");
            }
            let read = self.fill().await;
            let so_far = || String::from_utf8_lossy(&self.unread).into_owned();
            assert!(matches!(read, Ok(n) if n > 0), "closed before {wanted:?}; so far: {}", so_far());
        }
    }

    /// Whether `wanted` comes before the server closes.
    pub async fn end_or(&mut self, wanted: &str) -> bool {
        loop {
            if self.unread.windows(wanted.len()).any(|w| w == wanted.as_bytes()) {
                return true;
            }
            if !matches!(self.fill().await, Ok(n) if n > 0) {
                return false;
            }
        }
    }

    /// Says it; what the server answers within a moment, or up to the end.
    pub async fn end_or_answer(&mut self, text: &str) -> String {
        self.say(text).await;
        if !self.end_or(">").await {
            return self.end().await;
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// Everything up to the end of the connection, which the server must make.
    pub async fn end(&mut self) -> String {
        while matches!(self.fill().await, Ok(n) if n > 0) {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// Says it, and the server must close the connection; everything up to there.
    pub async fn end_of(&mut self, bytes: &[u8]) -> String {
        self.send(bytes).await;
        self.end().await
    }

    /// Says it, and the server must end the stream with this error, and then the connection.
    pub async fn dies_of(&mut self, bytes: &[u8], condition: &str) -> String {
        let last = self.end_of(bytes).await;
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        assert!(last.contains(&format!("<{condition} ")), "{shown}\nwas answered with\n{last}");
        assert!(last.ends_with("</stream:error></stream:stream>"), "{shown}\nwas answered with\n{last}");
        last
    }

    /// Begins an exchange with these bytes; the server's whole answer.
    pub async fn auth(&mut self, mechanism: &str, first: &[u8]) -> String {
        self.try_auth(mechanism, first).await.expect("an answer before the end")
    }

    /// Goes on with an exchange.
    pub async fn response(&mut self, data: &[u8]) -> String {
        self.try_response(data).await.expect("an answer before the end")
    }

    /// [`Attacker::auth`] where the server may close instead: `None`.
    pub async fn try_auth(&mut self, mechanism: &str, first: &[u8]) -> Option<String> {
        let data = STANDARD.encode(first);
        let open = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>");
        self.say(&format!("{open}{data}</auth>")).await;
        self.try_answer().await
    }

    /// [`Attacker::response`], likewise.
    pub async fn try_response(&mut self, data: &[u8]) -> Option<String> {
        let data = STANDARD.encode(data);
        self.say(&format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{data}</response>")).await;
        self.try_answer().await
    }

    async fn try_answer(&mut self) -> Option<String> {
        if !self.end_or(">").await {
            return None;
        }
        let start = self.until(">").await;
        if start.ends_with("/>") {
            return Some(start);
        }
        let name: String = start.chars().skip(1).take_while(|c| c.is_alphanumeric()).collect();
        let close = format!("</{name}>");
        if self.end_or(&close).await { Some(start + &self.until(&close).await) } else { None }
    }

    /// A whole SCRAM exchange; the server's last word.
    pub async fn scram(
        &mut self,
        hash: ScramHash,
        binding: ClientBinding,
        user: &str,
        password: &str,
    ) -> String {
        let mut scram = ScramClient::new(hash, binding, user, password, rand::random()).expect("a good name");
        let challenge = self.auth(scram.mechanism().name(), &scram.first()).await;
        if !challenge.starts_with("<challenge") {
            return challenge;
        }
        let response = scram.respond(&payload(&challenge)).expect("a good challenge");
        let last = self.response(&response).await;
        if last.starts_with("<success") {
            scram.verify(&payload(&last)).expect("the server knows the account");
        }
        last
    }

    /// Logs in as the attacker, the short way. The stream header is the caller's.
    pub async fn scram_in(&mut self) {
        self.scram_as(MALLORY).await;
    }

    async fn scram_as(&mut self, user: &str) {
        let last = self.scram(ScramHash::Sha1, ClientBinding::Unsupported, user, PASSWORD).await;
        assert!(last.starts_with("<success"), "{last}");
    }

    /// The first words of the server for this name: nonce, salt and iterations.
    pub async fn challenge_for(&mut self, hash: ScramHash, user: &str) -> String {
        let first = format!("n,,n={user},r=abcdefghijklmnop");
        let challenge = self.auth(Mechanism::Scram(hash).name(), first.as_bytes()).await;
        assert!(challenge.starts_with("<challenge"), "{challenge}");
        String::from_utf8(payload(&challenge)).expect("text")
    }
}

/// What is in an element of SASL.
pub fn payload(element: &str) -> Vec<u8> {
    let inside =
        element.split_once('>').and_then(|(_, rest)| rest.split_once('<')).map_or("", |(text, _)| text);
    STANDARD.decode(inside).expect("base64")
}
