//! The ports between the nodes. Whoever is not the peer gets nothing from them, and changes nothing.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use load_tests::siege::{Attacker, LIMIT, Siege};
use presence_engine::ids::NodeIx;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use session_mover::msg::{Hello, Msg, VERSIONS};
use session_mover::runs::Runs;
use srm::config::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xmpp_core::tls::{self, Authority, Identity};

fn config(siege: &Siege, node: usize) -> Config {
    Config::load(&siege.rig.pair.made.nodes[node].config).expect("the node's configuration")
}

fn link(siege: &Siege, node: usize) -> SocketAddr {
    config(siege, node).link.expect("a link").listen
}

/// TLS to the link of `a` with this certificate, as the link makes it; then garbage. Whether the server let it in.
async fn knock(siege: &Siege, client: Arc<rustls::ClientConfig>, garbage: &[u8]) -> bool {
    let tcp = TcpStream::connect(link(siege, 0)).await.expect("the link listens");
    let name = rustls::pki_types::ServerName::try_from("a").unwrap();
    let Ok(mut stream) = tokio_rustls::TlsConnector::from(client).connect(name, tcp).await else {
        return false;
    };
    let _ = stream.write_all(garbage).await;
    let mut answer = [0; 1];
    // In TLS 1.3 a client learns with its first read that its certificate was refused.
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer)).await;
    matches!(read.expect("an answer or the end"), Ok(n) if n > 0)
}

/// A certificate for `name` of an authority of one's own.
fn stranger(name: &str) -> Identity {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    Identity::from_pem(&cert.pem(), &key.serialize_pem()).unwrap()
}

/// Mutual TLS that fails closed: no certificate, one of another authority, one of the cluster with the wrong name. And
/// garbage of every kind, on the link's port, on the life socket, and as beacons.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s31_link() {
    let siege = Siege::begin(2, &[]).await;
    let before = [siege.rss(0), siege.rss(1)];
    let mut rng = StdRng::seed_from_u64(31);
    let mut noise = vec![0; 100_000];
    rng.fill_bytes(&mut noise);
    let a = config(&siege, 0).link.unwrap();
    let authority = Authority::load(&a.ca).unwrap();
    // Of the cluster, but not the peer's: a's own, shown to a.
    let own = Identity::load(&a.cert, &a.key).unwrap();
    let with = |identity: &Identity| tls::link_client(identity, &authority).unwrap();
    for garbage in [&b""[..], b"\0\0\0\0", &[0xff; 64], &noise] {
        assert!(!knock(&siege, with(&stranger("b")), garbage).await, "a certificate of another authority");
        assert!(!knock(&siege, with(&own), garbage).await, "a certificate with another name");
        assert!(!knock(&siege, siege.tls(), garbage).await, "no certificate");
    }
    for port in [link(&siege, 0), link(&siege, 1)] {
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"<stream:stream>", &noise] {
            Attacker::clear(port).await.end_of(garbage).await;
        }
        // Who connects and says nothing, in numbers, does not keep the peer out: the link is there already.
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(Attacker::clear(port).await);
        }
        let life = SocketAddr::new(port.ip(), port.port() + 1);
        let _ = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(life)).await;
    }
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0..50_000_usize {
        let to = link(&siege, round % 2);
        let length = [0, 1, 2, 20, 150, 1_400][round % 6];
        let mut datagram = noise[round..round + length].to_vec();
        if round % 3 == 0 && length > 4 {
            datagram[..4].copy_from_slice(b"TDM1");
        }
        let _ = udp.send_to(&datagram, to);
        if round % 1_000 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    for (node, before) in before.into_iter().enumerate() {
        let status = siege.rig.pair.status(node).expect("the node answers");
        assert!(srm::demo::pair::protected(&status), "{status:?}\n{}", siege.rig.logs());
        let grown = siege.rss(node).saturating_sub(before);
        assert!(grown < 32 << 20, "{grown} bytes more");
    }
    siege.end().await;
}

/// The peer itself, gone mad: its certificate is good, what it says is not. The link is cut and made again; nobody else
/// notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s31_garbage_under_a_good_certificate() {
    let siege = Siege::begin(2, &[]).await;
    let before = siege.rss(0);
    let b = config(&siege, 1).link.unwrap();
    let (identity, authority) = (Identity::load(&b.cert, &b.key).unwrap(), Authority::load(&b.ca).unwrap());
    let mut rng = StdRng::seed_from_u64(13);
    for round in 0..40 {
        let mut garbage = vec![0; [0, 1, 4, 40, 4_000, 400_000][round % 6]];
        rng.fill_bytes(&mut garbage);
        // Lengths that promise more than ever comes, and small ones that do not fit what is in them.
        if round % 3 == 0 && garbage.len() > 4 {
            garbage[..4]
                .copy_from_slice(&[[0xff, 0xff, 0xff, 0x7f], [0, 0, 0, 1], [2, 0, 0, 0]][round % 9 / 3]);
        }
        knock(&siege, tls::link_client(&identity, &authority).unwrap(), &garbage).await;
    }
    siege.rig.until_paired(LIMIT);
    let grown = siege.rss(0).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    siege.end().await;
}

/// A process with the peer's certificate that greets as somebody else: a node of another version, of another cluster, or
/// of this node's own name. It is turned away, and the operator of `a` is told what is wrong; the peer itself is welcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_that_does_not_fit_is_refused_with_words() {
    let mut siege = Siege::begin(2, &[]).await;
    let b = config(&siege, 1).link.unwrap();
    let (identity, authority) = (Identity::load(&b.cert, &b.key).unwrap(), Authority::load(&b.ca).unwrap());
    let client = tls::link_client(&identity, &authority).unwrap();
    siege.rig.kill(1);
    siege.rig.clients_go_on(LIMIT).await;
    let hello = Hello {
        versions: VERSIONS,
        cluster: b.secret.cluster_id(),
        node: NodeIx::B,
        boot: 77,
        regs: [None, None],
        runs: Runs::default(),
    };
    let (oldest, newest) = VERSIONS;
    let wrong = [
        (
            Hello { versions: (newest + 1, newest + 3), ..hello.clone() },
            "speaks another version of the link: upgrade",
        ),
        (Hello { versions: (0, oldest - 1), ..hello.clone() }, "speaks another version of the link: upgrade"),
        (Hello { cluster: 1, ..hello.clone() }, "disk belongs to another cluster"),
        (Hello { node: NodeIx::A, ..hello }, "both nodes have the same name"),
    ];
    for (hello, words) in wrong {
        // It is let in by its certificate, and hears no greeting.
        // Once may be a node that changes its role.
        for _ in 0..2 {
            assert!(knock(&siege, client.clone(), &Msg::Hello(hello.clone()).encode()).await);
        }
        let told = |s: &srm::admin::Status| s.alarms.iter().any(|alarm| alarm.contains(words));
        siege.rig.until(0, LIMIT, words, told);
    }
    siege.rig.pair.start(1).unwrap();
    siege.rig.until_paired(LIMIT);
    siege.rig.fallback(1).await;
    siege.rig.settle().await;
}
