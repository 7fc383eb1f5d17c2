//! Scenarios that nobody wrote: faults one after the other, drawn by a seed, each with what is done about it. After each the
//! pair must heal by itself, and in the end every ledger must be clean.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Faults of one scenario.
const COUNT: Range<usize> = 5..9;
/// Faults of a long one: some 20 minutes of one pair. More in an hour would take more automatic failovers than a node does.
const LONG: usize = 100;
/// Of so many in a hundred a second one comes before the first has healed.
const TWO: u32 = 12;
const HEAD: &str = "set srm.keep_alive_interval 1s
set srm.keep_alive_timeout 7s
set srm.initialization_keep_alive_timeout 7s
set srm.critical_service_delay 10s
set srm.automatic_failovers_per_hour 60
set srm.enable_automatic_fallback true
set srm.automatic_fallback_after 2s
set store.checkpoint_frames 200
";
const SYNCED: &str = "set link.commit peer-and-disk\n";
const CLIENTS: &str = "clients 8 dual, 4 plain, chat
wait parked 60s
";
/// After each fault.
const HEALED: &str = "wait protected 120s
wait clients 60s
wait parked 60s
wait traffic 30 60s
";
/// Before two faults that are one in the other, or one behind the other.
const SECOND: &str = "# A second fault before the first has healed.\n";

/// Who decides who goes on alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arbiter {
    Witness,
    Etcd,
    /// Each node by itself: policy `available`.
    Nobody,
}

/// What is excused in the end for a fault: the last line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excused {
    Nothing,
    /// Where nobody decides, who takes over by silence refuses the sessions of plain clients.
    Silence,
    /// Where nobody decides, both nodes served the same users.
    Apart,
    /// The operator had a node serve beside a dead one: whoever decides, sessions of plain clients may be refused.
    Forced,
}

/// What the disk of a node can do, in all of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    /// A folder below the library that makes disks fail: it loses power, fails, is slow, and is replaced.
    Faulty,
    /// A file system of its own, which can be filled. That library cannot keep what is removed there, and what is mounted is not
    /// replaced.
    Small,
    /// Another one, which can give up.
    Real,
}

use Excused::{Apart, Forced, Nothing, Silence};

