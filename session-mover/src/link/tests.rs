//! The link over loopback, with certificates of its own.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use presence_engine::ids::{Mode, NodeIx, Position, Reg, SmId, Term};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use xmpp_core::tls::{Authority, Identity, link_client, link_server};

use super::*;
use crate::frame;
use crate::msg::{Ack, Hello, MAX_BYTES, VERSIONS};
use crate::runs::Runs;

/// Long enough for a busy machine; every test but that of the backoff waits for a condition, not for this.
const LIMIT: Duration = Duration::from_secs(20);

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Ca {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn authority(&self) -> Authority {
        Authority::from_pem(&self.0.pem()).unwrap()
    }

    fn identity(&self, name: &str) -> Identity {
        self.identity_for(name, Vec::new())
    }

    fn identity_for(&self, name: &str, usages: Vec<ExtendedKeyUsagePurpose>) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = usages;
        let cert = params.signed_by(&key, &self.0).unwrap();
        Identity::from_pem(&cert.pem(), &key.serialize_pem()).unwrap()
    }

    /// A dialler's configuration with a certificate for `name`.
    fn client(&self, name: &str) -> Arc<ClientConfig> {
        link_client(&self.identity(name), &self.authority()).unwrap()
    }
}

/// One end of the link and what it tells. Dropping it ends it.
struct End {
    events: UnboundedReceiver<LinkEvent>,
    task: JoinHandle<Infallible>,
    wake: Wake,
}

impl Drop for End {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl End {
    /// Node "b" listens for node "a".
    fn accept(listener: TcpListener, ca: &Ca) -> End {
        End::accept_as(listener, ca, &ca.identity("b"))
    }

    fn accept_as(listener: TcpListener, ca: &Ca, b: &Identity) -> End {
        let tls = link_server(b, &ca.authority()).unwrap();
        let (tell, events) = unbounded_channel();
        let tell = move |event| _ = tell.send(event);
        End {
            events,
            task: tokio::spawn(accept_forever(listener, Arc::new(tls.into()), "a".into(), tell)),
            wake: Wake::default(),
        }
    }

    /// Somebody dials, expecting to find "b".
    fn dial(addr: SocketAddr, tls: Arc<ClientConfig>) -> End {
        let (tell, events) = unbounded_channel();
        let (tell, wake) = (move |event| _ = tell.send(event), Wake::default());
        let name = ServerName::try_from("b").unwrap();
        let task =
            tokio::spawn(dial_forever(addr.to_string(), Arc::new(tls.into()), name, wake.clone(), tell));
        End { events, task, wake }
    }

    async fn next(&mut self) -> LinkEvent {
        timeout(LIMIT, self.events.recv()).await.expect("an event comes").expect("the link goes on")
    }

    async fn up(&mut self) -> LinkSender {
        match self.next().await {
            LinkEvent::Up(conn, sender) => {
                assert_eq!(conn, sender.conn());
                sender
            }
            other => panic!("not up but {other:?}"),
        }
    }

    async fn msg(&mut self, of: Conn) -> Msg {
        match self.next().await {
            LinkEvent::Msg(conn, msg) => {
                assert_eq!(conn, of);
                msg
            }
            other => panic!("no message but {other:?}"),
        }
    }

    async fn down(&mut self, of: Conn) -> Ended {
        match self.next().await {
            LinkEvent::Down(conn, ended) => {
                assert_eq!(conn, of);
                ended
            }
            other => panic!("not down but {other:?}"),
        }
    }

