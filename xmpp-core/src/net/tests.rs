//! Connections over a pipe in memory, and STARTTLS over the loopback. No test sleeps: each waits with a deadline.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream, DuplexStream};
use tokio::sync::mpsc;

use super::*;
use crate::jid::BareJid;
use crate::xml::{Event, Framer, Limits};

pub(super) const HEADER: &str = "<stream:stream to='d.example' version='1.0' xmlns='jabber:client' \
     xmlns:stream='http://etherx.jabber.org/streams'>";
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq)]
enum Seen {
    Opened(BareJid),
    Element(String),
    Closed(bool),
}

struct TestHost {
    seen: mpsc::UnboundedSender<Seen>,
    tx: Mutex<Option<ConnSender>>,
    panic: AtomicBool,
    panicked: AtomicBool,
}

impl Host for TestHost {
    fn count(&self, what: Counted) {
        self.panicked.fetch_or(what == Counted::Panicked, Ordering::Relaxed);
    }
    fn lookup(&self, _: &str, _: Option<TokenName>, _: ScramHash) -> Lookup {
        Lookup::Unavailable
    }
    fn features(&self) -> Bytes {
        Bytes::new()
    }
    fn random(&self, out: &mut [u8]) {
        out.fill(5);
    }
    fn opened(&self, proved: Proved, _: SocketAddr, tx: ConnSender) -> ConnId {
        *self.tx.lock().unwrap() = Some(tx);
        self.seen.send(Seen::Opened(proved.user)).unwrap();
        ConnId(1)
    }
    fn element(&self, _: ConnId, stanza: Stanza) {
        assert!(!self.panic.load(Ordering::Relaxed), "asked to panic");
        self.seen.send(Seen::Element(String::from_utf8_lossy(&stanza.bytes).into_owned())).unwrap();
    }
    fn closed(&self, _: ConnId, clean: bool) {
        self.seen.send(Seen::Closed(clean)).unwrap();
    }
}

struct Rig {
    client: DuplexStream,
    host: Arc<TestHost>,
    seen: mpsc::UnboundedReceiver<Seen>,
    task: tokio::task::JoinHandle<()>,
}

pub(super) fn tls() -> (C2sTls, rustls::pki_types::CertificateDer<'static>) {
    tls_with(None)
}

pub(super) fn tls_with_tickets() -> (C2sTls, rustls::pki_types::CertificateDer<'static>) {
    tls_with(Some(crate::tls::Tickets::new(vec![[7; 32]])))
}

fn tls_with(
    tickets: Option<Arc<crate::tls::Tickets>>,
) -> (C2sTls, rustls::pki_types::CertificateDer<'static>) {
    let signed = rcgen::generate_simple_self_signed(["d.example".to_owned()]).unwrap();
    let identity =
        crate::tls::Identity::from_pem(&signed.cert.pem(), &signed.signing_key.serialize_pem()).unwrap();
    (crate::tls::c2s_server(&identity, tickets).unwrap(), signed.cert.der().clone())
}

fn test_host() -> (Arc<TestHost>, mpsc::UnboundedReceiver<Seen>) {
    let (seen, receiver) = mpsc::unbounded_channel();
    (
        Arc::new(TestHost {
            seen,
            tx: Mutex::default(),
            panic: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        }),
        receiver,
    )
}

impl Rig {
    /// An authenticated connection; `early` came together with the stream header.
    async fn new(early: &str, change: impl FnOnce(&mut ServerConfig)) -> Rig {
        let mut config = ServerConfig::new(tls().0, negotiate::Config::new("d.example"));
        change(&mut config);
        let (host, seen) = test_host();
        let (client, server) = tokio::io::duplex(1024);
        let mut framer = Framer::new(Limits::C2S);
        framer.feed(HEADER.as_bytes());
        framer.feed(early.as_bytes());
        assert!(matches!(framer.next(), Ok(Some(Event::StreamOpen(_)))));
        let for_task = host.clone();
        let task = tokio::spawn(async move {
            let proved =
                Proved { user: BareJid::parse("u@d.example").unwrap(), salt: Bytes::new(), token: None };
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            connection::run(BufStream::new(server), framer, proved, peer, &config, &*for_task).await;
        });
        let mut rig = Rig { client, host, seen, task };
        assert_eq!(rig.next().await, Seen::Opened(BareJid::parse("u@d.example").unwrap()));
        rig
    }