/// Each fault to its end: lines with `X` for a node, `Y` for its peer, one of several words that `|` parts, `Ns` for a time from 1 to
/// 11 s, and `PAUSE` for a `hold` that is as long.
const FAULTS: &[(&str, Excused)] = &[
    ("kill X; PAUSE; start X", Nothing),
    ("kill X Y; start Y; start X", Nothing),
    ("stop X; PAUSE; start X", Nothing),
    ("pause X; PAUSE; continue X", Silence),
    // Between the decision to answer a client and the socket.
    ("wait X \"Normal\" 60s; pause X releasing; PAUSE; continue X", Silence),
    ("pause X Y; hold no traffic Ns; continue X Y", Nothing),
    ("panic X; wait X ended 10s; PAUSE; start X", Nothing),
    ("panic X services; wait X ended 10s; PAUSE; start X", Nothing),
    // Nobody may be connected there: the next one who is.
    ("panic X stream; PAUSE", Nothing),
    ("power off X; PAUSE; start X", Silence),
    ("power off X Y; hold no traffic Ns; start Y; start X", Nothing),
    ("unplug X; PAUSE; plug X", Apart),
    ("cut X from Y; PAUSE; mend", Nothing),
    ("cut X from witness; PAUSE; mend", Nothing),
    ("cut X from Y witness; PAUSE; mend", Nothing),
    ("cut clients from X; PAUSE; mend", Nothing),
    ("cut X -> Y|witness|clients; PAUSE; mend", Nothing),
    ("cut witness|clients -> X; PAUSE; mend", Nothing),
    ("cut half from X Y; PAUSE; mend", Nothing),
    ("path X Y|clients AILMENT; PAUSE; mend", Nothing),
    ("kill witness; PAUSE; start witness", Nothing),
    ("kill witness; disk witness empty; PAUSE; start witness", Nothing),
    ("power off witness; PAUSE; start witness", Nothing),
    // It is asked when somebody dies, and what it cannot write it does not grant.
    (
        "disk witness write fails once; kill X; wait witness ended \"The witness ends.\" 15s; PAUSE; start witness; start X",
        Nothing,
    ),
    // It stays so, until the next time.
    ("clock X +2h|-2h|+10m|-10m|+0s; PAUSE", Nothing),
    ("disk X slow 200ms; PAUSE; disk X well", Nothing),
    ("disk X stalls 10s; wait X ended 30s; disk X well; PAUSE; start X", Nothing),
    ("disk X sync|write fails once; wait X ended 30s; PAUSE; start X", Nothing),
    ("disk X write short once; PAUSE; disk X well", Nothing),
    ("disk X copy write fails once; wait X ended 30s; PAUSE; start X", Nothing),
    ("disk X copy sync fails once; wait X ended 30s; PAUSE; start X", Nothing),
    ("disk X copy write short once; PAUSE; disk X well", Nothing),
    // Who leads is written when somebody dies.
    ("disk Y core sync|write fails once; kill X; wait Y ended 30s; start Y; start X", Nothing),
    ("disk Y core write short once; kill X; PAUSE; disk Y well; start X", Nothing),
    // The database is tried again once a minute, and its users may have to come back then.
    ("disk X store fails; PAUSE; disk X well; wait protected 240s", Nothing),
    ("kill X; disk X HARM; PAUSE; start X", Nothing),
    ("kill X; disk X keep; disk X FOREIGN; start X; wait X ended 20s; disk X put back; start X", Nothing),
    (
        "kill X; disk X keep; start X; wait protected 120s; wait clients 60s; wait traffic 50 60s; kill X; disk X put back; \
         PAUSE; start X",
        Nothing,
    ),
    ("disk X full; wait X ended 30s; PAUSE; disk X free; start X", Nothing),
    ("disk X read-only; wait X ended 30s; PAUSE; disk X writable; start X", Nothing),
    ("tandem Y \"restart X\"; PAUSE", Nothing),
    ("failover X; wait parked 60s; PAUSE; fallback X", Nothing),
    ("tandem Y \"service stop SERVICE --node X\"; PAUSE; tandem X \"service start SERVICE\"", Nothing),
    ("tandem X \"service fail SERVICE --for Ns\"; PAUSE", Nothing),
    ("tandem X \"service restart SERVICE\"; PAUSE", Nothing),
    // High availability does not begin where clocks differ.
    (
        "clock a +0s; clock b +0s; tandem X \"service stop SERVICE\"; tandem Y \"service stop SERVICE\"; \
         wait X \"Running in Failed Mode\" 60s; wait Y \"Running in Failed Mode\" 20s; PAUSE; \
         wait not X alarm \"the clocks of the nodes differ\" 20s; wait not Y alarm \"the clocks of the nodes differ\" 20s; \
         tandem X \"recover\"",
        Nothing,
    ),
    (
        "clock a +0s; clock b +0s; tandem X \"ha disable\"; PAUSE; wait not X alarm \"the clocks of the nodes differ\" 20s; \
         wait not Y alarm \"the clocks of the nodes differ\" 20s; tandem Y \"ha enable\"",
        Nothing,
    ),
    (
        "clock a +0s; clock b +0s; tandem Y \"ha disable\"; kill X; PAUSE; start X; wait clients 60s; wait traffic 50 60s; \
         wait not X alarm \"unprotected\" 60s; wait not Y alarm \"unprotected\" 60s; \
         wait not X alarm \"the clocks of the nodes differ\" 20s; wait not Y alarm \"the clocks of the nodes differ\" 20s; \
         tandem Y \"ha enable\"",
        Nothing,
    ),
    (
        "tandem Y \"config set srm.user_assignment_mode active-standby\"; tandem X \"rebalance\"; wait traffic 50 60s; \
         wait protected 60s; tandem Y \"config set srm.user_assignment_mode balanced\"; tandem X \"rebalance\"",
        Nothing,
    ),
    // Automatic fallback gives nobody back who went at the operator's word.
    (
        "tandem X \"config set srm.disable_automatics true\"; tandem Y \"config set srm.disable_automatics true\"; \
         tandem X \"force-inactive X --confirm X\"; wait Y says X \"Idle / On Admin Request\" 20s; PAUSE; \
         tandem Y \"force-active Y --confirm Y\"; wait Y \"Running in Backup Mode / On Admin Request\" 20s; \
         wait not Y alarm \"unprotected\" 60s; tandem X \"config set srm.disable_automatics false\"; \
         tandem Y \"config set srm.disable_automatics false\"; wait parked 60s; fallback X",
        Nothing,
    ),
    (
        "tandem X \"config set srm.disable_automatics true\"; tandem Y \"config set srm.disable_automatics true\"; kill X; \
         wait Y says X \"down\" 30s; PAUSE; tandem Y \"force-active Y --confirm Y\"; wait Y \"Running in Backup Mode\" 20s; \
         start X; wait X alarm \"automatic failover and fallback are disabled\" 60s; wait not Y alarm \"unprotected\" 60s; \
         tandem X \"config set srm.disable_automatics false\"; tandem Y \"config set srm.disable_automatics false\"",
        Forced,
    ),
    (
        "kill X; wait Y \"Running in Backup Mode\" 60s; tandem Y \"force-inactive Y --confirm Y\"; \
         wait Y alarm \"inactive by force\" 10s; PAUSE; tandem Y \"force-active Y --confirm Y\"; \
         wait not Y alarm \"inactive by force\" 10s; wait clients 60s; start X",
        Forced,
    ),
];

