//! Keys, pairs, and that every key whose value a record changes is noted: a checkpoint that lacked one would be a store
//! that is not the state.

use std::collections::BTreeMap;

use super::*;
use crate::ids::{Away, Epoch, Mode, Reg, Term};
use crate::record::{Flag, Forward, Verifiers};
use crate::state::{Entry, Item};

#[test]
fn keys_are_read_back_and_sorted_by_their_kind() {
    let at = Position { seq: 258, inc: u64::MAX };
    let keys = [
        Key::Forward(RecordId { log: NodeIx::B, at, index: 70_000 }),
        Key::Groups,
        Key::Kept(StanzaId { session: SmId([7; 16]), number: 9 }),
        Key::Session(SmId([255; 16])),
        Key::User(BareJid::parse("romeo@example.org").unwrap()),
    ];
    let bytes: Vec<Vec<u8>> = keys.iter().map(Key::to_bytes).collect();
    assert!(bytes.is_sorted());
    for (key, bytes) in keys.iter().zip(&bytes) {
        assert_eq!(Key::read(bytes).as_ref(), Some(key));
        assert_eq!(Key::read(&bytes[..bytes.len() - 1]).filter(|k| k == key), None);
    }
    assert_eq!(Key::read(b""), None);
    assert_eq!(Key::read(b"x"), None);
}

#[test]
fn a_pair_that_no_state_wrote_is_refused() {
    let mut state = State::default();
    assert_eq!(state.set(b"z", b""), Err(PairError("key")));
    assert_eq!(state.set(b"g", b""), Err(PairError("value")));
    assert_eq!(state, State::default());
}

/// The types of all records.
const TYPES: [u16; 24] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 21, 30, 31, 32, 33, 34, 35];

/// One that no log brought.
const NO_FORWARD: RecordId = RecordId { log: NodeIx::A, at: Position { seq: 0, inc: 0 }, index: 0 };

