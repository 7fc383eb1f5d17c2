//! Administrators are told of events by messages of their own server: whoever is there at once, at either node, who comes
//! later then, and from the other node if the one that told has gone.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use client_sim::session::Event;
use load_tests::rig::{Nodes, Person, QUICK, last_lines};
use rustix::process::Signal;
use srm::cli::Client;
use srm::demo::pair::{DOMAIN, Pair};
use xmpp_core::{Kind, Stanza, ns};

const LIMIT: Duration = Duration::from_secs(30);

/// The next message whose text holds these words: from the server, with its subject.
async fn reads(person: &mut Person, pair: &Pair, words: &[&str]) -> Stanza {
    let what = format!("{words:?}");
    let message = person.next(pair, &what, |event| match event {
        Event::Stanza(stanza) if stanza.head.kind == Kind::Message => {
            let body = stanza.child(ns::CLIENT, "body")?.text;
            words.iter().all(|word| body.contains(word)).then(|| stanza.clone())
        }
        _ => None,
    });
    let message = message.await;
    assert_eq!(message.head.from.as_ref().map(|from| from.as_str()), Some(DOMAIN));
    assert!(message.child(ns::CLIENT, "subject").is_some_and(|subject| subject.text.starts_with("of ")));
    message
}

fn client(pair: &Pair, node: usize) -> Client {
    let made = &pair.made.nodes[node];
    Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"))
}

fn until(pair: &Pair, what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}\n{}", last_lines(pair));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn reload(pair: &Pair, node: usize) {
    client(pair, node).reload().unwrap_or_else(|failure| panic!("{failure:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_read_of_events_wherever_they_are_and_whenever_they_come() {
    let mut pair = Nodes::start(2, QUICK).await;
    pair.user_add(0, "admin", 0).unwrap();
    pair.user_add(0, "late", 1).unwrap();
    for node in 0..2 {
        let mut file = OpenOptions::new().append(true).open(&pair.made.nodes[node].config).unwrap();
        let to = ["admin", "late", "nobody"].map(|name| format!("\"{name}@{DOMAIN}\"")).join(", ");
        write!(
            file,
            "\n[[notify]]\nby = \"xmpp\"\nto = [{to}]\nevents = [\"reloaded\", \"peer-down\"]\n\
             subject = \"of {{source}}\"\nbody = \"{{node}} tells: {{event}}, {{text}}\"\n"
        )
        .unwrap();
        reload(&pair, node);
    }

    // One account is not there, and each node says so, by an alarm that does not grow.
    let alarm = format!("notify.1.to: there is no account nobody@{DOMAIN}");
    for node in 0..2 {
        let named = |alarms: &[String]| alarms.iter().filter(|text| text.starts_with(&alarm)).count();
        until(&pair, &alarm, || pair.status(node).is_some_and(|status| named(&status.alarms) == 1));
        // The metric counts it as well.
        until(&pair, "as many alarms in the metric", || {
            let shown = pair.status(node).map_or(0, |status| status.alarms.len());
            let metrics = client(&pair, node).metrics().unwrap_or_else(|failure| panic!("{failure:?}"));
            metrics.lines().any(|line| line == format!("tandem_node_alarms {shown}"))
        });
    }

    // Both nodes tell, whoever's home it is.
    let mut admin = Person::at(&pair, 0, "admin");
    admin.bound(&pair).await;
    for (node, name) in [(0, "a"), (1, "b")] {
        reload(&pair, node);
        reads(&mut admin, &pair, &[&format!("{name} tells: reloaded"), "the configuration was read again"])
            .await;
    }

    // The node that told ends, and was the home of who comes later: the other has it all.
    pair.signal(1, Signal::TERM).unwrap();
    pair.wait(1, LIMIT).unwrap();
    reads(&mut admin, &pair, &["a tells: peer-down", "b is held to be gone"]).await;
    let mut late = Person::at(&pair, 0, "late");
    late.bound(&pair).await;
    let mut waited = vec!["a tells: reloaded", "b tells: reloaded", "a tells: peer-down"];
    let mut ids = BTreeSet::new();
    while !waited.is_empty() {
        let message = reads(&mut late, &pair, &["tells"]).await;
        assert!(message.head.has_child("urn:xmpp:delay", "delay"), "it waited: {message:?}");
        assert!(ids.insert(message.head.id.clone()), "told twice: {message:?}");
        let body = message.child(ns::CLIENT, "body").unwrap().text;
        waited.retain(|words| !body.starts_with(words));
    }

    // With the peer gone.
    reload(&pair, 0);
    reads(&mut late, &pair, &["a tells: reloaded"]).await;
    let trouble = pair.status(0).unwrap().alarms;
    let alarms = trouble.iter().filter(|text| text.contains("nobody@")).count();
    assert!(alarms <= 2, "{trouble:?}");
}
