//! Reads a file. An error names the line and what would be allowed there.

use std::fmt;
use std::time::Duration;

use super::condition::condition;
use super::forms::{CONDITION_FORMS, DISK_FORMS, FORMS, PATH_FORMS};
use super::{Arbiter, Books, Clients, DiskStep, Line, Node, Part, PathFaults, Script, Site, Step};

/// Where a file cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Name of the file.
    pub file: String,
    /// Number of the line.
    pub line: usize,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}: {}", self.file, self.line, self.problem)
    }
}

/// Reads a file: first comments that say what it shows, then settings, clients, and what happens.
pub fn parse(name: &str, text: &str) -> Result<Script, ParseError> {
    let mut script = Script {
        name: name.to_owned(),
        shows: String::new(),
        settings: Vec::new(),
        witness: None,
        clients: Clients::default(),
        lines: Vec::new(),
    };
    let mut last = 1;
    let mut begun = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let problem = |problem| ParseError { file: format!("{name}.scenario"), line: index + 1, problem };
        match line.strip_prefix('#') {
            Some(comment) if !begun => {
                script.shows = format!("{} {}", script.shows, comment.trim()).trim().to_owned();
            }
            Some(_) => {}
            None if line.is_empty() => {}
            None => {
                begun = true;
                statement(&mut script, line, index + 1).map_err(problem)?;
                last = index + 1;
            }
        }
    }
    let problem =
        |line, text: &str| ParseError { file: format!("{name}.scenario"), line, problem: text.to_owned() };
    if script.shows.is_empty() {
        return Err(problem(1, "the first line must say, behind a #, what the scenario shows"));
    }
    if !matches!(script.lines.last(), Some(Line { step: Step::Ledger(_), .. })) {
        return Err(problem(last, "the last line must close the books: ledger"));
    }
    Ok(script)
}

/// One line that is no comment.
fn statement(script: &mut Script, text: &str, number: usize) -> Result<(), String> {
    let words = words(text)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let first = words.first().copied().unwrap_or_default();
    let header = |missing: bool| match missing {
        true => Err(format!("{first} must come before everything that happens")),
        false => Ok(()),
    };
    match (first, &words[1..]) {
        ("set", [key, value]) if key.contains('.') => {
            header(!script.lines.is_empty() || script.clients != Clients::default())?;
            script.settings.push(((*key).to_owned(), value.trim_matches('"').to_owned()));
        }
        ("witness" | "etcd", []) => {
            header(!script.lines.is_empty() || script.clients != Clients::default())?;
            script.witness = Some(if first == "etcd" { Arbiter::Etcd } else { Arbiter::Witness });
        }
        ("clients", list) => {
            header(!script.lines.is_empty() || script.clients != Clients::default())?;
            script.clients = clients(list).ok_or_else(|| cannot(first))?;
        }
        _ => {
            if script.clients == Clients::default() {
                return Err(format!("who is logged in comes first: {}", forms("clients")));
            }
            let (at, rest) = match &words[..] {
                ["at", time, rest @ ..] => (Some(duration(time)?), rest),
                all => (None, all),
            };
            let step = step(rest)?;
            script.lines.push(Line { number, text: text.to_owned(), at, step });
        }
    }
    Ok(())
}

/// Splits a line. What was quoted keeps a `"` at its head, so that it is never taken for a word.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    for (index, part) in text.split('"').enumerate() {
        match index % 2 {
            0 => words.extend(part.replace("->", " -> ").split_whitespace().map(str::to_owned)),
            _ => words.push(format!("\"{part}")),
        }
    }
    if text.matches('"').count() % 2 == 1 {
        return Err("a text that begins with \" must end with it, in the same line".to_owned());
    }
    Ok(words)
}

