//! The guard against an input that ends the process (D15). A bug that one stanza meets would otherwise end one node, then,
//! sent again, the other, and then each of them whenever it starts.
//!
//! While an input is handled, its name stands where it is found after a crash. The nodes remember the crashes, their own and
//! each other's; an input that was being handled at two of them is not handled any more.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use compact_str::CompactString;
use xmpp_core::error::{StanzaCondition, StreamCondition, StreamError};
use xmpp_core::jid::BareJid;
use xmpp_core::sm::Sm;
use xmpp_core::stanza::{Kind, Stanza};

use super::edge::{Held, Item, Phase};
use super::route::Route;
use super::stanza::DELAY;
use super::{Engine, Input, Output};
use crate::ids::{Conn, RecordId, SmId};
use crate::record::Record;

/// Crashes after which an input is refused.
const REFUSED: u32 = 2;
/// Crashes after which not even its sender is answered: that may be what ends the process.
const DROPPED: u32 = 3;
/// Most names that are noted for one turn. A turn has more only when a node takes over very much at once.
const MOST_PRINTS: usize = 4_096;

/// The name of an input: the same on both nodes and in every run, also when a client sends it again. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Print(pub u64);

impl Print {
    /// Of an element of this user's client, whatever its stream. A stamp that a client adds when it sends again (XEP-0203)
    /// makes no other element.
    fn of_element(user: &BareJid, stanza: &Stanza) -> Print {
        let bytes = &stanza.bytes[..];
        let stamp = if stanza.head.has_child(DELAY, "delay") { stamp(bytes) } else { None };
        let (before, after) = stamp.map_or((bytes, &[][..]), |(from, to)| (&bytes[..from], &bytes[to..]));
        Print::of(|hasher| {
            user.as_str().hash(hasher);
            hasher.write(before);
            hasher.write(after);
        })
    }

    /// Of a stanza that a log brings.
    fn of_forward(id: RecordId) -> Print {
        Print::of(|hasher| id.hash(hasher))
    }

    fn of(feed: impl FnOnce(&mut DefaultHasher)) -> Print {
        let mut hasher = DefaultHasher::new();
        feed(&mut hasher);
        Print(hasher.finish().max(1))
    }
}

/// Where the first `<delay/>` begins and ends.
fn stamp(bytes: &[u8]) -> Option<(usize, usize)> {
    let find = |from: usize, what: &[u8]| {
        let rest = bytes.get(from..)?;
        rest.windows(what.len()).position(|window| window == what).map(|at| from + at)
    };
    let from = find(0, b"<delay")?;
    let open = find(from, b">")?;
    let end = if bytes[open - 1] == b'/' { open + 1 } else { find(open, b"</delay>")? + 8 };
    Some((from, end))
}

/// For tests: what the engine is to panic at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trap {
    /// A client's element with this text in it.
    Element(CompactString),
    /// A stanza with this text in it that a log brings.
    Forward(CompactString),
}

/// What is being handled, and what is not handled any more.
#[derive(Debug, Default)]
pub(super) struct Guard {
    now: Arc<AtomicU64>,
    poison: BTreeMap<Print, u32>,
}

impl Guard {
    /// `print` is being handled; what was before it, within which it is.
    fn enter(&self, print: Print) -> u64 {
        self.now.swap(print.0, Ordering::Relaxed)
    }

    fn leave(&self, before: u64) {
        self.now.store(before, Ordering::Relaxed);
    }

    /// At how many crashes it was being handled, if they are too many.
    fn crashes(&self, print: Print) -> Option<u32> {
        self.poison.get(&print).copied().filter(|crashes| *crashes >= REFUSED)
    }
}

impl Engine {
    /// The name of what is being handled, 0 for nothing: for whoever is left when this panics.
    pub fn being_handled(&self) -> Arc<AtomicU64> {
        self.guard.now.clone()
    }

    /// At how many crashes of either node each input was being handled.
    pub fn set_crashes(&mut self, counts: BTreeMap<Print, u32>) {
        self.guard.poison = counts;
    }

    /// Names of what a turn with these inputs handles, and of the forwards that are about to be processed.
    pub fn prints(&self, inputs: &[Input], forwards: &[RecordId]) -> Vec<Print> {
        let mut prints: Vec<Print> = forwards.iter().map(|id| Print::of_forward(*id)).collect();
        let (mut held, mut undone) = (!forwards.is_empty(), false);
        for input in inputs {
            match input {
                Input::Element { conn, stanza } => prints.extend(self.print_of(*conn, stanza)),
                Input::PeerUp(_) => held = true,
                Input::Serving { .. } | Input::Lead { .. } => (held, undone) = (true, true),
                _ => {}
            }
        }
        if held {
            // What waited for a decision may be handled now.
            for conn in self.edge.holding() {
                for held in self.edge.held(conn).take(MOST_PRINTS) {
                    if let Held::Element(item) = held {
                        prints.extend(self.print_of(conn, &item.stanza));
                    }
                }
            }
        }
        if undone {
            prints.extend(self.state.undone().take(MOST_PRINTS).map(|(id, _)| Print::of_forward(id)));
        }
        prints.extend(self.questions_due(!forwards.is_empty()).map(Print::of_forward));
        prints.truncate(MOST_PRINTS);
        prints
    }