/// Faults of which two may come at once, each with what ends it. They need nothing of the pair: no command of the operator, nobody
/// who takes over. None destroys a disk: with two, what was acknowledged may be gone.
const SUDDEN: &[(&str, &str)] = &[
    ("kill X", "start X"),
    ("power off X", "start X"),
    ("pause X", "continue X"),
    ("unplug X", "plug X"),
    ("cut X from Y", "mend"),
    ("cut X from witness", "mend"),
    ("cut X from Y witness", "mend"),
    ("cut clients from X", "mend"),
    ("cut X -> Y|witness|clients", "mend"),
    ("path X Y|clients AILMENT", "mend"),
    (KILL_WITNESS, "start witness"),
];
const KILL_WITNESS: &str = "kill witness";

const HARMS: &[&str] =
    &["empty", "store lost", "store damaged", "store of peer", "torn", "copy torn", "rotten"];
const FOREIGN: &[&str] = &["of peer", "of other cluster"];
const AILMENTS: &[&str] = &[
    "loss 20%",
    "delay 300ms",
    "delay 500ms",
    "twice 30% disorder 30%",
    "resets 2%",
    "flaps 1s",
    "flaps 2s",
    "at most 1300 bytes",
];
const SERVICES: &[&str] = &["database", "presence-engine", "router"];

/// A scenario of this seed, or a long one: it begins with the same faults.
pub fn draw(seed: u64, long: bool) -> String {
    drawn(seed, long).0
}

/// The same, with what it was drawn from.
fn drawn(seed: u64, long: bool) -> (String, Vec<&'static str>) {
    let mut luck = Luck::new(seed);
    let who = match luck.arbiter {
        Arbiter::Witness => "witness\n",
        Arbiter::Etcd => "etcd\n",
        Arbiter::Nobody => "set link.policy available\n",
    };
    let synced = if luck.synced { SYNCED } else { "" };
    let mut text = format!("# Drawn by seed {seed}.\n{who}{HEAD}{synced}{CLIENTS}");
    let (mut excused, mut kinds) = (Vec::new(), Vec::new());
    let few = luck.rng.random_range(COUNT);
    for _ in 0..if long { LONG } else { few } {
        let (kind, fault, then) = luck.fault(&text);
        text.push_str(&fault);
        text.push_str(HEALED);
        kinds.push(kind);
        excused.push(then);
    }
    let alone = luck.arbiter == Arbiter::Nobody;
    text.push_str(if alone && excused.contains(&Apart) {
        "ledger, both nodes may lead alone\n"
    } else if alone && excused.contains(&Silence) || excused.contains(&Forced) {
        "ledger, refused clients may see twice\n"
    } else {
        "ledger\n"
    });
    (text, kinds)
}