/// The forms of lines that begin so.
fn forms(first: &str) -> String {
    let forms = FORMS.iter().filter(|(begin, ..)| *begin == first).map(|(_, form, _)| *form);
    let mut all = forms.collect::<Vec<_>>().join("; or ");
    if first == "disk" {
        let faults: Vec<_> = DISK_FORMS.iter().map(|(form, _)| *form).collect();
        all.push_str(&format!(", where FAULT is one of: {}", faults.join(", ")));
    }
    if first == "path" {
        let faults: Vec<_> = PATH_FORMS.iter().map(|(form, _)| *form).collect();
        all.push_str(&format!(", where FAULT is one of: {}", faults.join(", ")));
    }
    if matches!(first, "wait" | "hold" | "assert") {
        let conditions: Vec<_> = CONDITION_FORMS.iter().map(|(form, _)| *form).collect();
        all.push_str(&format!(", where CONDITION is one of: {}", conditions.join(", ")));
    }
    all
}

fn cannot(first: &str) -> String {
    if FORMS.iter().any(|(begin, ..)| *begin == first) {
        return format!("this cannot be read; allowed is: {}", forms(first));
    }
    let mut known: Vec<&str> = FORMS.iter().map(|(begin, ..)| *begin).collect();
    known.sort_by_key(|known| FORMS.iter().position(|(begin, ..)| begin == known));
    known.dedup();
    format!("{first:?} is not known; a line begins with one of: {}", known.join(", "))
}

fn clients(list: &[&str]) -> Option<Clients> {
    let mut clients = Clients::default();
    for part in list.join(" ").split(',') {
        match part.split_whitespace().collect::<Vec<_>>()[..] {
            [number, "dual"] => clients.dual = number.parse().ok()?,
            [number, "plain"] => clients.plain = number.parse().ok()?,
            ["2", "slixmpp"] => clients.slixmpp = 2,
            ["chat"] => clients.chat = true,
            ["chat", "of", bytes, "bytes"] => {
                (clients.chat, clients.bytes) = (true, Some(bytes.parse().ok()?));
            }
            _ => return None,
        }
    }
    Some(clients).filter(|c| c.dual + c.plain > 0 && (c.dual + c.plain) % 4 == 0)
}

fn step(words: &[&str]) -> Result<Step, String> {
    let first = words.first().copied().unwrap_or_default();
    let step = match words {
        ["kill", "witness"] => Some(Step::KillWitness),
        ["start", "witness"] => Some(Step::StartWitness),
        ["disk", "witness", "empty"] => Some(Step::EmptyWitness),
        ["disk", "witness", "write", "fails", "once"] => Some(Step::FailWitnessWrite),
        ["power", "off", "witness"] => Some(Step::PowerOffWitness),
        ["cut", one, "from", others @ ..] => {
            site(one).zip(sites(others, one)).map(|(one, others)| Step::Cut(one, others))
        }
        ["cut", one, "->", others @ ..] => {
            let others = sites(others, one).filter(|others| !others.iter().any(|other| other.is_part()));
            end(one).zip(others).map(|(one, others)| Step::CutOneWay(one, others))
        }
        ["path", one, other, faults @ ..] => {
            let ends = end(one).zip(end(other)).filter(|(one, other)| one != other);
            ends.zip(path_faults(faults)?).map(|((one, other), faults)| Step::Path(one, other, faults))
        }
        ["mend"] => Some(Step::Mend),
        ["kill", list @ ..] => nodes(list).map(Step::Kill),
        ["pause", one, "releasing"] => node(one).map(Step::PauseReleasing),
        ["pause", list @ ..] => nodes(list).map(Step::Pause),
        ["continue", list @ ..] => nodes(list).map(Step::Continue),
        ["start", one, "version", version] => {
            node(one).map(|one| Step::StartVersion(one, (*version).to_owned()))
        }
        ["start", list @ ..] => nodes(list).map(Step::Start),
        ["power", "off", list @ ..] => nodes(list).map(Step::PowerOff),
        ["stop", one] => node(one).map(Step::Stop),
        ["unplug", one] => node(one).map(Step::Unplug),
        ["plug", one] => node(one).map(Step::Plug),
        ["panic", one, "stream"] => node(one).map(Step::PanicStream),
        ["panic", one, "services"] => node(one).map(Step::PanicServices),
        ["panic", one] => node(one).map(Step::Panic),
        ["fallback", one] => node(one).map(|one| Step::Move(one, "fallback")),
        ["failover", one] => node(one).map(|one| Step::Move(one, "failover")),
        ["tandem", one, command] => node(one)
            .zip(command.strip_prefix('"'))
            .map(|(one, command)| Step::Tandem(one, command.to_owned())),
        ["disk", one, fault @ ..] => node(one).zip(disk(fault)?).map(|(one, fault)| Step::Disk(one, fault)),
        ["clock", one, by] => node(one).zip(jump(by)?).map(|(one, by)| Step::Clock(one, by)),
        ["talk", number] => number.parse().ok().map(Step::Talk),
        ["wait", what @ .., time] => {
            condition(what).zip(Some(duration(time)?)).map(|(c, t)| Step::Wait(c, t))
        }
        ["hold", what @ .., time] => {
            condition(what).zip(Some(duration(time)?)).map(|(c, t)| Step::Hold(c, t))
        }
        ["assert", what @ ..] => condition(what).map(Step::Assert),
        ["ledger" | "ledger,", how @ ..] => books(first, how).map(Step::Ledger),
        _ => None,
    };
    step.ok_or_else(|| cannot(first.trim_end_matches(',')))
}

