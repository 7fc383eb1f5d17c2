//! A real etcd in the place of the witness, asked by two nodes' sessions: the rules of the witness hold there, whatever
//! becomes of members, sessions and answers.

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use load_tests::foreign::etcd::{Etcd, endpoint};
use presence_engine::ids::{Group, Mode, NodeIx, Reg, Term};
use srm::config::{EtcdAt, Login};
use srm::witness::etcd::{Dial, Session};
use srm::witness::words::{Ask, Verdict};

const A: NodeIx = NodeIx::A;
const B: NodeIx = NodeIx::B;
const LIMIT: Duration = Duration::from_secs(30);

fn reg(term: u64, primary: NodeIx, mode: Mode) -> Reg {
    Reg { term: Term(term), primary, mode, settled: Term(0) }
}

fn pair(term: u64) -> Reg {
    reg(term, A, Mode::Pair)
}

fn solo(term: u64, primary: NodeIx) -> Reg {
    reg(term, primary, Mode::Solo)
}

fn dial(etcd: &Etcd, me: NodeIx) -> Dial {
    let file = |name: &str| etcd.folder().join(name);
    let at = EtcdAt {
        endpoints: etcd.members.iter().map(endpoint).collect(),
        ca: file("ca.pem"),
        identity: Some((file("etcd.pem"), file("etcd.key"))),
        login: None,
        prefix: "/tandem".into(),
    };
    Dial { at, cluster: 7, nodes: ["a".into(), "b".into()], me }
}

fn begin(etcd: &Etcd, me: NodeIx) -> Session {
    let dial = dial(etcd, me);
    Session::begin(&dial, &dial.at.endpoints[0]).expect("a session")
}

fn refused(dial: &Dial) -> String {
    match Session::begin(dial, &dial.at.endpoints[0]) {
        Ok(_) => panic!("it is welcome"),
        Err(why) => why,
    }
}

fn report(session: &mut Session, reg: Reg) {
    session.on(Ask::Report([reg, reg])).expect("a report");
}

fn cas(session: &mut Session, expected: Reg, new: Reg) -> Result<Verdict, String> {
    let ask = Ask::Cas { group: A as Group, request: 1, expected, new };
    session.on(ask).map(|verdict| verdict.expect("a verdict"))
}

/// Both agree on what there is.
fn agreed(etcd: &Etcd, reg: Reg) -> (Session, Session) {
    let (mut a, mut b) = (begin(etcd, A), begin(etcd, B));
    report(&mut a, reg);
    report(&mut b, reg);
    assert_eq!(b.undecided(), [None, None]);
    (a, b)
}

/// The register of the first group as etcd has it.
fn kept(etcd: &Etcd, key: &str) -> Option<serde_json::Value> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD;
    let key = text.encode(format!("/tandem/{:016x}/{key}", 7));
    let said = etcd.ask(0, "kv/range", &format!("{{\"key\":\"{key}\"}}")).expect("it answers");
    let value = said.pointer("/kvs/0/value")?.as_str().expect("a text");
    serde_json::from_slice(&text.decode(value).expect("base64")).expect("JSON")
}

#[test]
fn of_two_who_ask_one_wins_and_the_other_hears_what_is() {
    let etcd = Etcd::start(1);
    let (mut a, mut b) = agreed(&etcd, pair(4));
    assert_eq!(cas(&mut b, pair(4), solo(7, B)), Ok(Verdict::Won));
    assert_eq!(cas(&mut a, pair(4), solo(6, A)), Ok(Verdict::Lost(solo(7, B))));
    assert_eq!(cas(&mut b, pair(4), solo(7, B)), Ok(Verdict::Won), "asked again: the answer was lost");
    assert_eq!(kept(&etcd, "register/a").unwrap()["term"], 7);
    assert_eq!(kept(&etcd, "register/b").unwrap()["term"], 4, "the other group is as it was");
}

