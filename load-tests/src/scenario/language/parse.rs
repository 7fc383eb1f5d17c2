//! Reads a file. An error names the line and what would be allowed there.

use std::fmt;
use std::time::Duration;

use super::condition::condition;
use super::forms::{CONDITION_FORMS, DISK_FORMS, FORMS, PATH_FORMS};
use super::{Arbiter, Books, Clients, DiskStep, Line, Node, Part, PathFaults, Script, Site, Step};

#[cfg(test)]
mod tests;

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
        before: false,
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
        ("program", ["before"]) => {
            header(!script.lines.is_empty() || script.clients != Clients::default())?;
            script.before = true;
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
        ["start", one, "before"] => node(one).map(Step::StartBefore),
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