/// What is behind `ledger`, or `ledger,`.
fn books(first: &str, how: &[&str]) -> Option<Books> {
    match (first, how) {
        ("ledger", []) => Some(Books::Strict),
        ("ledger,", ["refused", "clients", "may", "see", "twice"]) => Some(Books::Refused),
        ("ledger,", ["both", "nodes", "may", "lead", "alone"]) => Some(Books::Apart(None)),
        (
            "ledger,",
            ["both", "nodes", "may", "lead", "alone,", "each", "message", most, "times", "at", "most"],
        ) => Some(Books::Apart(Some(most.parse().ok()?))),
        _ => None,
    }
}

pub(super) fn node(word: &str) -> Option<Node> {
    match word {
        "a" => Some(Node::A),
        "b" => Some(Node::B),
        _ => None,
    }
}

fn nodes(words: &[&str]) -> Option<Vec<Node>> {
    let nodes: Vec<Node> = words.iter().map(|word| node(word)).collect::<Option<_>>()?;
    let differ = nodes.len() == 1 || nodes.len() == 2 && nodes[0] != nodes[1];
    Some(nodes).filter(|_| differ)
}

fn site(word: &str) -> Option<Site> {
    match word {
        "clients" => Some(Site::Clients),
        "half" => Some(Site::Half),
        "rest" => Some(Site::Rest),
        "witness" => Some(Site::Witness),
        other => node(other).map(Site::Node),
    }
}

fn sites(words: &[&str], but: &str) -> Option<Vec<Site>> {
    let differ = words.iter().enumerate().all(|(i, word)| *word != but && !words[..i].contains(word));
    let sites = words.iter().map(|word| site(word)).collect::<Option<Vec<_>>>();
    sites.filter(|sites| differ && !sites.is_empty())
}

/// A site that has a way of its own.
fn end(word: &str) -> Option<Site> {
    site(word).filter(|site| !site.is_part())
}

/// Some of the clients.
pub(super) fn part(word: &str) -> Option<Site> {
    site(word).filter(|site| site.is_part())
}

/// All that a path does. A number in the place of another is an error of its own.
fn path_faults(words: &[&str]) -> Result<Option<PathFaults>, String> {
    let mut faults = PathFaults::default();
    let mut rest = words;
    while !rest.is_empty() {
        let (fault, value, more) = match rest {
            ["at", "most", bytes, "bytes", more @ ..] => ("at most", *bytes, more),
            [fault, value, more @ ..] => (*fault, *value, more),
            _ => return Ok(None),
        };
        match fault {
            "loss" => faults.loss = percent(value)?,
            "twice" => faults.twice = percent(value)?,
            "disorder" => faults.disorder = percent(value)?,
            "resets" => faults.resets = percent(value)?,
            "delay" => faults.delay = duration(value)?,
            "flaps" => faults.flaps = Some(duration(value)?).filter(|time| !time.is_zero()),
            "at most" => {
                let bytes = value.parse().map_err(|_| format!("{value:?} is not a number of bytes"))?;
                faults.at_most = Some(bytes);
            }
            _ => return Ok(None),
        }
        rest = more;
    }
    Ok(Some(faults).filter(|faults| *faults != PathFaults::default()))
}