/// A connection on which no answer comes is given up: the question is put again by another session.
#[test]
fn what_was_granted_and_not_heard_is_granted_to_the_next_session_of_the_same_node() {
    let etcd = Etcd::start(1);
    let (mut a, mut b) = agreed(&etcd, pair(4));
    assert_eq!(cas(&mut b, pair(4), solo(7, B)), Ok(Verdict::Won));
    assert_eq!(kept(&etcd, "register/a").unwrap()["term"], 7, "it was granted");
    let mut anew = begin(&etcd, B);
    report(&mut anew, pair(4));
    assert_eq!(cas(&mut anew, pair(4), solo(7, B)), Ok(Verdict::Won));
    assert_eq!(cas(&mut a, pair(4), solo(6, A)), Ok(Verdict::Lost(solo(7, B))));
    assert_eq!(kept(&etcd, "register/a").unwrap()["term"], 7, "and nothing was changed by that");
}

#[test]
fn of_two_who_ask_at_the_same_moment_one_wins_each_time() {
    let etcd = Etcd::start(1);
    let (mut a, mut b) = agreed(&etcd, pair(4));
    let (mut now, start) = (pair(4), Barrier::new(2));
    let mut won = [0; 2];
    for _ in 0..100 {
        let next = |node| solo(now.term.next(Term(0), node).0, node);
        let ask = |session: &mut Session, node| {
            start.wait();
            cas(session, now, next(node)).expect("an answer")
        };
        let (one, other) = thread::scope(|scope| {
            let one = scope.spawn(|| ask(&mut a, A));
            (ask(&mut b, B), one.join().expect("an answer"))
        });
        let (winner, loser, heard) = match (one, other) {
            (Verdict::Won, Verdict::Lost(heard)) => (B, A, heard),
            (Verdict::Lost(heard), Verdict::Won) => (A, B, heard),
            both => panic!("{both:?}"),
        };
        assert_eq!(heard, next(winner), "{loser:?} hears who it is");
        won[winner.index()] += 1;
        now = next(winner);
    }
    println!("won: {won:?}");
}

#[test]
fn an_empty_etcd_decides_nothing_until_both_nodes_agree() {
    let mut etcd = Etcd::start(1);
    let (mut a, mut b) = agreed(&etcd, pair(4));
    etcd.kill(0);
    etcd.empty(0);
    etcd.run(0);
    etcd.wait(0);
    let why = cas(&mut b, pair(4), solo(7, B)).unwrap_err();
    assert!(why.contains("is gone"), "{why}");
    a.on(Ask::Report([pair(4); 2])).unwrap_err();
    let mut b = begin(&etcd, B);
    report(&mut b, pair(4));
    assert!(b.undecided()[0].as_ref().unwrap().contains("it has no register yet"), "{:?}", b.undecided());
    assert_eq!(cas(&mut b, pair(4), solo(7, B)), Ok(Verdict::Undecided), "one alone may be behind");
    let mut a = begin(&etcd, A);
    report(&mut a, solo(6, A));
    assert_eq!(cas(&mut b, pair(4), solo(7, B)), Ok(Verdict::Undecided), "it is");
    report(&mut b, solo(6, A));
    assert_eq!(b.undecided(), [None, None]);
    assert_eq!(kept(&etcd, "register/a").unwrap()["term"], 6);
}

#[test]
fn a_later_value_of_a_node_keeps_the_other_from_going_on() {
    let etcd = Etcd::start(1);
    let (mut a, mut b) = agreed(&etcd, pair(4));
    // The operator overruled it.
    report(&mut a, solo(8, A));
    assert_eq!(cas(&mut b, pair(4), solo(7, B)), Ok(Verdict::Undecided));
    assert_eq!(
        cas(&mut a, solo(8, A), pair(10)),
        Ok(Verdict::Won),
        "who knows the latest goes on from there"
    );
}

