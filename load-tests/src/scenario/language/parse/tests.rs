//! What is read of each form, and what is said of what cannot be.

use super::super::Condition;
use super::*;

const HEAD: &str = "# Shows something.\nclients 8 dual, 4 plain, chat\n";

fn error(rest: &str) -> String {
    parse("x", &format!("{HEAD}{rest}")).unwrap_err().to_string()
}

#[test]
fn a_whole_file() {
    let text = "# One.\n# Two.\nset srm.keep_alive_timeout 7s\nclients 8 dual, 4 plain, 2 slixmpp, chat\n\n\
                # what happens\nat 5s kill a b\nwait b \"Running in Backup Mode / Peer Down\" 30s\n\
                assert b event \"peer-down ... of it\"\n\
                hold not b says a \"down\" 300ms\nhold flow 1s of b 2s\n\
                assert flow each 4s\nhold flow each 4s of a 9s\nhold throughput 80% 10s\nassert no reconnects\nassert flips within 4s\n\
                assert flips within 4s, half of them within 1s\nassert streams lost 1\nhold flow each 1s of dual 5s\ndisk a slow 300ms\nclock b -2h\nledger\n";
    let script = parse("x", text).unwrap();
    assert_eq!(script.shows, "One. Two.");
    assert_eq!(script.settings, [("srm.keep_alive_timeout".to_owned(), "7s".to_owned())]);
    assert_eq!(script.clients, Clients { dual: 8, plain: 4, slixmpp: 2, chat: true, bytes: None });
    let steps: Vec<_> = script.lines.iter().map(|line| line.step.clone()).collect();
    let state = Condition::State(Node::B, Node::B, "Running in Backup Mode / Peer Down".to_owned());
    let down = Condition::Not(Box::new(Condition::State(Node::B, Node::A, "down".to_owned())));
    let expected = [
        Step::Kill(vec![Node::A, Node::B]),
        Step::Wait(state, Duration::from_secs(30)),
        Step::Assert(Condition::Event(Node::B, "peer-down ... of it".to_owned())),
        Step::Hold(down, Duration::from_millis(300)),
        Step::Hold(Condition::Flow(Some(Node::B), Duration::from_secs(1)), Duration::from_secs(2)),
        Step::Assert(Condition::FlowEach(None, Duration::from_secs(4))),
        Step::Hold(Condition::FlowEach(Some(Node::A), Duration::from_secs(4)), Duration::from_secs(9)),
        Step::Hold(Condition::Throughput(80), Duration::from_secs(10)),
        Step::Assert(Condition::NoReconnects),
        Step::Assert(Condition::Flips(Duration::from_secs(4), None)),
        Step::Assert(Condition::Flips(Duration::from_secs(4), Some(Duration::from_secs(1)))),
        Step::Assert(Condition::StreamsLost(1)),
        Step::Hold(Condition::FlowAmongDual(Duration::from_secs(1)), Duration::from_secs(5)),
        Step::Disk(Node::A, DiskStep::Slow(Duration::from_millis(300))),
        Step::Clock(Node::B, -7200),
        Step::Ledger(Books::Strict),
    ];
    assert_eq!(steps, expected);
    assert_eq!(script.lines[0].at, Some(Duration::from_secs(5)));
    assert_eq!(script.lines[0].number, 7);
}

