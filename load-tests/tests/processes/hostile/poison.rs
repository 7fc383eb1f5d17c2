//! An input that ends whichever node handles it (D15). The bug is a real panic of the engine's, asked for by the
//! environment of both nodes, and it is there for good.

use std::time::{Duration, Instant};

use load_tests::siege::{Attacker, MALLORY, Siege};
use srm::cli::Client;
use srm::events::{Record, Severity};

const LIMIT: Duration = Duration::from_secs(30);
const SM: &str = "urn:xmpp:sm:3";

async fn enabled(session: &mut Attacker) -> String {
    session.say(&format!("<enable xmlns='{SM}' resume='true'/>")).await;
    session.until("<enabled ").await;
    let rest = session.until(">").await;
    rest.split_once(" id='").expect("an id").1.split_once('\'').expect("an end").0.to_owned()
}

/// Resumes the session at a node, however long nobody may serve it.
async fn resumed(siege: &Siege, node: usize, id: &str, h: u32) -> Attacker {
    let mut one = siege.logged_in(node).await;
    one.say(&format!("<resume xmlns='{SM}' previd='{id}' h='{h}'/>")).await;
    one.until("<resumed ").await;
    one.until(">").await;
    one
}

/// Waits for the end of a node's process, which it must bring about itself.
async fn dies(siege: &mut Siege, node: usize) {
    siege.rig.mark_fault(node);
    let status = siege.rig.pair.wait(node, LIMIT).expect("it ends");
    assert!(!status.success(), "{status:?}");
}

/// Starts what does not run, as a supervisor does, until both nodes form a pair; how many starts it took.
async fn supervised(siege: &mut Siege) -> u32 {
    let (mut starts, deadline) = (0, Instant::now() + LIMIT);
    loop {
        for node in 0..2 {
            if siege.rig.pair.ended(node) {
                siege.rig.pair.start(node).expect("it starts");
                starts += 1;
            }
        }
        let paired = |node| {
            let status = siege.rig.pair.status(node);
            status.is_some_and(|s| s.groups.iter().all(|g| g.mode == "Pair") && s.alarms.is_empty())
        };
        if paired(0) && paired(1) {
            return starts;
        }
        assert!(Instant::now() < deadline, "no pair after {starts} starts\n{}", siege.rig.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn refusals(siege: &Siege) -> usize {
    let logs = (0..2).map(|node| std::fs::read_to_string(siege.rig.pair.log_file(node)).unwrap_or_default());
    logs.map(|log| log.matches("input refused").count()).sum()
}

/// What the nodes' operators see of it.
fn told(siege: &Siege) -> Vec<Record> {
    let of = |node: usize| {
        let made = &siege.rig.pair.made.nodes[node];
        let client = Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"));
        client.events(0, 1_000, 0).unwrap_or_else(|failure| panic!("{failure:?}\n{}", siege.rig.logs()))
    };
    (0..2).flat_map(of).filter(|record| record.event == "input-refused").collect()
}

/// A client sends it, to one node and then to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d15_a_stanza_that_ends_both_nodes_ends_each_once() {
    let mut siege = Siege::begin_with(2, &[], &[("TANDEM_PANIC_AT", "element:MANDRAKE")]).await;
    let poison = "<message to='victim@demo.example' id='m'><body>MANDRAKE</body></message>";
    let mut one = siege.session("x").await;
    let id = enabled(&mut one).await;
    one.say(poison).await;
    dies(&mut siege, 0).await;
    siege.rig.clients_go_on(LIMIT).await;
    // It was never counted, so its client sends it again.
    let mut one = resumed(&siege, 1, &id, 0).await;
    one.say(poison).await;
    dies(&mut siege, 1).await;
    assert_eq!(supervised(&mut siege).await, 2);
    siege.rig.clients_go_on(LIMIT).await;
    let mut one = resumed(&siege, 0, &id, 0).await;
    let last = one.end_of(poison.as_bytes()).await;
    assert!(last.contains("<a xmlns='urn:xmpp:sm:3' h='1'/>"), "it counts as handled: {last}");
    assert!(last.contains("<internal-server-error "), "{last}");
    // Its session is gone, the account is not.
    let mut one = siege.logged_in(1).await;
    one.say(&format!("<resume xmlns='{SM}' previd='{id}' h='0'/>")).await;
    one.until("<item-not-found ").await;
    let mut one = siege.session("x").await;
    one.say("<iq type='get' id='alive'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    one.until("id='alive'").await;
    assert!(!siege.rig.pair.ended(0) && !siege.rig.pair.ended(1), "{}", siege.rig.logs());
    assert_eq!(refusals(&siege), 1);
    let told = told(&siege);
    let [refused] = &told[..] else { panic!("one node tells it, once: {told:#?}") };
    let text = "was being handled when nodes crashed; report this bug with their logs";
    assert!(refused.text.starts_with("input refused: ") && refused.text.ends_with(text), "{refused:?}");
    assert_eq!(refused.severity, Severity::Error);
    siege.rig.settle().await;
}

/// It is in the log of one node and ends the other, and then whoever takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d15_a_record_that_ends_both_nodes_is_done_and_its_sender_told() {
    let mut siege = Siege::begin_with(2, &[], &[("TANDEM_PANIC_AT", "forward:MANDRAKE")]).await;
    siege.rig.pair.user_add(0, "eve", 1).expect("an account at home on the other node");
    let mut one = siege.session("x").await;
    let id = enabled(&mut one).await;
    one.say("<message to='eve@demo.example' id='m' type='chat'><body>MANDRAKE</body></message>").await;
    dies(&mut siege, 1).await;
    dies(&mut siege, 0).await;
    let starts = supervised(&mut siege).await;
    assert!(starts <= 4, "{starts} starts");
    siege.rig.clients_go_on(LIMIT).await;
    // Whether it was told so or not: the stanza counts.
    let mut one = siege.logged_in(0).await;
    one.say(&format!("<resume xmlns='{SM}' previd='{id}' h='0'/>")).await;
    one.until("<resumed ").await;
    let said = one.until("</message>").await;
    assert!(said.contains(&format!("to='{MALLORY}@demo.example/x'")) && said.contains("id='m'"), "{said}");
    assert!(said.contains("type='error'") && said.contains("<internal-server-error "), "{said}");
    assert!(said.contains("h='1'"), "{said}");
    one.say("<message to='eve@demo.example' id='n' type='chat'><body>hi</body></message>").await;
    let mut eve = siege.session_of("eve", "y").await;
    eve.say("<presence/>").await;
    let got = eve.until("</message>").await;
    assert!(got.contains("id='n'") && !got.contains("MANDRAKE"), "{got}");
    assert!(refusals(&siege) >= 1);
    assert!(!told(&siege).is_empty());
    siege.rig.settle().await;
}
