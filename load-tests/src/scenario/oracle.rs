//! The end of every scenario: what must be so whatever has happened.

use serde_json::Value;

use super::language::{Books, Node, Step};
use super::world::World;

/// Most memory that a node may have in RAM. A pair with a few dozen users takes a tenth of it.
const MEMORY: u64 = 300 << 20;

impl World {
    /// Closes the books; what is wrong, a line each.
    pub(super) fn close(&mut self, books: Books, steps: &[Step]) -> Vec<String> {
        let mut wrong = self.crowd.as_mut().expect("everybody has logged in").settle(books);
        if !matches!(books, Books::Apart(_)) {
            wrong.extend(self.watch.both_alone().into_iter().take(3));
        }
        for node in Node::BOTH {
            wrong.extend(self.health(node, steps));
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

    /// It runs, has not panicked where it was not meant to, is not too big, and answers the operator.
    fn health(&mut self, node: Node, steps: &[Step]) -> Vec<String> {
        let mut wrong = Vec::new();
        match self.server_mut(node).rss() {
            None => wrong.push(format!("{node} does not run: {:?}", self.server_mut(node).ended())),
            Some(bytes) if bytes > MEMORY => wrong.push(format!("{node} has {} MiB in RAM", bytes >> 20)),
            Some(bytes) => self.watch.tell(&format!("{node} has {} MiB in RAM", bytes >> 20)),
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
