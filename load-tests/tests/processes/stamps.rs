//! The stamps of messages that waited (XEP-0203): whoever reads them in their order reads no time that goes back, although
//! the wall clock of the node that stored them did while it ran.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use client_sim::session::Event;
use client_sim::sm::Outgoing;
use load_tests::clock::Clock;
use load_tests::rig::{Nodes, Person, QUICK};
use srm::demo::pair::DOMAIN;
use xmpp_core::{Kind, Stanza};

const LIMIT: Duration = Duration::from_secs(30);
/// How far the clock falls behind, in seconds.
const BEHIND_S: i64 = 2 * 3_600;

/// Says something to who is not there, and waits until the server has taken it.
async fn say(sender: &mut Person, nodes: &Nodes, id: &str) {
    let bytes =
        format!("<message to='absent@{DOMAIN}' id='{id}' type='chat'><body>hi</body></message>").into();
    sender.session.send(Outgoing { id: id.into(), bytes, survives: true });
    let taken = |event: &Event| matches!(event, Event::Acknowledged { id: of } if of == id).then_some(());
    sender.next(nodes, id, taken).await;
}

/// Id and stamp of a message that waited.
fn waited(message: &Stanza) -> (String, String) {
    let delay = message.child("urn:xmpp:delay", "delay");
    let stamp = delay.as_ref().and_then(|delay| delay.attr("stamp")).map(str::to_owned);
    let id = message.head.id.as_deref().unwrap_or_default().to_owned();
    (id, stamp.unwrap_or_else(|| panic!("it waited: {message:?}")))
}

/// Node a stores messages before and after its clock falls two hours behind; then it dies, and b, whose clock is right,
/// stores more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_falls_behind_takes_no_stamp_back_nor_does_a_takeover() {
    let clock = Clock::compile().expect("the C compiler builds the shim");
    let mut nodes = Nodes::make(2, QUICK).await;
    let ahead = nodes.folder().join("clock");
    let mut command = Command::new("true");
    clock.preload(&mut command, &ahead).unwrap();
    for (key, value) in command.get_envs() {
        nodes.env(0, key.to_str().unwrap(), value.and_then(OsStr::to_str));
    }
    nodes.serve();
    for user in ["sender", "absent"] {
        nodes.user_add(0, user, 0).unwrap();
    }
    let mut sender = Person::with(&nodes, 0, "sender", |options| options.ack_every = 1);
    sender.parked(&nodes).await;
    say(&mut sender, &nodes, "before").await;

    Clock::set(&ahead, -BEHIND_S).unwrap();
    let noticed = Instant::now() + LIMIT;
    while !fs::read_to_string(nodes.log_file(0)).unwrap().contains("the wall clock was set") {
        assert!(Instant::now() < noticed, "node a does not see the jump\n{}", nodes.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    say(&mut sender, &nodes, "behind").await;

    nodes.kill(0).unwrap();
    say(&mut sender, &nodes, "taken-over").await;

    let mut absent = Person::with(&nodes, 1, "absent", |options| options.ack_every = 1);
    let mut came = Vec::new();
    while came.len() < 3 {
        let message = |event: &Event| match event {
            Event::Stanza(stanza) if stanza.head.kind == Kind::Message => Some(waited(stanza)),
            _ => None,
        };
        came.push(absent.next(&nodes, "what waited", message).await);
    }
    let ids: Vec<&str> = came.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["before", "behind", "taken-over"]);
    // They have one length and end with Z: as texts they are in the order of their times.
    assert!(came.is_sorted_by_key(|(_, stamp)| stamp), "{came:?}");
}