#[test]
fn errors_name_the_line_and_what_is_allowed() {
    for (rest, wanted) in [
        (
            "wiat a ended 5s\nledger",
            "x.scenario, line 3: \"wiat\" is not known; a line begins with one of: set,",
        ),
        ("\nkill c\nledger", "line 4: this cannot be read; allowed is: kill NODE [NODE]"),
        ("kill a a\nledger", "allowed is: kill NODE [NODE]"),
        ("wait a Normal 5s\nledger", "where CONDITION is one of: NODE \"STATE\","),
        ("wait pair 5\nledger", "\"5\" is not a time: a number with ms, s, m or h"),
        ("disk a wet\nledger", "where FAULT is one of: empty, keep,"),
        (
            "path a a loss 3%\nledger",
            "allowed is: path SITE SITE FAULT [FAULT ...], where FAULT is one of: loss N%",
        ),
        ("path a half loss 3%\nledger", "allowed is: path SITE SITE FAULT"),
        ("path rest b loss 3%\nledger", "allowed is: path SITE SITE FAULT"),
        ("path a b\nledger", "allowed is: path SITE SITE FAULT"),
        ("path a b loss 101%\nledger", "\"101%\" is not a chance: a number from 1 to 100 with %"),
        ("path a b flaps 0s\nledger", "allowed is: path SITE SITE FAULT"),
        ("cut half -> a\nledger", "allowed is: cut SITE from SITE [SITE]; or cut SITE -> SITE [SITE]"),
        ("cut a -> rest\nledger", "allowed is: cut SITE from SITE [SITE]; or cut SITE -> SITE [SITE]"),
        ("wait clients of half 5s\nledger", "where CONDITION is one of: NODE \"STATE\","),
        ("wait a at b 5s\nledger", "where CONDITION is one of: NODE \"STATE\","),
        ("ledger, both nodes may lead alone, each message five times at most", "allowed is: ledger; or"),
        ("wait a \"Normal 5s\nledger", "must end with it"),
        ("kill a\nset srm.x 5\nledger", "set must come before everything that happens"),
        ("kill a", "line 3: the last line must close the books: ledger"),
        ("ledger, or not", "ledger, refused clients may see twice"),
    ] {
        let told = error(rest);
        assert!(told.contains(wanted), "{rest:?}: {told}");
    }
    let told = parse("x", "clients 4 dual, chat\nledger").unwrap_err().to_string();
    assert!(told.contains("what the scenario shows"), "{told}");
    let told = parse("x", "# Shows.\nkill a\nledger").unwrap_err().to_string();
    assert!(told.contains("line 2: who is logged in comes first: clients N dual"), "{told}");
}

#[test]
fn cuts_and_paths() {
    let steps = |rest: &str| {
        let script = parse("x", &format!("{HEAD}{rest}\nledger")).unwrap();
        script.lines.into_iter().map(|line| line.step).collect::<Vec<_>>()
    };
    let [a, b] = Node::BOTH.map(Site::Node);
    assert_eq!(steps("cut a->b")[0], Step::CutOneWay(a, vec![b]));
    assert_eq!(steps("cut b -> a clients")[0], Step::CutOneWay(b, vec![a, Site::Clients]));
    assert_eq!(steps("cut a from b half")[0], Step::Cut(a, vec![b, Site::Half]));
    let faults = PathFaults {
        loss: 30,
        delay: Duration::from_millis(500),
        twice: 1,
        disorder: 100,
        at_most: Some(1_300),
        resets: 2,
        flaps: Some(Duration::from_secs(2)),
        rate: None,
    };
    let all =
        "path a witness delay 500ms loss 30% twice 1% disorder 100% at most 1300 bytes resets 2% flaps 2s";
    assert_eq!(steps(all)[0], Step::Path(a, Site::Witness, faults));
    let steps = steps("path a b loss 3%\nwait path met 10 5s");
    assert_eq!(steps[1], Step::Wait(Condition::PathMet(10), Duration::from_secs(5)));
    assert!(steps[0].is_fault());
}

#[test]
fn parts_of_the_clients_and_what_both_nodes_did_alone() {
    let text = "cut half from a\ncut rest from b\nwait half at b 9s\nwait traffic 20 of rest 9s\nassert a aside \"own-\"\n\
                ledger, both nodes may lead alone, each message 5 times at most";
    let script = parse("x", &format!("{HEAD}{text}")).unwrap();
    let steps: Vec<_> = script.lines.into_iter().map(|line| line.step).collect();
    let [a, b] = Node::BOTH.map(Site::Node);
    let limit = Duration::from_secs(9);
    let expected = [
        Step::Cut(Site::Half, vec![a]),
        Step::Cut(Site::Rest, vec![b]),
        Step::Wait(Condition::PartAt(Site::Half, Node::B), limit),
        Step::Wait(Condition::PartTraffic(20, Site::Rest), limit),
        Step::Assert(Condition::Aside(Node::A, "own-".to_owned())),
        Step::Ledger(Books::Apart(Some(5))),
    ];
    assert_eq!(steps, expected);
    let any = parse("x", &format!("{HEAD}ledger, both nodes may lead alone")).unwrap();
    assert_eq!(any.lines[0].step, Step::Ledger(Books::Apart(None)));
}

