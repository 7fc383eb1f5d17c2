//! The end of every scenario: what must be so whatever has happened.

use std::time::Duration;

use serde_json::Value;

use super::language::{Books, Condition, Node, Step};
use super::world::World;

/// Most memory that a node may ever have in RAM. A pair with a few dozen users takes a tenth of it.
const MEMORY: u64 = 300 << 20;

/// Longest wait for both nodes to be a pair that holds, and shows, the same.
const AGREED: Duration = Duration::from_secs(30);

impl World {
    /// Closes the books; what is wrong, a line each.
    pub(super) fn close(&mut self, books: Books, steps: &[Step]) -> Vec<String> {
        let mut wrong = self.crowd.as_mut().expect("everybody has logged in").settle(books);
        if !matches!(books, Books::Apart(_)) {
            wrong.extend(self.watch.both_alone().into_iter().take(3));
        }
        for node in Node::BOTH {
            wrong.extend(self.health(node, steps));
            wrong.extend(self.told_in_vain(node, steps));
        }
        // Who does not run was told of just now: no scenario may end so.
        if Node::BOTH.into_iter().all(|node| self.server_mut(node).runs()) {
            wrong.extend(self.agreed().err());
        }
        match (self.served(Node::A), self.served(Node::B)) {
            (Ok(a), Ok(b)) if a == b => {
                let nobody = a.iter().filter(|(_, owner)| owner.is_empty()).count();
                if nobody > 0 {
                    wrong.push(format!("{nobody} sessions are served by nobody: {a:?}"));
                }
            }
            (Ok(a), Ok(b)) => wrong.push(format!("the nodes differ about who serves whom: {a:?}, {b:?}")),
            (a, b) => wrong.extend([a.err(), b.err()].into_iter().flatten()),
        }
        wrong
    }

    /// Each is the other's standby, both hold the same, and both show the operator the same row of the table of states.
    fn agreed(&mut self) -> Result<(), String> {
        for what in [Condition::Pair, Condition::Same] {
            self.until(AGREED, |world| world.check(&what))?;
        }
        self.until(AGREED, |world| world.one_row())
    }

    fn one_row(&self) -> Result<(), String> {
        let row = |node| self.watch.status(node).and_then(|status| status.row);
        match Node::BOTH.map(row) {
            [Some(a), Some(b)] if a == b => Ok(()),
            [a, b] => Err(format!("the nodes show different rows of the table, or none: {a:?}, {b:?}")),
        }
    }

    /// Beside a witness at most one node leads at every moment, unless the operator overrules it: nobody was told anything, by
    /// this node alone, of what it then set aside of its own log.
    fn told_in_vain(&mut self, node: Node, steps: &[Step]) -> Vec<String> {
        let overruled =
            |step: &Step| matches!(step, Step::Tandem(_, command) if command.starts_with("force-"));
        if self.witness().is_err() || steps.iter().any(overruled) {
            return Vec::new();
        }
        let in_vain = |event: &String| {
            event.starts_with("tail-set-aside the end of a log (Own)")
                && !event.contains("of which 0 had been released")
        };
        match self.events(node) {
            Ok(events) => {
                events.into_iter().filter(in_vain).map(|event| format!("{node}: {event}")).collect()
            }
            Err(error) => vec![error],
        }
    }

    /// It runs, has not panicked where it was not meant to, was never too big, and answers the operator.
    fn health(&mut self, node: Node, steps: &[Step]) -> Vec<String> {
        let mut wrong = Vec::new();
        match self.server_mut(node).peak_rss() {
            None => wrong.push(format!("{node} does not run: {:?}", self.server_mut(node).ended())),
            Some(bytes) if bytes > MEMORY => wrong.push(format!("{node} had {} MiB in RAM", bytes >> 20)),
            Some(bytes) => self.watch.tell(&format!("{node} had {} MiB in RAM", bytes >> 20)),
        }
        let meant = [Step::Panic(node), Step::PanicStream(node), Step::PanicServices(node)];
        let meant = steps.iter().filter(|step| meant.contains(step)).count();
        let log = self.server(node).whole_log();
        let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked at")).collect();
        if panics.len() > meant {
            wrong.push(format!("{node} panicked: {panics:?}"));
        }
        wrong.extend(self.server(node).tandem(&self.net, &["status"], "").err());
        wrong
    }

    /// Every session, and who serves it as a node sees it. Each stands there once.
    fn served(&self, node: Node) -> Result<Vec<(String, String)>, String> {
        let said = self.server(node).tandem(&self.net, &["user", "sessions", "--json"], "")?;
        let all: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let sessions = all["sessions"].as_array().ok_or_else(|| format!("no sessions in {said}"))?;
        let mut served: Vec<_> = sessions
            .iter()
            .map(|s| (format!("{}/{}", text(&s["user"]), text(&s["resource"])), text(&s["owner"])))
            .collect();
        served.sort();
        let twice = served.windows(2).find(|pair| pair[0].0 == pair[1].0);
        match twice {
            Some(pair) => Err(format!("at {node} a session is there twice: {pair:?}")),
            None => Ok(served),
        }
    }
}
