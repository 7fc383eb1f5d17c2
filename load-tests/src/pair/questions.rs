//! Requests in the simulation: clients ask the server and each other. Whoever asked, and was told that it counts, gets an
//! answer, and no second one (D10).

use std::collections::BTreeMap;

use bytes::Bytes;
use client_sim::sm::Outgoing;
use xmpp_core::stanza::{Kind, Stanza};

use super::rng::Rng;
use super::world::World;

/// One request.
#[derive(Clone, Copy, Debug, Default)]
struct Question {
    /// The session of whoever asked goes on, and so must the promise.
    stands: bool,
    /// Counted in an `<a h/>` or `<resumed h/>`.
    acknowledged: bool,
    /// Shown to whoever was asked.
    shown: bool,
    answers: u32,
    /// The session that was asked ended: what it answered may be lost with it.
    excused: bool,
    /// It was not acknowledged when no node ran, and may be shown and answered twice: see
    /// [`Ledger::nobody_runs`](super::ledger::Ledger::nobody_runs).
    twice: bool,
}

/// All requests, by who asked (a client) and a number.
#[derive(Debug)]
pub struct Questions {
    /// Chance of its own.
    rng: Rng,
    /// Who asked, who was asked (`None`: the server), and what became of it.
    asked: BTreeMap<u64, (usize, Option<usize>, Question)>,
}

impl Questions {
    /// None yet.
    pub fn new(seed: u64) -> Questions {
        Questions { rng: Rng::new(seed ^ 0x7175_6572_7900), asked: BTreeMap::new() }
    }

    /// Both nodes are dead: what is not acknowledged is sent again, and may have been processed.
    pub fn nobody_runs(&mut self) {
        let questions = self.asked.values_mut().map(|(_, _, q)| q);
        questions.filter(|q| !q.acknowledged).for_each(|q| q.twice = true);
    }
}

impl Questions {
    /// Nodes that both led alone have met: what was asked until then may be shown and answered twice.
    pub fn met(&mut self) {
        self.asked.values_mut().for_each(|(_, _, q)| q.twice = true);
    }
}

impl World {
    /// A client that talks may ask something too.
    pub(super) fn questions_talk(&mut self, c: usize) {
        if !self.questions.rng.chance(15) {
            return;
        }
        let to = self.questions.rng.below(self.clients.len());
        let server = self.questions.rng.chance(40) || to == c || self.clients[to].sm_id.is_none();
        let number = self.questions.asked.len() as u64;
        let asked = (!server).then_some(to);
        let question = Question { stands: true, ..Question::default() };
        self.questions.asked.insert(number, (c, asked, question));
        let address = match asked {
            None => "d".to_owned(),
            Some(to) => format!("{}/{}", self.clients[to].user, self.clients[to].resource),
        };
        let bytes =
            format!("<iq to='{address}' id='q{number}' type='get'><ping xmlns='urn:xmpp:ping'/></iq>");
        self.clients[c].sm.push(Outgoing { id: format!("q{number}"), bytes: bytes.into(), survives: false });
    }

    /// The server took responsibility.
    pub(super) fn question_counts(&mut self, id: &str) {
        if let Some((_, _, q)) = number(id).and_then(|n| self.questions.asked.get_mut(&n)) {
            q.acknowledged = true;
        }
    }

    /// The session of this client is gone, with what it asked and what it was asked.
    pub(super) fn questions_end(&mut self, c: usize) {
        for (asker, asked, q) in self.questions.asked.values_mut() {
            q.stands &= *asker != c;
            q.excused |= *asked == Some(c);
        }
    }

    /// A client was shown a stanza.
    pub(super) fn questions_show(&mut self, c: usize, stanza: &Stanza) {
        let id = stanza.head.id.as_deref().filter(|_| stanza.head.kind == Kind::Iq);
        let Some(n) = id.and_then(number) else { return };
        let Some((asker, asked, q)) = self.questions.asked.get_mut(&n) else {
            return self.fail(format!("q{n} was asked by nobody"));
        };
        let wrong = match (stanza.head.type_.as_deref(), &stanza.head.from) {
            (Some("get"), Some(from)) => {
                let bytes = Bytes::from(format!("<iq to='{from}' id='q{n}' type='result'/>"));
                self.clients[c].sm.push(Outgoing { id: String::new(), bytes, survives: false });
                let again = std::mem::replace(&mut q.shown, true) && !q.excused && !q.twice;
                *asked != Some(c) || again
            }
            (type_, _) => {
                let called_off = String::from_utf8_lossy(&stanza.bytes).contains("remote-server-timeout");
                self.coverage.called_off += u32::from(called_off);
                self.coverage.answers += 1;
                // Somebody who got it before it was called off may answer all the same.
                q.excused |= called_off;
                q.answers += 1;
                let bad = (q.answers > 1 && !q.twice) || type_ == Some("error");
                *asker != c || (bad && q.stands && !q.excused)
            }
        };
        if wrong && !self.excuses() {
            self.fail(format!(
                "u{c} is shown {} for {:?}",
                stanza.head.type_.as_deref().unwrap_or(""),
                self.questions.asked[&n]
            ));
        }
    }

    /// A request that counts and has no answer.
    pub(super) fn unanswered(&self) -> Option<String> {
        let open = |q: &Question| q.stands && q.acknowledged && !q.excused && q.answers == 0;
        let found = self.questions.asked.iter().find(|(_, (_, _, q))| open(q));
        found.map(|(n, (asker, asked, q))| format!("q{n} of u{asker} to {asked:?} has no answer: {q:?}"))
    }
}

fn number(id: &str) -> Option<u64> {
    id.strip_prefix('q')?.parse().ok()
}