    fn print_of(&self, conn: Conn, stanza: &Stanza) -> Option<Print> {
        Some(Print::of_element(self.edge.user(conn)?, stanza))
    }

    /// Handles an element; `false`: it must wait until it is known who owns the user.
    pub(super) fn try_element(&mut self, conn: Conn, item: &Item, out: &mut Vec<Output>) -> bool {
        let Some(print) = self.print_of(conn, &item.stanza) else { return true };
        if self.guard.crashes(print).is_some() {
            return self.refuse_poison(conn, item, print, out);
        }
        let before = self.guard.enter(print);
        if let Some(Trap::Element(text)) = &self.cfg.trap {
            assert!(!contains(&item.stanza.bytes, text), "a test asked for this panic");
        }
        let handled = self.handle_element(conn, item, out);
        self.guard.leave(before);
        handled
    }

    /// The element is counted, so that its client does not send it again, and not looked into. The session ends.
    fn refuse_poison(&mut self, conn: Conn, item: &Item, print: Print, out: &mut Vec<Output>) -> bool {
        let error = StreamError::new(StreamCondition::InternalServerError)
            .with_text("this element has ended the server before and is not handled any more");
        let Some(Phase::Bound(session)) = self.edge.phase(conn) else {
            out.push(Output::Poison(print));
            return self.fail(conn, error, out);
        };
        let Some(user) = self.state.session(session).map(|s| s.user.clone()) else { return true };
        if !self.serves(&user) {
            return false;
        }
        out.push(Output::Poison(print));
        if item.stanza.head.kind != Kind::Other {
            self.count_unread(conn, session, out);
        }
        for conn in [self.edge.conn_of(session), self.edge.parked_of(session)].into_iter().flatten() {
            self.edge.remove(conn);
            out.push(Output::Close(conn, error.to_bytes(), true));
        }
        self.end_session(session, out);
        true
    }

    fn count_unread(&mut self, conn: Conn, session: SmId, out: &mut Vec<Output>) {
        let Some(number) = self.state.session(session).map(|s| s.inbound.wrapping_add(1)) else { return };
        self.emit(Record::SmIn { session, number, effects: Vec::new() }, out);
        if let Some(s) = self.state.session(session).filter(|s| s.enabled_at.is_some()) {
            out.push(Output::Deliver(conn, Sm::Answer { h: s.h() }.to_bytes()));
        }
    }

    /// Whether a forward is not processed any more; then it is done, and its sender told.
    pub(super) fn is_poison(&mut self, id: RecordId, stanza: &Stanza, out: &mut Vec<Output>) -> bool {
        let print = Print::of_forward(id);
        let Some(crashes) = self.guard.crashes(print) else { return false };
        let mut route = Route::default();
        let whose = self.state.undone_forward(id).map(|forward| forward.id).unwrap_or_default();
        if crashes < DROPPED {
            self.bounce(stanza, whose, StanzaCondition::InternalServerError, &mut route);
        }
        out.push(Output::Poison(print));
        self.emit(Record::Done { forward: id, effects: route.effects }, out);
        true
    }

    /// A forward is being processed; to be given to [`Engine::processed`].
    pub(super) fn processing(&self, id: RecordId, stanza: &Stanza) -> u64 {
        let before = self.guard.enter(Print::of_forward(id));
        if let Some(Trap::Forward(text)) = &self.cfg.trap {
            assert!(!contains(&stanza.bytes, text), "a test asked for this panic");
        }
        before
    }

    /// It was processed.
    pub(super) fn processed(&self, before: u64) {
        self.guard.leave(before);
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_that_is_sent_again_has_the_same_name() {
        let user = BareJid::parse("romeo@example.org").unwrap();
        let print =
            |user: &BareJid, xml: &str| Print::of_element(user, &Stanza::parse(xml.as_bytes()).unwrap());
        let first = print(&user, "<message to='j@d' id='1'><body>x</body></message>");
        for again in [
            "<message to='j@d' id='1'><body>x</body><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/></message>",
            "<message to='j@d' id='1'><delay xmlns='urn:xmpp:delay' stamp='x'>why</delay><body>x</body></message>",
        ] {
            assert_eq!(print(&user, again), first, "{again}");
        }
        for other in [
            "<message to='j@d' id='2'><body>x</body></message>",
            "<message to='j@d' id='1'><body>x</body><delay xmlns='other'/></message>",
        ] {
            assert_ne!(print(&user, other), first, "{other}");
        }
        let nurse = BareJid::parse("nurse@example.org").unwrap();
        assert_ne!(print(&nurse, "<message to='j@d' id='1'><body>x</body></message>"), first);
    }
}