/// Draws records for a state, of few users, so that they meet.
struct Dice {
    bits: u64,
    seq: u64,
    now_ms: u64,
}

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.bits ^= self.bits << 13;
        self.bits ^= self.bits >> 7;
        self.bits ^= self.bits << 17;
        (self.bits >> 11) % n
    }

    fn on(&mut self) -> bool {
        self.below(2) == 0
    }

    fn user(&mut self) -> BareJid {
        BareJid::parse(&format!("u{}@d", self.below(3))).unwrap()
    }

    fn group(&mut self) -> NodeIx {
        NodeIx::BOTH[self.below(2) as usize]
    }

    /// One that is there, mostly.
    fn session(&mut self, state: &State) -> SmId {
        let nth = self.below(8).min(self.below(8)) as usize;
        let mut all = state.sessions().map(|(id, _)| id);
        all.nth(nth).unwrap_or(SmId([0xee; 16]))
    }

    /// One of a few, so that several resources have the same.
    fn stanza_id(&mut self) -> StanzaId {
        StanzaId { session: SmId([0xdd; 16]), number: self.below(5) as u32 }
    }

    fn forward(&mut self) -> Forward {
        Forward { to: (*self.user()).clone(), id: self.stanza_id(), stanza: stanza() }
    }

    fn effects(&mut self, state: &State) -> Vec<Effect> {
        (0..self.below(4)).map(|_| self.effect(state)).collect()
    }

    fn effect(&mut self, state: &State) -> Effect {
        let (session, to) = (self.session(state), (*self.user()).clone());
        match self.below(12) {
            0 | 1 => Effect::Out { to: session, id: self.stanza_id(), keep: self.on(), stanza: stanza() },
            2 => {
                let about = self.on().then_some(to);
                Effect::Gap { about, to: vec![session, self.session(state)] }
            }
            3 => {
                let (user, id, at_ms) = (self.user(), self.stanza_id(), self.now_ms);
                Effect::Offline { user, id, at_ms, open: true, due: vec!["r1".into()], stanza: stanza() }
            }
            4 => Effect::Forward(self.forward()),
            5 => Effect::Offer(self.forward()),
            6 => {
                let priority = self.on().then_some(self.below(3) as i8);
                Effect::Presence { session, priority, stanza: stanza() }
            }
            7 => Effect::FlushOffline { session, count: self.below(3) as u32 },
            8 => {
                let to = vec![self.user(), self.user()];
                Effect::FanOut { id: self.stanza_id(), to, stanza: stanza() }
            }
            9 => {
                let item = self.on().then(Item::default);
                Effect::Roster { user: self.user(), contact: self.user(), item, version: None }
            }
            10 => {
                let flag = if self.on() { Flag::Carbons } else { Flag::Interested };
                Effect::Flag { session, flag, on: self.on() }
            }
            _ => Effect::Directed { session, to, on: self.on() },
        }
    }

    fn verifiers(&mut self) -> Verifiers {
        Verifiers { iterations: self.below(100) as u32, ..Verifiers::default() }
    }

    fn lead(&mut self) -> Record {
        let term = Term(self.seq / 4 + self.below(4));
        let mode = if self.on() { Mode::Pair } else { Mode::Solo };
        let reg = Reg { term, primary: self.group(), mode, settled: Term(self.below(term.0 + 1)) };
        Record::Lead { group: self.group(), reg, at_ms: self.now_ms, late: self.on() }
    }

    fn record(&mut self, state: &State) -> Record {
        let (user, session, at_ms) = (self.user(), self.session(state), self.now_ms);
        let s = state.session(session);
        let (acked, waiting) = s.map_or((0, 0), |s| (s.acked, s.out.len() as u64));
        let h = acked + self.below(waiting + 2) as u32;
        let nth = self.below(4) as usize;
        let forward = state.undone().nth(nth).map_or(NO_FORWARD, |(id, _)| id);
        match TYPES[self.below(TYPES.len() as u64) as usize] {
            1 => self.lead(),
            2 => Record::UserAdd { user, home: self.group(), verifiers: self.verifiers() },
            3 => {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&self.bits.to_be_bytes());
                let (session, resource) = (SmId(id), format!("r{}", self.below(3)).into());
                Record::Bind { session, user, resource, at_ms, effects: self.effects(state) }
            }
            4 => Record::Enable { session, resume_ms: self.below(2) * 1_000 },
            5 => Record::Dual { session },
            35 => Record::Token { session, number: h },
            6 => Record::SmIn { session, number: self.below(9) as u32, effects: self.effects(state) },
            7 => Record::Trim { session, h },
            8 => Record::Resumed { session, h },
            9 => Record::Detached { session, at_ms },
            10 => Record::End { session, at_ms, effects: self.effects(state) },
            11 => {
                let epoch = Epoch { term: self.seq, moves: self.below(3) as u32 };
                let (to, applied_peer) = (self.group(), Position::default());
                Record::HandOver { user, to, epoch, applied_peer, counters: Vec::new() }
            }
            12 => Record::Absorb { from: self.group(), into: self.group() },
            13 => Record::Done { forward, effects: self.effects(state) },
            14 => Record::Away { group: self.group(), why: self.on().then_some(Away::Operator) },
            15 => Record::Kept { stanza: self.stanza_id(), at_ms, effects: self.effects(state) },
            16 => Record::Reattached { session, written: h },
            20 => Record::Lapse { session, effects: self.effects(state) },
            21 => Record::Flush { session, count: self.below(3) as u32 },
            30 => Record::UserPasswd { user, verifiers: self.verifiers() },
            31 if self.below(4) == 0 => Record::UserRemove { user, effects: self.effects(state) },
            33 => {
                let (number, by) = (self.below(40), self.group());
                Record::Group(GroupInfo { number, by, ha: self.on(), ..GroupInfo::default() })
            }
            34 => Record::Assign { user, home: self.on().then(|| self.group()) },
            31 => Record::SmIn { session, number: 1, effects: self.effects(state) },
            _ => Record::Cancel { forward, effects: self.effects(state) },
        }
    }
}

fn stanza() -> Bytes {
    Bytes::from_static(b"<message/>")
}

/// The whole state as pairs.
fn pairs(state: &State) -> BTreeMap<Key, Bytes> {
    let mut all = state.clone();
    all.note_all();
    let keys = all.take_changes();
    keys.into_iter().filter_map(|key| state.value(&key).map(|value| (key, value))).collect()
}

/// How many copies of messages wait that another resource has seen.
fn seen(state: &State) -> usize {
    let entries = state.sessions().flat_map(|(_, s)| &s.out);
    entries.filter(|entry| matches!(entry, Entry::Stanza { seen: true, .. })).count()
}

fn keys_follow_each_other(state: &State, all: &BTreeMap<Key, Bytes>) {
    let mut sorted: Vec<Vec<u8>> = all.keys().map(Key::to_bytes).collect();
    sorted.sort();
    let after = |key: &[u8]| state.keys_after(key).map(|key| key.to_bytes()).collect::<Vec<_>>();
    assert_eq!(after(b""), sorted);
    for (number, key) in sorted.iter().enumerate() {
        assert_eq!(after(key), sorted[number + 1..]);
    }
}