#[test]
fn a_fault_of_a_disk_is_of_one_part_of_it() {
    for (part, of) in [(Part::OwnLog, ""), (Part::Copy, "copy "), (Part::Core, "core ")] {
        let script = parse("x", &format!("{HEAD}disk b {of}sync fails once\nledger")).unwrap();
        assert_eq!(script.lines[0].step, Step::Disk(Node::B, DiskStep::SyncFailsOnce(part)));
        assert!(script.lines[0].step.is_fault());
        let script = parse("x", &format!("{HEAD}disk b {of}stalls 10s\nledger")).unwrap();
        let stalls = DiskStep::Stalls(part, Duration::from_secs(10));
        assert_eq!(script.lines[0].step, Step::Disk(Node::B, stalls));
    }
}

#[test]
fn two_versions() {
    let text =
        "start a version 99.0.0\nwait pair of two versions 5s\nassert protected of two versions\nledger";
    let script = parse("x", &format!("{HEAD}{text}")).unwrap();
    let steps: Vec<_> = script.lines.into_iter().map(|line| line.step).collect();
    let expected = [
        Step::StartVersion(Node::A, "99.0.0".to_owned()),
        Step::Wait(Condition::PairOfTwoVersions, Duration::from_secs(5)),
        Step::Assert(Condition::ProtectedOfTwoVersions),
        Step::Ledger(Books::Strict),
    ];
    assert_eq!(steps, expected);
    assert!(!steps[0].is_fault(), "it is what is done around a fault, as any start");
    let script = parse("x", &format!("{HEAD}start a before\nledger")).unwrap();
    assert_eq!((script.before, &script.lines[0].step), (false, &Step::StartBefore(Node::A)));
    let text = HEAD.replacen("clients", "program before\nclients", 1);
    assert!(parse("x", &format!("{text}ledger")).unwrap().before);
    assert!(error("program before\nledger").contains("must come before everything"));
    assert!(error("start a b version 9\nledger").contains("start NODE version VERSION"));
}

#[test]
fn what_ends_a_fault_does_no_harm() {
    let text = "kill a\nstart a\nunplug b\nplug b\ncut a from b\nmend\npause a\ncontinue a\nkill witness\nstart witness\n\
                disk a full\ndisk a free\ndisk b put back\ntandem a \"ha disable\"\nfallback a\nledger";
    let script = parse("x", &format!("{HEAD}{text}")).unwrap();
    let harm = script.lines.iter().filter(|line| line.step.does_harm());
    let harm: Vec<&str> = harm.map(|line| line.text.as_str()).collect();
    let expected = [
        "kill a",
        "unplug b",
        "cut a from b",
        "pause a",
        "kill witness",
        "disk a full",
        "disk b put back",
        "tandem a \"ha disable\"",
    ];
    assert_eq!(harm, expected);
}

#[test]
fn what_happens_to_the_witness_and_what_it_says() {
    let text = "power off witness\ndisk witness write fails once\nassert witness ended \"fatal\"\nledger";
    let script = parse("x", &format!("{HEAD}{text}")).unwrap();
    let ended = Step::Assert(Condition::WitnessEnded("fatal".to_owned()));
    let steps = [Step::PowerOffWitness, Step::FailWitnessWrite, ended];
    assert!(script.lines.iter().map(|line| &line.step).take(3).eq(&steps));
    assert!(steps[..2].iter().all(Step::is_fault));
    let script = parse("x", &format!("{HEAD}assert witness says b leads a\nledger")).unwrap();
    let said = Condition::WitnessSays(Node::B, Node::A);
    assert_eq!(script.lines[0].step, Step::Assert(said));
    assert!(error("assert witness says b leads witness\nledger").contains("where CONDITION is one of"));
}

#[test]
fn the_document_has_every_form() {
    let document = include_str!("../../../../../docs/testing.md");
    let forms = FORMS.iter().map(|(_, form, what)| (*form, *what));
    let more = [DISK_FORMS, PATH_FORMS, CONDITION_FORMS].into_iter().flatten().copied();
    for (form, what) in forms.chain(more) {
        let row = format!("| `{}` | {what} |", form.replace('|', "\\|"));
        assert!(document.contains(&row), "docs/testing.md lacks the row\n{row}");
    }
}