#[test]
fn what_an_earlier_session_sent_changes_nothing() {
    let etcd = Etcd::start(1);
    let (mut old, mut b) = agreed(&etcd, pair(4));
    report(&mut old, pair(4));
    let mut new = begin(&etcd, A);
    // It has not looked since: its transaction itself fails.
    let why = cas(&mut old, pair(4), solo(6, A)).unwrap_err();
    assert!(why.contains("connected anew"), "{why}");
    old.on(Ask::Report([solo(8, A); 2])).unwrap_err();
    assert_eq!(kept(&etcd, "register/a").unwrap()["term"], 4);
    let said = cas(&mut b, pair(4), solo(7, B));
    assert_eq!(said, Ok(Verdict::Undecided), "the new one may have something later");
    report(&mut new, pair(4));
    let said = cas(&mut b, pair(4), solo(7, B));
    assert_eq!(said, Ok(Verdict::Won), "what the old one reported does not count");
    assert_eq!(cas(&mut new, pair(4), solo(6, A)), Ok(Verdict::Lost(solo(7, B))));
}

#[test]
fn what_a_node_said_ends_with_its_lease() {
    let etcd = Etcd::start(1);
    let mut a = begin(&etcd, A);
    report(&mut a, pair(4));
    let deadline = Instant::now() + LIMIT;
    while kept(&etcd, "node/a").is_some() {
        assert!(Instant::now() < deadline, "it counts for ever");
        thread::sleep(Duration::from_millis(100));
    }
    let mut b = begin(&etcd, B);
    report(&mut b, pair(4));
    assert!(kept(&etcd, "register/a").is_none(), "one alone may be behind");
    assert!(a.keep_alive().unwrap_err().contains("the lease is over"));
    b.keep_alive().unwrap();
}

/// A node that begins a new session at the next member whenever there is trouble.
struct Stubborn {
    dial: Dial,
    next: usize,
    session: Option<Session>,
}

impl Stubborn {
    fn new(etcd: &Etcd, me: NodeIx) -> Stubborn {
        Stubborn { dial: dial(etcd, me), next: me.index(), session: None }
    }