#[test]
fn every_key_whose_value_a_record_changes_is_noted() {
    // How often a record of each type changed something, and how often a count did at another resource.
    let (mut changes, mut at_others) = (BTreeMap::<u16, u32>::new(), 0);
    for seed in 1..=200u64 {
        let mut dice = Dice { bits: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, seq: 0, now_ms: 0 };
        let mut state = State::default();
        state.note_changes();
        let mut before = pairs(&state);
        for seq in 1..=400 {
            dice.seq = seq;
            dice.now_ms += dice.below(6 * 3_600_000);
            let record = dice.record(&state);
            let at = Position { seq, inc: 1 };
            let seen_before = seen(&state);
            state.apply(&mut Place { log: dice.group(), at, forwards: 0 }, &record);
            assert!(state.sessions.agrees(), "seed {seed}, {seq}: {record:?}");
            let noted = state.take_changes();
            let after = pairs(&state);
            let differs = |key: &&Key| before.get(key) != after.get(key);
            let differ: BTreeSet<Key> = before.keys().chain(after.keys()).filter(differs).cloned().collect();
            assert!(differ.is_subset(&noted), "seed {seed}, {seq}: {record:?}: {differ:?}, noted {noted:?}");
            if let Record::Trim { session, .. } | Record::Resumed { session, .. } = &record {
                // They come with every few stanzas: what did not change is not written.
                let more: Vec<&Key> = noted.difference(&differ).collect();
                assert!(more.is_empty() || more == [&Key::Session(*session)], "{more:?} by {record:?}");
                at_others += u32::from(seen(&state) > seen_before);
            }
            *changes.entry(record.type_number()).or_default() += u32::from(!differ.is_empty());
            before = after;
        }
        keys_follow_each_other(&state, &before);
    }
    for number in TYPES {
        assert!(changes.get(&number).is_some_and(|n| *n > 0), "no record of type {number} changed anything");
    }
    assert!(at_others > 0, "no copy at another resource was marked");
}

/// It may come each second, while a join is called off again and again.
#[test]
fn who_leads_said_once_more_touches_nobody() {
    let mut state = State::default();
    state.note_changes();
    let mut noted = |record: &Record| {
        let at = Position { seq: 1, inc: 1 };
        state.apply(&mut Place { log: NodeIx::A, at, forwards: 0 }, record);
        state.take_changes()
    };
    let user = BareJid::parse("u@d").unwrap();
    noted(&Record::UserAdd { user: user.clone(), home: NodeIx::A, verifiers: Verifiers::default() });
    let reg = Reg { term: Term(6), primary: NodeIx::A, mode: Mode::Solo, settled: Term(0) };
    let lead = Record::Lead { group: NodeIx::A, reg, at_ms: 1, late: false };
    assert_eq!(noted(&lead), BTreeSet::from([Key::Groups, Key::User(user)]));
    assert_eq!(noted(&lead), BTreeSet::from([Key::Groups]));
}

#[test]
fn values_of_the_version_before_are_read_and_what_is_newer_is_skipped() {
    let mut state = State::default();
    let mut place = Place { log: NodeIx::A, at: Position::default(), forwards: 0 };
    let user = BareJid::parse("u@d").expect("an account");
    let add = Record::UserAdd { user: user.clone(), home: NodeIx::B, verifiers: Verifiers::default() };
    state.apply(&mut place, &add);
    state.apply(&mut place, &Record::Assign { user: user.clone(), home: None });
    let group = GroupInfo { number: 7, ha: false, ..GroupInfo::default() };
    state.apply(&mut place, &Record::Group(group.clone()));
    let value = |key: &Key| state.value(key).expect("a value").to_vec();
    let (account, groups) = (Key::User(user.clone()), Key::Groups);
    let read = |account_value: &[u8], groups_value: &[u8]| {
        let mut other = State::default();
        other.set(&account.to_bytes(), account_value).expect("an account");
        other.set(&groups.to_bytes(), groups_value).expect("groups");
        (other.user(&user).map(|u| u.assigned), other.group().clone())
    };
    let (new_account, new_groups) = (value(&account), value(&groups));
    assert_eq!(read(&new_account, &new_groups), (Some(false), group.clone()));
    let old_account = &new_account[..new_account.len() - 1];
    let old_groups = &new_groups[..new_groups.len() - write(&group).len()];
    assert_eq!(read(old_account, old_groups), (Some(true), GroupInfo::default()));
    let newer = |value: &[u8]| [value, b"more"].concat();
    assert_eq!(read(&newer(&new_account), &newer(&new_groups)), (Some(false), group));
}

#[test]
fn a_session_of_either_version_before_is_read() {
    let mut state = State::default();
    let mut place = Place { log: NodeIx::A, at: Position::default(), forwards: 0 };
    let user = BareJid::parse("u@d").expect("an account");
    let add = Record::UserAdd { user: user.clone(), home: NodeIx::A, verifiers: Verifiers::default() };
    let session = SmId([7; 16]);
    let bind = Record::Bind { session, user, resource: "r".into(), at_ms: 1, effects: Vec::new() };
    [add, bind].iter().for_each(|record| state.apply(&mut place, record));
    let key = Key::Session(session);
    let value = state.value(&key).expect("a value").to_vec();
    // Without what was given early, and without the number of tokens too.
    for shorter in [0, 1, 2] {
        let mut other = State::default();
        other.set(&key.to_bytes(), &value[..value.len() - shorter]).expect("a session");
        assert_eq!(other.session(session), state.session(session), "{shorter} bytes less");
    }
}
