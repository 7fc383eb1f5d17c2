//! The check: whether the peer holds of this node's users what this node holds, and the store what the logs say.
//!
//! Accounts are compared in parts, while everything goes on. A part says how far our log was when its digests were made;
//! the peer makes its own when it has applied our log up to there, no further. What changes owners meanwhile, or has just done
//! so, may look different once: it is looked at again, and counts only if it is different three times.
//!
//! The store holds the state as it was at its mark; what changed since is known, and all else must be equal.

use std::collections::BTreeSet;

use bytes::Bytes;
use presence_engine::ids::{Mode, NodeIx};
use presence_engine::state::{Key, State};
use serde::{Deserialize, Serialize};
use xmpp_core::jid::BareJid;

use super::commit::Release;
use super::{Do, Driver, Link};
use crate::log::Storage;
use crate::msg::Msg;
use crate::store::{StoreError, hash};

/// Accounts in one part, and those that are passed over for it because the peer owns them.
const USERS: usize = 256;
const PASSED: usize = 4_096;
/// Bytes of values in one part, about.
const BYTES: usize = 256 << 10;
/// Bytes that one read of the store brings, about.
const CHUNK: usize = 64 << 10;
/// How often what is different is looked at.
const ATTEMPTS: u8 = 3;
/// Calls of [`Driver::check_next`] that an answer, a pair, or a store that is being written is waited for.
const PATIENCE: u32 = 240;
/// Names in a report.
const NAMED: usize = 100;

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Accounts of this node that were compared with the peer's copies; `None`: there was no peer to do that with.
    pub users: Option<u64>,
    /// How many of them the peer holds otherwise.
    pub different: u64,
    /// Their names, the first 100.
    pub named: Vec<String>,
    /// Pairs of the store that were compared with the state; `None`: it holds no checkpoint, or was being written all the
    /// time.
    pub pairs: Option<u64>,
    /// Pairs that are missing, too many, or others. The store was then set aside.
    pub wrong: u64,
}

/// One part of the accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The answer has it too.
    pub number: u32,
    /// How far the log was.
    pub at: u64,
    /// Behind which name and up to which; an empty one: to the end. The peer looks for accounts in there that are not
    /// listed. `None`: only those that are.
    pub range: Option<(Bytes, Bytes)>,
    /// Accounts, and the digests of what is held of them; `None`: nothing.
    pub users: Vec<(Bytes, Option<u64>)>,
}

/// A check that is under way.
#[derive(Debug, Default)]
pub(super) struct Check {
    /// Number of the last part.
    number: u32,
    /// Its answer is waited for.
    waits: bool,
    /// Calls that have waited for something since the last part.
    waited: u32,
    /// The peer has checks too.
    pub(super) known: bool,
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    report: Report,
    stage: Stage,
    suspects: BTreeSet<Bytes>,
}

#[derive(Debug)]
enum Stage {
    /// All accounts behind this name.
    All(Bytes),
    /// Those that were different, the next time.
    Again(u8, Vec<Bytes>),
    /// The pairs of the store behind this key; so many calls have found it being written.
    Store(Vec<u8>, u32),
}

fn digest(state: &State, user: &BareJid) -> Option<u64> {
    let of = |key: Key| state.value(&key).map_or(0, |value| hash(&key.to_bytes(), &value));
    let sessions = state.user(user)?.sessions.values();
    Some(sessions.fold(of(Key::User(user.clone())), |sum, id| sum.wrapping_add(of(Key::Session(*id)))))
}

fn name(user: &BareJid) -> Bytes {
    Bytes::copy_from_slice(user.as_str().as_bytes())
}

/// What the peer sent is not always a name; then nothing is held under it.
fn text(name: &[u8]) -> &str {
    std::str::from_utf8(name).unwrap_or_default()
}

fn parse(name: &[u8]) -> Option<BareJid> {
    BareJid::parse(text(name)).ok()
}