    async fn failed(&mut self) -> Ended {
        match self.next().await {
            LinkEvent::Failed(_, ended) => ended,
            other => panic!("not failed but {other:?}"),
        }
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A dialler that is only TLS, to be used badly. It has been asked in.
async fn raw(addr: SocketAddr, tls: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from("b").unwrap();
    let mut stream = TlsConnector::from(tls).connect(name, socket).await.unwrap();
    let mut word = [1; 4];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(word, wire::COME_IN);
    stream
}

fn hello() -> Msg {
    let reg = Reg { term: Term(4), primary: NodeIx::B, mode: Mode::Solo, settled: Term(2) };
    let mut runs = Runs::default();
    runs.push(Position { seq: 1, inc: 8 });
    Msg::Hello(Hello {
        versions: VERSIONS,
        cluster: 1,
        node: NodeIx::A,
        boot: 2,
        regs: [Some(reg), None],
        runs,
    })
}

fn one_of_each() -> Vec<Msg> {
    vec![
        hello(),
        Msg::Rewind(4),
        Msg::Fetch(5),
        Msg::Fetched(vec![Bytes::from_static(b"x"), Bytes::new()], true),
        Msg::Frame(Bytes::from_static(b"frame")),
        Msg::Ack(Ack { at: Position { seq: 1, inc: 2 }, ..Ack::default() }),
        Msg::Parked(SmId([7; 16]), true, 5),
        Msg::Control(Bytes::from_static(b"{}")),
    ]
}

#[tokio::test]
async fn every_message_arrives_both_ways_and_in_order() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    let (mut b, mut a) = (End::accept(listener, &ca), End::dial(addr, ca.client("a")));
    let (from_b, from_a) = (b.up().await, a.up().await);
    assert_eq!((from_a.conn().link, from_b.conn().link), (Link::Out, Link::In));
    let mut all = one_of_each();
    all.extend((0..5_000).map(Msg::Fetch));
    for (from, to, conn) in [(&from_a, &mut b, from_b.conn()), (&from_b, &mut a, from_a.conn())] {
        for msg in &all {
            assert!(from.send(msg.clone()));
        }
        for msg in &all {
            assert_eq!(&to.msg(conn).await, msg);
        }
    }
}

#[tokio::test]
async fn the_largest_frame_passes_and_takes_no_more_memory_than_it_has_bytes() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    let (mut b, mut a) = (End::accept(listener, &ca), End::dial(addr, ca.client("a")));
    let (conn, from_a) = (b.up().await, a.up().await);
    from_a.send(hello());
    let frame = Bytes::from(vec![7; frame::MAX_BYTES + frame::PREFIX]);
    from_a.send(Msg::Frame(frame.clone()));
    from_a.send(Msg::Frame(Bytes::from_static(b"next")));
    b.msg(conn.conn()).await;
    assert_eq!(b.msg(conn.conn()).await, Msg::Frame(frame));
    assert_eq!(b.msg(conn.conn()).await, Msg::Frame(Bytes::from_static(b"next")));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_on_both_ends() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (listener, addr) = listen().await;
    let mut b = End::accept(listener, &ca);
    // The dialler's certificate is foreign.
    let tls = link_client(&other.identity("a"), &ca.authority()).unwrap();
    let mut a = End::dial(addr, tls);
    assert!(matches!(b.failed().await, Ended::Tls(_)));
    assert!(matches!(a.failed().await, Ended::Tls(_) | Ended::Reset));
    drop(a);
    // The acceptor's is.
    let mut a = End::dial(addr, link_client(&ca.identity("a"), &other.authority()).unwrap());
    assert!(matches!(a.failed().await, Ended::Tls(_)));
}

#[tokio::test]
async fn a_certificate_of_another_node_is_refused_on_both_ends() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    let mut b = End::accept(listener, &ca);
    let mut a = End::dial(addr, ca.client("c"));
    assert_eq!(b.failed().await, Ended::Tls("the certificate does not bear the name a".into()));
    assert!(matches!(a.failed().await, Ended::Fin | Ended::Reset));
    drop(a);
    let (tell, mut events) = unbounded_channel();
    let name = ServerName::try_from("d").unwrap();
    let tell = move |event| _ = tell.send(event);
    let task = tokio::spawn(dial_forever(
        addr.to_string(),
        Arc::new(ca.client("a").into()),
        name,
        Wake::default(),
        tell,
    ));
    assert!(matches!(events.recv().await, Some(LinkEvent::Failed(Link::Out, Ended::Tls(_)))));
    task.abort();
}

/// That of the ports of clients bears the names of both nodes too.
#[tokio::test]
async fn who_has_the_key_of_the_ports_of_clients_is_not_taken_for_the_peer() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let ca = Ca::new();
    for (usages, is_peer) in [(vec![ServerAuth], false), (vec![ServerAuth, ClientAuth], true)] {
        let (listener, addr) = listen().await;
        let _b = End::accept_as(listener, &ca, &ca.identity_for("b", usages));
        let mut a = End::dial(addr, ca.client("a"));
        if is_peer {
            a.up().await;
        } else {
            assert!(matches!(a.failed().await, Ended::Tls(why) if why.contains("not for a link")));
        }
    }
}

#[tokio::test]
async fn nobody_gets_in_without_a_certificate() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    let mut b = End::accept(listener, &ca);
    let mut a = End::dial(addr, xmpp_core::tls::c2s_client(&ca.authority()).unwrap());
    assert!(matches!(b.failed().await, Ended::Tls(_)));
    assert!(matches!(a.failed().await, Ended::Tls(_) | Ended::Reset));
}