    async fn next(&mut self) -> Seen {
        tokio::time::timeout(DEADLINE, self.seen.recv()).await.expect("host was not called in time").unwrap()
    }

    async fn write(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    fn tx(&self) -> ConnSender {
        self.host.tx.lock().unwrap().clone().unwrap()
    }

    fn forget_tx(&self) {
        self.host.tx.lock().unwrap().take();
    }

    async fn read_to_end(&mut self) -> String {
        let mut text = String::new();
        tokio::time::timeout(DEADLINE, self.client.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    }
}

fn element(text: &str) -> Seen {
    Seen::Element(text.to_owned())
}

#[tokio::test]
async fn elements_go_up_and_writes_come_down_in_order() {
    let mut rig = Rig::new("<presence/>", |_| {}).await;
    assert_eq!(rig.next().await, element("<presence/>"));
    rig.write(" \n <r xmlns='urn:xmpp:sm:3'/><iq id='1' ").await;
    assert_eq!(rig.next().await, element("<r xmlns='urn:xmpp:sm:3'/>"));
    rig.write("type='get'/>").await;
    assert_eq!(rig.next().await, element("<iq id='1' type='get'/>"));
    let tx = rig.tx();
    for i in 0..5000 {
        tx.send(ToConn::Write(format!("<m i='{i}'/>").into()));
    }
    tx.send(ToConn::Close { last: Bytes::from_static(b"<last/>"), end_stream: true });
    tx.send(ToConn::Write(Bytes::from_static(b"<never/>")));
    let text = rig.read_to_end().await;
    let expected: String = (0..5000).map(|i| format!("<m i='{i}'/>")).collect();
    assert_eq!(text, expected + "<last/></stream:stream>");
    assert_eq!(rig.next().await, Seen::Closed(false));
    assert_eq!(tx.queued_bytes(), 0);
    drop(rig.client);
    rig.task.await.unwrap();
    assert!(tx.is_closed());
}

#[tokio::test]
async fn reading_stops_without_credits_and_goes_on_with_them() {
    let mut rig = Rig::new("<a/><b/><c/>", |config| config.credits = 2).await;
    assert_eq!((rig.next().await, rig.next().await), (element("<a/>"), element("<b/>")));
    // Writing goes on meanwhile, which also shows that the task has come to rest.
    rig.tx().send(ToConn::Write(Bytes::from_static(b"x")));
    assert_eq!(rig.client.read_u8().await.unwrap(), b'x');
    assert!(rig.seen.try_recv().is_err());
    rig.tx().credit(1);
    assert_eq!(rig.next().await, element("<c/>"));
    rig.write("<d/>").await;
    rig.tx().send(ToConn::Write(Bytes::from_static(b"y")));
    assert_eq!(rig.client.read_u8().await.unwrap(), b'y');
    assert!(rig.seen.try_recv().is_err());
    rig.tx().credit(5);
    assert_eq!(rig.next().await, element("<d/>"));
}

#[tokio::test]
async fn reading_stops_with_many_bytes_at_the_host_though_there_are_credits() {
    let long = format!("<message><body>{}</body></message>", "x".repeat(100_000));
    let mut rig = Rig::new(&long.repeat(10), |_| {}).await;
    let tx = rig.tx();
    for (more, credit) in [(6, 1), (1, 3), (3, 0)] {
        for _ in 0..more {
            assert_eq!(rig.next().await, element(&long));
        }
        // Writing goes on, which also shows that the task has come to rest.
        tx.send(ToConn::Write(Bytes::from_static(b"x")));
        assert_eq!(rig.client.read_u8().await.unwrap(), b'x');
        assert!(rig.seen.try_recv().is_err(), "six times 100,000 bytes are enough");
        tx.credit(credit);
    }
}

#[tokio::test]
async fn a_client_that_ends_its_stream_still_gets_the_last_words() {
    let mut rig = Rig::new("", |_| {}).await;
    rig.write("<presence type='unavailable'/></stream:stream>").await;
    assert_eq!(rig.next().await, element("<presence type='unavailable'/>"));
    assert_eq!(rig.next().await, Seen::Closed(true));
    rig.tx().send(ToConn::Write(Bytes::from_static(b"<a h='1'/>")));
    rig.forget_tx();
    assert_eq!(rig.read_to_end().await, "<a h='1'/></stream:stream>");
}

#[tokio::test]
async fn hostile_input_and_a_panic_end_this_stream_with_an_error() {
    let mut rig = Rig::new("", |_| {}).await;
    rig.write("<message>&evil;</message>").await;
    assert_eq!(rig.next().await, Seen::Closed(false));
    let text = rig.read_to_end().await;
    assert!(text.contains("<restricted-xml ") && text.ends_with("</stream:error></stream:stream>"), "{text}");
    let mut rig = Rig::new("", |_| {}).await;
    rig.host.panic.store(true, Ordering::Relaxed);
    rig.write("<presence/>").await;
    assert_eq!(rig.next().await, Seen::Closed(false));
    assert!(rig.read_to_end().await.contains("<internal-server-error "));
    assert!(rig.host.panicked.load(Ordering::Relaxed), "it is counted");
    drop(rig.client);
    rig.task.await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_is_dropped_resumable_at_the_limit() {
    let mut rig = Rig::new("", |config| config.queued_bytes = 10_000).await;
    let tx = rig.tx();
    for _ in 0..200 {
        tx.send(ToConn::Write(Bytes::from_static(&[b' '; 100])));
    }
    assert_eq!(rig.next().await, Seen::Closed(false));
    assert!(tx.is_closed());
    assert!(!rig.read_to_end().await.contains("stream"));
}

#[tokio::test]
async fn closing_without_end_of_stream_and_losing_the_socket() {
    let mut rig = Rig::new("", |_| {}).await;
    rig.tx().send(ToConn::Close { last: Bytes::new(), end_stream: false });
    assert_eq!(rig.next().await, Seen::Closed(false));
    assert_eq!(rig.read_to_end().await, "");
    let mut rig = Rig::new("", |_| {}).await;
    rig.write("<message><bo").await;
    drop(rig.client);
    assert_eq!(tokio::time::timeout(DEADLINE, rig.seen.recv()).await.unwrap(), Some(Seen::Closed(false)));
    rig.task.await.unwrap();
}

/// Reads until `wanted` has come.
pub(super) async fn until(stream: &mut (impl AsyncReadExt + Unpin), wanted: &str) -> String {
    let mut text = String::new();
    let mut buf = [0; 1024];
    while !text.contains(wanted) {
        let n = tokio::time::timeout(DEADLINE, stream.read(&mut buf)).await.expect("answer in time").unwrap();
        assert!(n > 0, "closed after {text}");
        text += std::str::from_utf8(&buf[..n]).unwrap();
    }
    text
}

async fn listening(config: ServerConfig, entry: Entry) -> (SocketAddr, mpsc::UnboundedReceiver<Seen>) {
    let (host, seen) = test_host();
    (listener(config, entry, host).await, seen)
}

/// Serves on a port of the loopback until the test ends.
pub(super) async fn listener(config: ServerConfig, entry: Entry, host: Arc<dyn Host>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, entry, Arc::new(ArcSwap::from_pointee(config)), host));
    addr
}

/// A client that trusts this certificate alone.
pub(super) fn tls_client(cert: rustls::pki_types::CertificateDer<'static>) -> tokio_rustls::TlsConnector {
    client_config(cert).into()
}

pub(super) fn client_config(cert: rustls::pki_types::CertificateDer<'static>) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(client)
}

#[tokio::test]
async fn starttls_over_the_loopback_leads_to_sasl() {
    let (server_tls, cert) = tls();
    let config = ServerConfig::new(server_tls, negotiate::Config::new("d.example"));
    let (addr, _seen) = listening(config, Entry::StartTls).await;
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    tcp.write_all(HEADER.as_bytes()).await.unwrap();
    until(&mut tcp, "<required/></starttls>").await;
    tcp.write_all(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await.unwrap();
    until(&mut tcp, "<proceed ").await;
    let mut stream = tls_client(cert).connect("d.example".try_into().unwrap(), tcp).await.unwrap();
    stream.write_all(HEADER.as_bytes()).await.unwrap();
    until(&mut stream, "<mechanism>SCRAM-SHA-256</mechanism>").await;
    // n,,n=alice,r=abcdefghijklmnop
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>\
         biwsbj1hbGljZSxyPWFiY2RlZmdoaWprbG1ub3A=</auth>";
    stream.write_all(auth.as_bytes()).await.unwrap();
    until(&mut stream, "<temporary-auth-failure/>").await;
    stream.write_all(b"</stream:stream>").await.unwrap();
    until(&mut stream, "</stream:stream>").await;
}

#[tokio::test]
async fn who_does_not_authenticate_in_time_or_is_one_too_many_is_dropped() {
    let mut config = ServerConfig::new(tls().0, negotiate::Config::new("d.example")).unauthenticated(10, 1);
    config.auth_timeout = Duration::from_millis(300);
    let (addr, _seen) = listening(config, Entry::StartTls).await;
    let mut first = TcpStream::connect(addr).await.unwrap();
    first.write_all(HEADER.as_bytes()).await.unwrap();
    until(&mut first, "</stream:features>").await;
    let mut second = TcpStream::connect(addr).await.unwrap();
    let mut buf = [0; 16];
    let gone = tokio::time::timeout(DEADLINE, second.read(&mut buf)).await.unwrap();
    assert!(matches!(gone, Ok(0) | Err(_)));
    let gone = tokio::time::timeout(DEADLINE, first.read(&mut buf)).await.unwrap();
    assert!(matches!(gone, Ok(0) | Err(_)));
}

/// A fiftieth of a processor is 20 logins a second at what one costs, as long as none was measured.
#[tokio::test]
async fn more_logins_than_the_processors_can_take_wait_before_tls_or_are_closed() {
    let (server_tls, cert) = tls();
    let config = ServerConfig::new(server_tls, negotiate::Config::new("d.example"));
    let cores = std::thread::available_parallelism().unwrap().get() as u32;
    let config = config.logins(2_u32.div_ceil(cores), Duration::from_millis(200));
    let (addr, _seen) = listening(config, Entry::DirectTls).await;
    let tls = tls_client(cert);
    let connect = |tls: tokio_rustls::TlsConnector| async move {
        let tcp = TcpStream::connect(addr).await.unwrap();
        tls.connect("d.example".try_into().unwrap(), tcp).await.is_ok()
    };
    let mut all = tokio::task::JoinSet::new();
    (0..150).for_each(|_| _ = all.spawn(connect(tls.clone())));
    let through = all.join_all().await.into_iter().filter(|through| *through).count();
    assert!((4..150).contains(&through), "{through}");
    // Who comes when the others are gone goes on, at the latest after a while.
    tokio::time::timeout(DEADLINE, async { while !connect(tls.clone()).await {} }).await.unwrap();
}

/// What the task of an idle connection takes, TLS (boxed) not included. It was 8 KiB when each future kept room for what
/// it handed on.
#[tokio::test]
async fn a_connections_task_is_small() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let config = Arc::new(ServerConfig::new(tls().0, negotiate::Config::new("d.example")));
    let pass = config.admit(address).unwrap();
    let (host, _) = test_host();
    let task = client(tcp, address, Entry::DirectTls, config, host, pass);
    assert!(std::mem::size_of_val(&task) <= 2_048, "{} bytes", std::mem::size_of_val(&task));
}
