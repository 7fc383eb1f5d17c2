//! The notifier as a whole: who is told, and that nobody waits for another.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

use super::*;
use crate::config::{HostPort, Notify, Syslog, SyslogTo};
use crate::events::Severity;

/// Longest wait for what must come.
const LIMIT: Duration = Duration::from_secs(20);

/// An event as it is when a node died.
pub(super) fn record() -> Record {
    Record {
        number: 17,
        node: "a".into(),
        at_ms: 1_795_727_049_120,
        severity: Severity::Critical,
        event: "failover-complete".into(),
        row: Some(12),
        cause: "node crashed".into(),
        text: "The users of a are served by b.".into(),
        ..Record::default()
    }
}

/// The node that tells of it.
pub(super) fn sender() -> Sender {
    Sender { node: "b".into(), domain: "im.example".into() }
}

fn syslog(to: Vec<SyslogTo>, severity: Option<Severity>, events: &[&str]) -> Notify {
    let body = Template::parse("{text}").unwrap();
    let events: BTreeSet<String> = events.iter().map(|kind| (*kind).to_owned()).collect();
    let wants = Wants { severity, events };
    Notify { number: 1, wants, way: Way::Syslog(Syslog { to, facility: 3, body }) }
}

fn at(tcp: bool, address: std::net::SocketAddr) -> SyslogTo {
    SyslogTo { tcp, at: HostPort { host: address.ip().to_string(), port: address.port() } }
}

#[test]
fn who_is_told_is_said_by_severity_by_kind_or_by_both() {
    let wants = |severity, events| syslog(Vec::new(), severity, events).wants;
    let told = |wants: &Wants, severity, event: &str| {
        wants.takes(&Record { severity, event: event.into(), ..record() })
    };
    let by_severity = wants(Some(Severity::Warning), &[]);
    assert!(told(&by_severity, Severity::Warning, "x") && told(&by_severity, Severity::Critical, "x"));
    assert!(!told(&by_severity, Severity::Notice, "x"));
    let by_kind = wants(None, &["x"]);
    assert!(told(&by_kind, Severity::Info, "x") && !told(&by_kind, Severity::Critical, "y"));
    let by_both = wants(Some(Severity::Error), &["x"]);
    assert!(told(&by_both, Severity::Info, "x") && told(&by_both, Severity::Error, "y"));
    assert!(!told(&by_both, Severity::Warning, "y"));
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_holds_up_no_other_and_is_told_of() {
    // It takes connections, and not one of them is read.
    let stuck = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Nothing listens there any more.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to =
        vec![at(true, stuck.local_addr().unwrap()), at(true, dead), at(false, socket.local_addr().unwrap())];
    let config = [syslog(to, Some(Severity::Warning), &[])];
    let notifier = Notifier::start(&config, "b", "im.example", None).unwrap();
    let mut bytes = [0; 4096];
    for number in 1..=30 {
        notifier.tell(&Record { number, ..record() });
        let came = timeout(LIMIT, socket.recv(&mut bytes)).await.expect("it comes in time").unwrap();
        let text = String::from_utf8_lossy(&bytes[..came]).into_owned();
        assert!(text.contains(&format!(" id=\"a-{number}\" ")), "{text}");
    }
    let troubles = notifier.troubles();
    let [trouble] = troubles.as_slice() else { panic!("{troubles:?}") };
    let start = format!("events do not reach syslog at tcp://{dead}: Connection refused");
    assert!(trouble.starts_with(&start) && trouble.contains("30 wait and 0 were given up"), "{trouble}");
    let counts = notifier.counts();
    assert_eq!(counts[2].delivered + counts[2].waiting as u64, 30);
}

#[tokio::test]
async fn a_datagram_that_nobody_takes_is_told_again_once_somebody_does() {
    let address = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = [syslog(vec![at(false, address)], Some(Severity::Warning), &[])];
    let notifier = Notifier::start(&config, "b", "im.example", None).unwrap();
    notifier.tell(&record());
    let there_is_trouble = async {
        while notifier.troubles().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, there_is_trouble).await.expect("trouble is told");
    let socket = UdpSocket::bind(address).await.unwrap();
    let mut bytes = [0; 4096];
    timeout(LIMIT, socket.recv(&mut bytes)).await.expect("it comes once somebody listens").unwrap();
    assert!(notifier.settle(LIMIT).await);
    assert_eq!(notifier.troubles(), Vec::<String>::new());
}

#[tokio::test]
async fn a_connection_that_ended_is_made_anew_and_nothing_is_lost_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = [syslog(vec![at(true, listener.local_addr().unwrap())], Some(Severity::Warning), &[])];
    let notifier = Notifier::start(&config, "b", "im.example", None).unwrap();
    for number in 1..=3 {
        notifier.tell(&Record { number, ..record() });
        let (stream, _) = timeout(LIMIT, listener.accept()).await.expect("it connects").unwrap();
        let mut bytes = vec![0; 4096];
        loop {
            stream.readable().await.unwrap();
            match stream.try_read(&mut bytes) {
                Ok(read) => break bytes.truncate(read),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
        let text = String::from_utf8(bytes).unwrap();
        let (length, message) = text.split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), message.len());
        assert!(message.contains(&format!("id=\"a-{number}\"")), "{message}");
        assert!(notifier.settle(LIMIT).await);
        // The stream is dropped here: the receiver closes.
    }
    assert_eq!(notifier.counts()[0].delivered, 3);
}

#[tokio::test]
async fn dropping_the_notifier_ends_its_tasks() {
    let stuck = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = [syslog(vec![at(true, stuck.local_addr().unwrap())], Some(Severity::Warning), &[])];
    let notifier = Notifier::start(&config, "b", "im.example", None).unwrap();
    let queue = Arc::downgrade(&notifier.receivers[0].queue);
    notifier.tell(&record());
    let _connection = timeout(LIMIT, stuck.accept()).await.expect("it connects").unwrap();
    drop(notifier);
    let ended = async {
        while queue.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, ended).await.expect("the task ends");
}