#[tokio::test]
async fn strangers_and_garbage_disturb_nobody() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    let (mut b, mut a) = (End::accept(listener, &ca), End::dial(addr, ca.client("a")));
    let (from_b, from_a) = (b.up().await, a.up().await);
    // More silent connections than there may be handshakes, some of them with bytes that are no TLS.
    let mut silent = Vec::new();
    for i in 0..100 {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        if i % 2 == 0 {
            socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        }
        silent.push(socket);
    }
    for _ in 0..50 {
        assert!(matches!(b.failed().await, Ended::Tls(_)));
    }
    assert!(from_a.send(hello()));
    assert_eq!(b.msg(from_b.conn()).await, hello());
    // And the peer itself is let in again past all of them.
    from_a.close();
    assert_eq!(a.down(from_a.conn()).await, Ended::Closed);
    assert_eq!(b.down(from_b.conn()).await, Ended::Fin);
    a.up().await;
    loop {
        match b.next().await {
            LinkEvent::Up(..) => break,
            LinkEvent::Failed(..) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_message_closes_the_connection_and_nothing_else() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    let mut b = End::accept(listener, &ca);
    let greeting = hello().encode().to_vec();
    let length = |n: usize| (n as u32).to_le_bytes().to_vec();
    let cases = [
        (vec![0; 4], "of 0 bytes"),
        (length(GREETING_BYTES + 1), "1048577 bytes"),
        (length(usize::MAX), "4294967295 bytes"),
        ([greeting.clone(), length(MAX_BYTES + 1)].concat(), "at most 67108928"),
        ([length(1), vec![99]].concat(), "cannot be read"),
        ([length(3), vec![2, 0, 0]].concat(), "cannot be read"),
        ([greeting.clone(), length(14), vec![4, 1, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]].concat(), ""),
    ];
    let tls = ca.client("a");
    for (bytes, said) in cases {
        let mut stream = raw(addr, tls.clone()).await;
        let sender = b.up().await;
        let conn = sender.conn();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        if bytes.starts_with(&greeting) {
            assert_eq!(b.msg(conn).await, hello());
        }
        match b.down(conn).await {
            Ended::Bad(why) => assert!(why.contains(said), "{why}"),
            other => panic!("{said}: {other:?}"),
        }
    }
    let mut a = End::dial(addr, tls);
    a.up().await;
    b.up().await;
}

#[tokio::test]
async fn random_bytes_from_the_peer_never_panic() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    let mut b = End::accept(listener, &ca);
    let tls = ca.client("a");
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..60 {
        let mut bytes = Vec::new();
        for msg in one_of_each() {
            let mut msg = msg.encode().to_vec();
            for _ in 0..random() % 3 {
                let at = random() as usize % msg.len();
                msg[at] = random() as u8;
            }
            bytes.extend(msg);
        }
        let mut stream = raw(addr, tls.clone()).await;
        let sender = b.up().await;
        let conn = sender.conn();
        // The other side may have closed before it has read all.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.flush().await;
        drop(stream);
        loop {
            match b.next().await {
                LinkEvent::Msg(of, _) => assert_eq!(of, conn),
                LinkEvent::Down(of, _) => break assert_eq!(of, conn),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_newer_connection_replaces_the_older_one() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    let mut b = End::accept(listener, &ca);
    let tls = ca.client("a");
    let mut first = raw(addr, tls.clone()).await;
    let old = b.up().await;
    first.write_all(&hello().encode()).await.unwrap();
    first.flush().await.unwrap();
    b.msg(old.conn()).await;
    let mut second = raw(addr, tls).await;
    assert_eq!(b.down(old.conn()).await, Ended::Replaced);
    let new = b.up().await;
    assert!(new.conn().generation > old.conn().generation);
    assert!(!old.send(Msg::Rewind(1)), "the old way leads nowhere");
    assert!(new.send(Msg::Rewind(2)));
    let mut got = [0; 13];
    second.read_exact(&mut got).await.unwrap();
    assert_eq!(got[..], Msg::Rewind(2).encode()[..]);
    // The loser's socket is closed.
    assert!(matches!(first.read(&mut got).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn the_end_of_a_process_and_a_reset_are_told_apart() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    let mut b = End::accept(listener, &ca);
    let tls = ca.client("a");
    for reset in [false, true] {
        let mut stream = raw(addr, tls.clone()).await;
        let sender = b.up().await;
        let conn = sender.conn();
        stream.write_all(&hello().encode()).await.unwrap();
        stream.write_all(&Msg::Fetch(9).encode()[..5]).await.unwrap();
        stream.flush().await.unwrap();
        // What came before the end is told first; half a message is not.
        assert_eq!(b.msg(conn).await, hello());
        let (socket, _) = stream.into_inner();
        if reset {
            socket.set_zero_linger().unwrap();
        }
        drop(socket);
        let ended = b.down(conn).await;
        assert_eq!(ended, if reset { Ended::Reset } else { Ended::Fin });
        assert!(ended.suggests_death());
    }
}

#[tokio::test]
async fn last_words_are_heard_before_the_end() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    let (mut b, mut a) = (End::accept(listener, &ca), End::dial(addr, ca.client("a")));
    let (from_b, from_a) = (b.up().await, a.up().await);
    let words = Msg::Control(Bytes::from_static(b"goodbye"));
    from_a.send(hello());
    from_a.send(words.clone());
    from_a.close();
    assert!(!from_a.send(Msg::Fetch(1)));
    b.msg(from_b.conn()).await;
    assert_eq!(b.msg(from_b.conn()).await, words);
    assert_eq!(b.down(from_b.conn()).await, Ended::Fin);
    assert_eq!(a.down(from_a.conn()).await, Ended::Closed);
    assert!(!Ended::Closed.suggests_death());
}

/// Both messages have arrived when the first is told, and for that this node closes the connection.
#[tokio::test]
async fn nothing_is_told_of_a_connection_that_this_node_has_closed() {
    let (here, mut there) = tokio::io::duplex(1 << 10);
    let words = [Msg::Rewind(1), Msg::Rewind(2)];
    for word in &words {
        there.write_all(&word.encode()).await.unwrap();
    }
    let (sender, told) = (RefCell::<Option<LinkSender>>::new(None), RefCell::new(Vec::new()));
    let events = |event: LinkEvent| match event {
        LinkEvent::Up(_, up) => *sender.borrow_mut() = Some(up),
        LinkEvent::Msg(_, msg) => {
            told.borrow_mut().push(msg);
            if let Some(up) = sender.borrow().as_ref() {
                up.close();
            }
        }
        LinkEvent::Down(_, ended) => assert_eq!(ended, Ended::Closed),
        LinkEvent::Failed(..) => panic!("{event:?}"),
    };
    let run = connection::run(Link::In, here, &[], std::future::pending(), &events);
    timeout(LIMIT, run).await.expect("it ends");
    assert_eq!(told.into_inner(), words[..1]);
}

#[tokio::test]
async fn a_connection_whose_sender_is_dropped_is_closed() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    let (mut b, mut a) = (End::accept(listener, &ca), End::dial(addr, ca.client("a")));
    let conn = b.up().await.conn();
    a.up().await;
    assert_eq!(b.down(conn).await, Ended::Closed);
}

#[tokio::test]
async fn the_dialler_comes_back_after_the_listener() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    drop(listener);
    let mut a = End::dial(addr, ca.client("a"));
    for _ in 0..3 {
        assert_eq!(a.failed().await, Ended::Refused);
    }
    for _ in 0..2 {
        let listener = TcpListener::bind(addr).await.unwrap();
        let mut b = End::accept(listener, &ca);
        let sender = loop {
            match a.next().await {
                LinkEvent::Up(_, sender) => break sender,
                LinkEvent::Failed(_, Ended::Refused) => {}
                other => panic!("{other:?}"),
            }
        };
        b.up().await;
        drop(b);
        assert!(a.down(sender.conn()).await.suggests_death());
    }
}

#[tokio::test]
async fn attempts_become_rare_and_a_wake_ends_the_pause() {
    let (ca, (listener, addr)) = (Ca::new(), listen().await);
    drop(listener);
    let mut a = End::dial(addr, ca.client("a"));
    // 50 + 100 + 200 + 400 + 800 ms lie between six attempts.
    let begun = Instant::now();
    for _ in 0..6 {
        assert_eq!(a.failed().await, Ended::Refused);
    }
    assert!(begun.elapsed() >= Duration::from_millis(1_500), "{:?}", begun.elapsed());
    sleep(Duration::from_millis(10)).await;
    let asked = Instant::now();
    a.wake.wake();
    assert_eq!(a.failed().await, Ended::Refused);
    assert!(asked.elapsed() < Duration::from_millis(900), "it did not wait for the second to pass");
}