/// What everything of a scenario is drawn from.
struct Luck {
    rng: StdRng,
    arbiter: Arbiter,
    disks: [Disk; 2],
    /// `commit = "peer-and-disk"`: a copy is synced all the time.
    synced: bool,
}

impl Luck {
    fn new(seed: u64) -> Luck {
        let mut luck = Luck {
            rng: StdRng::seed_from_u64(seed),
            arbiter: Arbiter::Nobody,
            disks: [Disk::Faulty; 2],
            synced: false,
        };
        luck.arbiter = luck.one_of(&[Arbiter::Witness, Arbiter::Witness, Arbiter::Etcd, Arbiter::Nobody]);
        luck.disks = [(); 2].map(|()| luck.one_of(&[Disk::Faulty, Disk::Faulty, Disk::Small, Disk::Real]));
        luck.synced = luck.rng.random_range(0..3) == 0;
        luck
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.rng.random_range(0..all.len())]
    }

    /// A fault that may come behind what is `before`: what it was drawn from, its lines, and what is excused for it.
    fn fault(&mut self, before: &str) -> (&'static str, String, Excused) {
        loop {
            let nodes = if self.rng.random() { ["a", "b"] } else { ["b", "a"] };
            let (kind, text, excused) = if self.rng.random_range(0..100) < TWO {
                (SECOND, self.two(nodes), Apart)
            } else {
                let (kind, excused) = self.one_of(FAULTS);
                (kind, self.fill(kind, nodes), excused)
            };
            if self.may(before, &text) {
                return (kind, text, excused);
            }
        }
    }

    /// A second fault while the first lasts, at the other node, or when it is just over, at either.
    fn two(&mut self, [x, y]: [&str; 2]) -> String {
        let (lasts, turned): (bool, bool) = (self.rng.random(), self.rng.random());
        let first = self.one_of(SUDDEN);
        let second = loop {
            let second = self.one_of(SUDDEN);
            // There is one witness, and it dies once.
            if !(lasts && first.0 == KILL_WITNESS && second.0 == KILL_WITNESS) {
                break second;
            }
        };
        let others = if lasts || turned { [y, x] } else { [x, y] };
        let [harm, heal] = [first.0, first.1].map(|part| self.fill(part, [x, y]));
        let [more_harm, more_heal] = [second.0, second.1].map(|part| self.fill(part, others));
        let [soon, pause] = [1..4, 1..12].map(|time: Range<u64>| hold(y, self.rng.random_range(time)));
        match (lasts, turned) {
            (true, true) => format!("{SECOND}{harm}{soon}{more_harm}{pause}{heal}{more_heal}"),
            (true, false) => format!("{SECOND}{harm}{soon}{more_harm}{pause}{more_heal}{heal}"),
            (false, _) => format!("{SECOND}{harm}{pause}{heal}{soon}{more_harm}{pause}{more_heal}"),
        }
    }

    /// The lines of a template.
    fn fill(&mut self, template: &str, nodes: [&str; 2]) -> String {
        let service = self.one_of(SERVICES);
        let lines = template.split("; ").map(|line| {
            if line == "PAUSE" {
                return hold(nodes[1], self.rng.random_range(1..12));
            }
            let words = line.split(' ').map(|word| self.word(word, nodes, service));
            words.collect::<Vec<_>>().join(" ") + "\n"
        });
        lines.collect()
    }

    fn word(&mut self, word: &str, [x, y]: [&str; 2], service: &str) -> String {
        let word = self.one_of(&word.split('|').collect::<Vec<_>>());
        match word.trim_matches('"') {
            "X" => word.replace('X', x),
            "Y" => word.replace('Y', y),
            "Ns" => word.replace('N', &self.rng.random_range(1..12u64).to_string()),
            "SERVICE" => word.replace("SERVICE", service),
            "HARM" => self.one_of(HARMS).to_owned(),
            "FOREIGN" => self.one_of(FOREIGN).to_owned(),
            "AILMENT" => self.one_of(AILMENTS).to_owned(),
            _ => word.to_owned(),
        }
    }

    /// Whether a fault can be played in this scenario, behind what is `before`.
    fn may(&self, before: &str, fault: &str) -> bool {
        let witness = self.arbiter != Arbiter::Nobody || !fault.contains("witness");
        // A node has one bug in one run of a scenario, which is met once, by somebody who is at home where he was at first.
        let panics =
            fault.starts_with("panic") && (before.contains("\npanic ") || before.contains("rebalance"));
        // The other cluster is made once.
        let other = "of other cluster";
        let again = fault.contains(other) && before.contains(other);
        let synced = self.synced || !fault.contains("copy sync");
        // What an etcd does to its disk is its own affair.
        let own = self.arbiter == Arbiter::Witness
            || !(fault.contains("power off witness") || fault.contains("witness write"));
        witness && own && synced && !panics && !again && fault.lines().all(|line| self.has_disk_for(line))
    }

    /// Whether the disks of this scenario can do what a line does to them.
    fn has_disk_for(&self, line: &str) -> bool {
        let has = |node: &str, disk: Disk| self.disks[usize::from(node == "b")] == disk;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["power", "off", "witness"] | ["disk", "witness", ..] => true,
            ["power", "off", ref nodes @ ..] => nodes.iter().all(|&node| has(node, Disk::Faulty)),
            ["disk", node, "full" | "free"] => has(node, Disk::Small),
            ["disk", node, "read-only" | "writable"] => has(node, Disk::Real),
            ["disk", _, "torn" | "rotten"] | ["disk", _, "copy", "torn"] => true,
            ["disk", _, "store", "lost" | "damaged" | "of", ..] => true,
            ["disk", node, ..] => has(node, Disk::Faulty),
            _ => true,
        }
    }
}