/// `30%`.
pub(super) fn percent(word: &str) -> Result<u8, String> {
    let number = word.strip_suffix('%').and_then(|number| number.parse::<u8>().ok());
    number
        .filter(|number| (1..=100).contains(number))
        .ok_or_else(|| format!("{word:?} is not a chance: a number from 1 to 100 with %, such as 30%"))
}

fn disk(words: &[&str]) -> Result<Option<DiskStep>, String> {
    Ok(Some(match words {
        ["empty"] => DiskStep::Empty,
        ["keep"] => DiskStep::Keep,
        ["put", "back"] => DiskStep::PutBack,
        ["of", "peer"] => DiskStep::OfPeer,
        ["of", "other", "cluster"] => DiskStep::OfOtherCluster,
        ["store", "lost"] => DiskStep::StoreLost,
        ["store", "damaged"] => DiskStep::StoreDamaged,
        ["store", "of", "peer"] => DiskStep::StoreOfPeer,
        ["torn"] => DiskStep::Torn(Part::OwnLog),
        ["copy", "torn"] => DiskStep::Torn(Part::Copy),
        ["rotten"] => DiskStep::Rotten,
        ["full"] => DiskStep::Full,
        ["free"] => DiskStep::Free,
        ["read-only"] => DiskStep::ReadOnly,
        ["writable"] => DiskStep::Writable,
        ["sync", "fails", "once"] => DiskStep::SyncFailsOnce(Part::OwnLog),
        ["write", "fails", "once"] => DiskStep::WriteFailsOnce(Part::OwnLog),
        ["write", "short", "once"] => DiskStep::WriteShortOnce(Part::OwnLog),
        ["copy", "write", "fails", "once"] => DiskStep::WriteFailsOnce(Part::Copy),
        ["copy", "write", "short", "once"] => DiskStep::WriteShortOnce(Part::Copy),
        ["copy", "sync", "fails", "once"] => DiskStep::SyncFailsOnce(Part::Copy),
        ["core", "write", "fails", "once"] => DiskStep::WriteFailsOnce(Part::Core),
        ["core", "write", "short", "once"] => DiskStep::WriteShortOnce(Part::Core),
        ["core", "sync", "fails", "once"] => DiskStep::SyncFailsOnce(Part::Core),
        ["slow", time] => DiskStep::Slow(duration(time)?),
        ["stalls", time] => DiskStep::Stalls(Part::OwnLog, duration(time)?),
        ["copy", "stalls", time] => DiskStep::Stalls(Part::Copy, duration(time)?),
        ["core", "stalls", time] => DiskStep::Stalls(Part::Core, duration(time)?),
        ["store", "fails"] => DiskStep::StoreFails,
        ["well"] => DiskStep::Well,
        _ => return Ok(None),
    }))
}

/// A number with a unit: `300ms`, `5s`, `2m`, `2h`.
pub(super) fn duration(word: &str) -> Result<Duration, String> {
    let split = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let number = word[..split].parse::<u64>().ok();
    let duration = number.and_then(|number| match &word[split..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(60 * number)),
        "h" => Some(Duration::from_secs(3600 * number)),
        _ => None,
    });
    duration.ok_or_else(|| format!("{word:?} is not a time: a number with ms, s, m or h, such as 30s"))
}

pub(super) fn jump(word: &str) -> Result<Option<i64>, String> {
    let (sign, time) = match word.as_bytes().first() {
        Some(b'+') => (1, &word[1..]),
        Some(b'-') => (-1, &word[1..]),
        _ => return Ok(None),
    };
    Ok(Some(sign * i64::try_from(duration(time)?.as_secs()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
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
        let all = "path a witness delay 500ms loss 30% twice 1% disorder 100% at most 1300 bytes resets 2% flaps 2s";
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
        let document = include_str!("../../../../docs/testing.md");
        let forms = FORMS.iter().map(|(_, form, what)| (*form, *what));
        let more = [DISK_FORMS, PATH_FORMS, CONDITION_FORMS].into_iter().flatten().copied();
        for (form, what) in forms.chain(more) {
            let row = format!("| `{}` | {what} |", form.replace('|', "\\|"));
            assert!(document.contains(&row), "docs/testing.md lacks the row\n{row}");
        }
    }
}