/// Names of what the peer holds otherwise here.
fn compare(state: &State, owner: NodeIx, part: &Part) -> Vec<Bytes> {
    let differs =
        |(name, told): &&(Bytes, Option<u64>)| parse(name).and_then(|user| digest(state, &user)) != *told;
    let mut names: Vec<Bytes> = part.users.iter().filter(differs).map(|(name, _)| name.clone()).collect();
    if let Some((after, to)) = &part.range {
        let listed: BTreeSet<&[u8]> = part.users.iter().map(|(name, _)| &name[..]).collect();
        let here = state.users_after(text(after));
        let here = here.take_while(|(user, _)| to.is_empty() || user.as_str().as_bytes() <= &to[..]);
        let here = here
            .filter(|(user, u)| state.owner(u) == Some(owner) && !listed.contains(user.as_str().as_bytes()));
        names.extend(here.map(|(user, _)| name(user)));
    }
    names
}

impl Driver {
    /// Begins a check; [`Driver::check_next`] carries it on. `false`: one is under way.
    pub fn check(&mut self) -> bool {
        let free = self.check.run.is_none();
        if free {
            let (report, stage) = (Report::default(), Stage::All(Bytes::new()));
            self.check.run = Some(Run { report, stage, suspects: BTreeSet::new() });
            (self.check.waits, self.check.waited) = (false, 0);
        }
        free
    }

    /// Whether one is under way.
    pub fn checks(&self) -> bool {
        self.check.run.is_some()
    }

    /// One step, now and then: at most one part of the accounts, or one read of the store.
    pub fn check_next(&mut self, storage: &mut dyn Storage) {
        let Some(mut run) = self.check.run.take() else { return };
        if !matches!(run.stage, Stage::Store(..)) {
            self.check_users(&mut run);
        } else if self.check_store(&mut run, storage) {
            return self.dos.push(Do::Checked(run.report));
        }
        self.check.run = Some(run);
    }

    fn check_users(&mut self, run: &mut Run) {
        let ready = self.are_settled() && self.outgoing.has_sent(self.own.end().seq);
        if !self.outgoing.live() || !self.check.known || self.check.waited > PATIENCE {
            run.report.users = None;
            (run.stage, self.check.waits) = (Stage::Store(Vec::new(), 0), false);
        } else if self.check.waits || !ready {
            self.check.waited += 1;
        } else {
            self.send_part(run);
        }
    }

    /// Both groups are led in Pair, this node serves those that it leads, and the log says so: nobody has taken anything over
    /// that this node has not heard of.
    fn are_settled(&self) -> bool {
        let (state, me) = (self.engine.state(), self.cfg.engine.me);
        NodeIx::BOTH.into_iter().all(|group| {
            let g = group.index();
            let Some(reg) = self.view.regs[g].filter(|reg| reg.mode == Mode::Pair) else { return false };
            let serves = reg.primary != me || self.view.release[g] == Release::Both;
            serves && state.lead(group) == Some(reg)
        })
    }

    fn send_part(&mut self, run: &mut Run) {
        let (state, me) = (self.engine.state(), self.cfg.engine.me);
        let mut users = Vec::new();
        let range = match &mut run.stage {
            Stage::All(after) => {
                let (mut to, mut bytes) = (None, 0);
                let rest = state.users_after(text(after));
                for (passed, (user, u)) in rest.enumerate() {
                    if users.len() == USERS || bytes > BYTES || passed == PASSED {
                        break;
                    }
                    if state.owner(u) == Some(me) {
                        bytes += user.as_str().len() + u.offline.bytes() as usize;
                        users.push((name(user), digest(state, user)));
                    }
                    to = Some(name(user));
                }
                let to = to.filter(|last| state.users_after(text(last)).next().is_some()).unwrap_or_default();
                let from = std::mem::replace(after, to.clone());
                *run.report.users.get_or_insert(0) += users.len() as u64;
                Some((from, to))
            }
            Stage::Again(_, rest) => {
                let some = rest.drain(..rest.len().min(USERS)).filter_map(|known| {
                    let user = parse(&known)?;
                    let ours = state.owner_of(&user).is_none_or(|owner| owner == me);
                    ours.then(|| (known, digest(state, &user)))
                });
                users.extend(some);
                None
            }
            Stage::Store(..) => return,
        };
        self.check.number = self.check.number.wrapping_add(1);
        (self.check.waits, self.check.waited) = (true, 0);
        let (number, at) = (self.check.number, self.own.end().seq);
        self.dos.push(Do::Send(Link::Out, Msg::Check(Part { number, at, range, users })));
    }