/// A node that runs has not ended, nor has one that was killed: so long is waited.
fn hold(node: &str, seconds: u64) -> String {
    format!("hold not {node} ended {seconds}s\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scenario::language::parse;

    #[test]
    fn every_fault_can_be_read_whatever_is_drawn_for_it() {
        let mut luck = Luck::new(1);
        let sudden = SUDDEN.iter().flat_map(|(harm, heal)| [*harm, *heal]);
        for template in FAULTS.iter().map(|(template, _)| *template).chain(sudden) {
            for _ in 0..50 {
                let text = luck.fill(template, ["a", "b"]);
                let script = parse("soak", &format!("# Shows.\nwitness\n{HEAD}{CLIENTS}{text}ledger\n"));
                script.unwrap_or_else(|error| panic!("{error}\n{text}"));
                let left = |c: char| matches!(c, '|' | 'X' | 'Y');
                assert!(!text.contains(left) && !text.contains("SERVICE") && !text.contains("Ns"), "{text}");
            }
        }
    }

    #[test]
    fn whatever_is_drawn_can_be_played() {
        for seed in 0..1_000 {
            let text = draw(seed, false);
            parse("soak", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        }
        for seed in 0..20 {
            let text = draw(seed, true);
            parse("soak", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(text.matches(HEALED).count(), LONG);
        }
    }

    #[test]
    fn a_thousand_seeds_draw_every_fault() {
        let all: Vec<(String, Vec<&str>)> = (0..1_000).map(|seed| drawn(seed, false)).collect();
        let kinds: BTreeSet<&str> = all.iter().flat_map(|(_, kinds)| kinds.iter().copied()).collect();
        for kind in FAULTS.iter().map(|(template, _)| *template).chain([SECOND]) {
            assert!(kinds.contains(kind), "{kind:?} is never drawn");
        }
        for what in [HARMS, FOREIGN, AILMENTS, SERVICES].into_iter().flatten() {
            assert!(all.iter().any(|(text, _)| text.contains(what)), "{what:?} is never drawn");
        }
        let seconds: Vec<&str> = all.iter().flat_map(|(text, _)| text.split(SECOND).skip(1)).collect();
        for (harm, _) in SUDDEN {
            let begin = harm.split(' ').next().unwrap();
            assert!(seconds.iter().any(|text| text.starts_with(begin)), "{harm:?} is never the first of two");
        }
    }

    #[test]
    fn each_policy_has_its_faults_a_bug_is_met_once_and_what_is_excused_is_what_was_drawn() {
        let all: Vec<String> = (0..2_000).map(|seed| draw(seed, false)).collect();
        let wanted =
            ["clock ", "service stop", "cut a -> b", "path ", "panic a\n", "power off ", "full", SECOND];
        for arbiter in ["\nwitness\n", "\netcd\n", "policy available\n"] {
            let drawn: Vec<&String> = all.iter().filter(|text| text.contains(arbiter)).collect();
            for line in wanted {
                assert!(drawn.iter().any(|text| text.contains(line)), "no {line:?} with {arbiter:?}");
            }
        }
        for text in &all {
            let alone = text.contains("policy available");
            assert!(text.matches("\npanic ").count() <= 1, "{text}");
            assert!(!alone || !text.contains("witness"), "{text}");
            let apart = alone && (text.contains("unplug") || text.contains(SECOND));
            assert_eq!(text.ends_with("lead alone\n"), apart, "{text}");
            let forced = text.contains("force-active");
            assert!(alone || forced || text.ends_with("60s\nledger\n"), "{text}");
        }
    }

    /// What a line breaks, and the line that ends it. A fault of one call that is cut short or late may not have been met.
    fn breaks(line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let each = |does: &str, nodes: &[&str]| -> Vec<String> {
            nodes.iter().map(|node| format!("{does} {node}")).collect()
        };
        match words[..] {
            ["kill" | "stop", ref nodes @ ..] | ["power", "off", ref nodes @ ..] => each("start", nodes),
            ["wait", "witness", "ended", ..] => each("start", &["witness"]),
            ["wait", node, "ended", _] => vec![format!("start {node}")],
            ["pause", node, "releasing"] => each("continue", &[node]),
            ["pause", ref nodes @ ..] => each("continue", nodes),
            ["unplug", node] => vec![format!("plug {node}")],
            ["cut" | "path", ..] => vec!["mend".to_owned()],
            ["disk", node, "slow" | "stalls", _] | ["disk", node, "store", "fails"] => {
                vec![format!("disk {node} well")]
            }
            ["disk", node, .., "short", "once"] => vec![format!("disk {node} well")],
            ["disk", node, "full"] => vec![format!("disk {node} free")],
            ["disk", node, "read-only"] => vec![format!("disk {node} writable")],
            ["disk", node, "of", ..] => vec![format!("disk {node} put back")],
            ["failover", node] => vec![format!("fallback {node}")],
            ["tandem", _, "\"ha", "disable\""] => vec!["ha enable".to_owned()],
            ["tandem", node, "\"config", "set", "srm.disable_automatics", "true\""] => {
                vec![format!("{node} automatics")]
            }
            _ => Vec::new(),
        }
    }

    fn mends(line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [does @ ("start" | "continue"), ref nodes @ ..] => {
                nodes.iter().map(|node| format!("{does} {node}")).collect()
            }
            ["tandem", _, "\"ha", "enable\""] => vec!["ha enable".to_owned()],
            ["tandem", node, "\"config", "set", "srm.disable_automatics", "false\""] => {
                vec![format!("{node} automatics")]
            }
            _ => vec![line.to_owned()],
        }
    }

    /// HEALED waits for what the pair does by itself; what was broken from outside the fault itself puts right.
    #[test]
    fn every_fault_is_put_right_before_the_pair_must_be_well() {
        for seed in 0..1_000 {
            let text = draw(seed, seed % 50 == 0);
            let mut broken = BTreeSet::new();
            for line in text.lines() {
                if line == "wait protected 120s" {
                    assert!(broken.is_empty(), "{broken:?} is missing in\n{text}");
                }
                broken.extend(breaks(line));
                mends(line).iter().for_each(|mended| _ = broken.remove(mended));
            }
            assert!(broken.is_empty(), "{broken:?} is missing in\n{text}");
        }
    }
}
