//! What operators hear: events of two real nodes under load, on both, and told to somebody; and a restart that nobody takes for
//! a death.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use load_tests::rig::{Load, Nodes, QUICK, Rig, seed, tandem};
use srm::cli::Client;
use srm::events::Record;

const LIMIT: Duration = Duration::from_secs(30);

fn client(rig: &Rig, node: usize) -> Client {
    let made = &rig.pair.made.nodes[node];
    Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"))
}

fn events(rig: &Rig, node: usize) -> Vec<Record> {
    client(rig, node).events(0, 1_000, 0).unwrap_or_else(|failure| panic!("{failure:?}\n{}", rig.logs()))
}

fn last<'a>(events: &'a [Record], kind: &str) -> Option<&'a Record> {
    events.iter().rev().find(|record| record.event == kind)
}

/// All of them, when there is one of this kind: a row is shown before the event of it is written.
fn until_told(rig: &Rig, node: usize, kind: &str) -> Vec<Record> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let all = events(rig, node);
        if last(&all, kind).is_some() || Instant::now() > deadline {
            return all;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The next message of syslog that holds all of these words.
fn hear(socket: &UdpSocket, words: &[&str], rig: &Rig) -> String {
    let deadline = Instant::now() + LIMIT;
    let mut bytes = [0; 4_096];
    loop {
        assert!(Instant::now() < deadline, "{words:?} is not told\n{}", rig.logs());
        let Ok(length) = socket.recv(&mut bytes) else { continue };
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if words.iter().all(|word| text.contains(word)) {
            return text;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_is_told_on_both_nodes_and_to_who_asked_for_it_and_a_restart_is_none() {
    let seed = seed();
    let load = Load { users: 12, plain: 0.25, interval: Duration::from_millis(100), seed };
    let mut rig = Rig::start(2, load, QUICK, &[]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let to = socket.local_addr().unwrap();
    for node in 0..2 {
        let mut file = OpenOptions::new().append(true).open(&rig.pair.made.nodes[node].config).unwrap();
        write!(file, "\n[[notify]]\nby = \"syslog\"\nto = \"udp://{to}\"\nseverity = \"notice\"\n").unwrap();
        let done = client(&rig, node).reload().unwrap_or_else(|failure| panic!("{failure:?}"));
        assert!(done.restart.is_empty(), "{done:?}");
    }
    hear(&socket, &["a tandem", "reloaded"], &rig);

    rig.kill(0);
    rig.clients_go_on(LIMIT).await;
    hear(&socket, &["b tandem", "peer-down", "a is held to be gone"], &rig);
    let told = hear(&socket, &["b tandem", "failover-complete", "b serves the users of a"], &rig);
    assert!(told.contains("row=\"17\"") && told.contains("users: 6"), "{told}");
    let of_b = events(&rig, 1);
    let takeover = last(&of_b, "failover-complete").unwrap();
    assert_eq!((takeover.row, takeover.users), (Some(17), Some(6)));
    assert_eq!(takeover.cause, "node stopped or crashed");
    assert_eq!(takeover.states["a"].0, "down");
    let numbers: Vec<u64> = of_b.iter().map(|record| record.number).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "without gaps: {numbers:?}");

    let before = rig.pair.made.nodes[0].config.clone();
    rig.pair.start(0).unwrap();
    rig.until_paired(LIMIT);
    let of_a = until_told(&rig, 0, "failover-found");
    let found = last(&of_a, "failover-found").unwrap_or_else(|| panic!("{of_a:#?}\n{}", before.display()));
    assert_eq!((found.users, found.row), (Some(6), Some(103)), "a dead node writes its own on return");
    let starts: Vec<u64> = of_a.iter().filter(|r| r.event == "started").map(|r| r.number).collect();
    assert!(starts.len() == 2 && starts[0] == 1 && starts[1] > 2, "numbers go on: {starts:?}");
    rig.fallback(0).await;
    for node in 0..2 {
        let all = until_told(&rig, node, "fallback-complete");
        let back = last(&all, "fallback-complete").unwrap_or_else(|| panic!("{all:#?}"));
        assert_eq!((back.row, back.cause.as_str()), (Some(1), "operator"));
    }
    restarts(&mut rig).await;
    for node in 0..2 {
        each_has_a_row(&events(&rig, node), 101);
    }
    rig.settle().await;
}

/// Each event bears a row, and those of a process that has just started the row of a start.
#[track_caller]
fn each_has_a_row(events: &[Record], start: u32) {
    let without: Vec<_> = events.iter().filter(|record| record.row.is_none()).collect();
    assert!(without.is_empty(), "{without:#?}");
    let starts: Vec<_> =
        events.iter().filter(|r| r.event == "started").map(|r| (r.row, r.states.is_empty())).collect();
    assert!(!starts.is_empty() && starts.iter().all(|told| *told == (Some(start), false)), "{starts:?}");
}

/// Node b is restarted, asked for at a.
async fn restarts(rig: &mut Rig) {
    assert!(rig.fleet.all_parked(LIMIT).await, "parking: {:?}", rig.fleet.snapshot());
    let run = |rig: &Rig| rig.pair.status(1).map(|status| status.nodes[1].run);
    let (pid, first) = (rig.pair.pid(1), run(rig));
    let seen = events(rig, 0).last().map_or(0, |record| record.number);
    rig.mark_fault(1);
    client(rig, 0).restart("b").unwrap_or_else(|failure| panic!("{failure:?}"));
    let deadline = Instant::now() + LIMIT;
    while run(rig).is_none_or(|now| Some(now) == first) {
        assert!(Instant::now() < deadline, "{}", rig.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(rig.pair.pid(1), pid, "the same process");
    rig.clients_go_on(LIMIT).await;
    rig.until_paired(LIMIT);
    rig.until(0, LIMIT, "Normal", |status| status.row == Some(1));
    let new = client(rig, 0).events(seen, 1_000, 0).unwrap_or_else(|failure| panic!("{failure:?}"));
    assert!(last(&new, "peer-restarts").is_some(), "{new:#?}");
    let asked = last(&new, "asked").unwrap_or_else(|| panic!("{new:#?}"));
    assert!(asked.asked_by.ends_with(" at node a"), "whoever runs this test: {asked:?}");
    assert_eq!(asked.text, format!("restart of b was asked for by {}", asked.asked_by));
    for kind in ["peer-down", "failover-complete", "failover-began"] {
        assert!(last(&new, kind).is_none(), "{new:#?}");
    }
    rig.traffic(50).await;
}

/// `tandem events --follow`, which ends with this.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(config: &Path, more: &[&str]) -> Follower {
        let mut command = Command::new(tandem());
        command.args(["events", "--follow", "--last", "1", "-c"]).arg(config).args(more);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        thread::spawn(move || said.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
        Follower { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("nothing is shown within {LIMIT:?}"))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_is_shown_what_happens_later_once_and_in_its_order() {
    const LATER: &str = "a reload of the configuration was asked for";
    let nodes = Nodes::start(1, QUICK).await;
    let made = &nodes.made.nodes[0];
    let api = Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"));
    let for_people = Follower::start(&made.config, &[]);
    let for_programs = Follower::start(&made.config, &["--json"]);
    let record = |line: String| {
        serde_json::from_str::<Record>(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    // Each shows the last event that there was, and waits.
    assert!(!for_people.next().contains(LATER));
    let mut last = record(for_programs.next());
    for _ in 0..2 {
        api.reload().unwrap_or_else(|failure| panic!("{failure:?}"));
        while !for_people.next().contains(LATER) {}
        loop {
            let next = record(for_programs.next());
            assert_eq!(next.number, last.number + 1, "{last:?}, then {next:?}");
            last = next;
            if last.text.contains(LATER) {
                break;
            }
        }
    }
    assert_eq!(last.event, "asked");
    let all = api.events(0, 1_000, 0).unwrap_or_else(|failure| panic!("{failure:?}"));
    each_has_a_row(&all, 121);
}