    /// The peer's answer to a part.
    pub(super) fn on_checked(&mut self, number: u32, different: Vec<Bytes>) {
        if number != self.check.number || !std::mem::take(&mut self.check.waits) {
            return;
        }
        let Some(run) = &mut self.check.run else { return };
        run.suspects.extend(different);
        let attempt = match &run.stage {
            Stage::All(after) if after.is_empty() => 1,
            Stage::Again(attempt, rest) if rest.is_empty() => *attempt,
            _ => return,
        };
        let suspects = std::mem::take(&mut run.suspects);
        if suspects.is_empty() || attempt == ATTEMPTS {
            let named = suspects.iter().take(NAMED).map(|name| String::from_utf8_lossy(name).into_owned());
            run.report.named = named.collect();
            run.report.different = suspects.len() as u64;
            run.stage = Stage::Store(Vec::new(), 0);
        } else {
            run.stage = Stage::Again(attempt + 1, suspects.into_iter().collect());
        }
    }

    /// How many frames of the peer may be applied before its part is answered.
    pub(super) fn frames_to_check(&self) -> usize {
        let at = self.incoming.part.as_ref().map(|part| part.at.saturating_sub(self.applied.seq));
        at.filter(|frames| *frames > 0).map_or(usize::MAX, |frames| frames as usize)
    }

    /// Answers a part of the peer's once its log is applied up to there.
    pub(super) fn answer_part(&mut self) {
        if let Some(part) = self.incoming.part.take_if(|part| self.applied.seq >= part.at) {
            let different = compare(self.engine.state(), self.cfg.engine.me.peer(), &part);
            self.dos.push(Do::Send(Link::In, Msg::Checked(part.number, different)));
        }
    }

    /// One read of the store. `true`: it was the last.
    fn check_store(&mut self, run: &mut Run, storage: &mut dyn Storage) -> bool {
        let Stage::Store(after, busy) = &mut run.stage else { return true };
        let written = self.writing || self.checkpoint.is_some() || self.installing.is_some();
        if written || self.sends_snapshot() {
            *busy += 1;
            if *busy > PATIENCE {
                run.report.pairs = None;
            }
            return *busy > PATIENCE;
        }
        // One that lacks everything has a mark that says so, and nothing else.
        if !storage.store().is_used() || self.behind {
            return true;
        }
        match self.compare_store(after, &mut run.report, storage) {
            Ok(Some(last)) => {
                *after = last;
                false
            }
            Ok(None) => {
                let wrong = run.report.wrong;
                if wrong > 0 {
                    let why = format!("{wrong} of its pairs are not what the logs say");
                    self.set_store_aside(&StoreError(why), storage);
                }
                true
            }
            Err(error) => {
                run.report.wrong += 1;
                self.set_store_aside(&error, storage);
                true
            }
        }
    }

    /// Compares the pairs behind a key; gives the last that was read.
    fn compare_store(
        &self,
        after: &[u8],
        report: &mut Report,
        storage: &mut dyn Storage,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if storage.store().mark()?.is_none() {
            return Ok(None);
        }
        let state = self.engine.state();
        let pairs = storage.store().scan(after, CHUNK)?;
        let last = pairs.last().map(|(key, _)| key.to_vec());
        let count = report.pairs.get_or_insert(0);
        *count += pairs.len() as u64;
        let mut read = pairs.iter().map(|(key, value)| (&key[..], value)).peekable();
        for key in state.keys_after(after) {
            let bytes = key.to_bytes();
            if last.as_ref().is_some_and(|last| bytes > *last) {
                break;
            }
            // What stands before it in the store has no key in the state: it is gone since, or was never there.
            while let Some((found, _)) = read.next_if(|(found, _)| *found < &bytes[..]) {
                report.wrong += u64::from(!state.has_changed(found));
            }
            let stored = read.next_if(|(found, _)| *found == &bytes[..]).map(|(_, value)| value);
            let right = stored.is_some() && stored == state.value(&key).as_ref();
            report.wrong += u64::from(!right && !state.has_changed(&bytes));
        }
        report.wrong += read.filter(|(found, _)| !state.has_changed(found)).count() as u64;
        Ok(last)
    }
}