    /// Asks until there is an answer.
    fn ask(&mut self, expected: Reg, new: Reg) -> Verdict {
        let (deadline, mut last) = (Instant::now() + LIMIT, String::new());
        loop {
            assert!(
                Instant::now() < deadline,
                "{:?} waits for a verdict on {new:?} in the place of {expected:?}, not within {LIMIT:?}: {last}",
                self.dial.me
            );
            let session = self.session.take().map_or_else(
                || {
                    self.next = (self.next + 1) % self.dial.at.endpoints.len();
                    let mut session = Session::begin(&self.dial, &self.dial.at.endpoints[self.next])?;
                    session.on(Ask::Report([expected; 2]))?;
                    Ok(session)
                },
                Ok,
            );
            let asked =
                session.and_then(|mut session| cas(&mut session, expected, new).map(|said| (session, said)));
            match asked {
                // The other has begun a session and not said anything yet.
                Ok((mut session, Verdict::Undecided)) => {
                    last = "it is undecided".into();
                    self.session = session.on(Ask::Report([expected; 2])).is_ok().then_some(session);
                }
                Ok((session, verdict)) => {
                    self.session = Some(session);
                    return verdict;
                }
                Err(why) => {
                    last = why;
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}

#[test]
fn members_die_and_of_two_who_ask_never_both_win() {
    let mut etcd = Etcd::start(3);
    let (first, second) = agreed(&etcd, pair(4));
    let (mut a, mut b) = (Stubborn::new(&etcd, A), Stubborn::new(&etcd, B));
    (a.session, b.session) = (Some(first), Some(second));
    let mut now = pair(4);
    for round in 0..60 {
        let next = |node| solo(now.term.next(Term(0), node).0, node);
        let victim = (round % 20 == 10).then(|| etcd.leader().expect("one leads"));
        let (one, other) = thread::scope(|scope| {
            let one = scope.spawn(|| a.ask(now, next(A)));
            let other = scope.spawn(|| b.ask(now, next(B)));
            victim.inspect(|member| etcd.kill(*member));
            (one.join().expect("an answer"), other.join().expect("an answer"))
        });
        let winner = match (one, other) {
            (Verdict::Won, Verdict::Lost(heard)) => (heard == next(A)).then_some(A),
            (Verdict::Lost(heard), Verdict::Won) => (heard == next(B)).then_some(B),
            _ => None,
        };
        now = next(winner.unwrap_or_else(|| panic!("round {round}: {one:?} and {other:?}")));
        victim.inspect(|member| etcd.run(*member));
        victim.inspect(|member| etcd.wait(*member));
    }
    assert_eq!(kept(&etcd, "register/a").unwrap()["term"], now.term.0);
}

#[test]
fn whoever_is_not_meant_is_told_why() {
    let etcd = Etcd::start(1);
    drop(begin(&etcd, A));
    let other = Dial { nodes: ["a".into(), "c".into()], ..dial(&etcd, A) };
    assert!(
        refused(&other).contains("belong to the nodes a and b, not to a and c: choose another"),
        "{}",
        refused(&other)
    );
    let mut bare = dial(&etcd, A);
    bare.at.endpoints[0] = bare.at.endpoints[0].replace("https", "http");
    assert!(refused(&bare).contains("does it speak TLS"), "{}", refused(&bare));
    let mut wrong = dial(&etcd, A);
    let folder = tempfile::tempdir().expect("a folder");
    load_tests::foreign::etcd::certificates(folder.path(), &[std::net::Ipv4Addr::LOCALHOST]).expect("others");
    let file = |name: &str| folder.path().join(name);
    wrong.at.ca = file("ca.pem");
    assert!(refused(&wrong).contains("certificate"), "{}", refused(&wrong));
    wrong.at.ca = dial(&etcd, A).at.ca;
    wrong.at.identity = Some((file("etcd.pem"), file("etcd.key")));
    assert!(refused(&wrong).contains("trust the authority of etcd.cert"), "{}", refused(&wrong));
    let nobody = Dial {
        at: EtcdAt { endpoints: vec!["https://127.0.0.1:9".into()], ..dial(&etcd, A).at },
        ..dial(&etcd, A)
    };
    assert!(refused(&nobody).contains("refused"), "{}", refused(&nobody));
}

#[test]
fn an_etcd_with_users_wants_ours() {
    let etcd = Etcd::start(1);
    let done = |what: &str, body: &str| {
        etcd.ask(0, what, body).unwrap_or_else(|| panic!("{what}: {}", etcd.log(0)));
    };
    done("auth/user/add", r#"{"name":"root","password":"master"}"#);
    done("auth/role/add", r#"{"name":"root"}"#);
    done("auth/user/grant", r#"{"user":"root","role":"root"}"#);
    done("auth/user/add", r#"{"name":"tandem","password":"secret"}"#);
    done("auth/role/add", r#"{"name":"tandem"}"#);
    // From /tandem/ up to what is behind it.
    let right = r#"{"name":"tandem","perm":{"permType":"READWRITE","key":"L3RhbmRlbS8=","range_end":"L3RhbmRlbTA="}}"#;
    done("auth/role/grant", right);
    done("auth/user/grant", r#"{"user":"tandem","role":"tandem"}"#);
    done("auth/enable", "{}");
    let folder = tempfile::tempdir().expect("a folder");
    let with = |password: &str| {
        let password_file = folder.path().join("password");
        write_private(&password_file, password);
        let mut dial = dial(&etcd, A);
        dial.at.login = Some(Login { user: "tandem".into(), password_file });
        dial
    };
    assert!(refused(&dial(&etcd, A)).contains("user name is empty"), "{}", refused(&dial(&etcd, A)));
    assert!(refused(&with("wrong")).contains("authentication failed"), "{}", refused(&with("wrong")));
    let dial = with("secret");
    let mut session = Session::begin(&dial, &dial.at.endpoints[0]).expect("a session");
    report(&mut session, pair(4));
    session.keep_alive().expect("it lives");
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
}
