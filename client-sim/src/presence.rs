//! What every client said of its own presence and what its contacts were shown: flickers, repeats, and what was missed.
//!
//! A *flicker* is an `unavailable`, or an `available` other than the last one sent, for a full JID whose owner is logged in
//! and has changed nothing. While a change is on its way, what the contact saw last counts as the last one sent: to be
//! shown something older, or an `unavailable`, is a flicker too. A *repeat* is an `available` equal to the last one shown,
//! without a change by its owner. *Missed* is, at the end, what a contact should have been shown last and was not.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use xmpp_core::{Element, Kind, Stanza};

use crate::ledger::LISTED;

/// Namespace of XEP-0203, which a server adds to a presence it has kept: no change.
const DELAY: &str = "urn:xmpp:delay";

/// What a presence says, without addresses and without what a server adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content(u64);

impl Content {
    /// Of a presence, ours or another's.
    pub fn of(presence: &Stanza) -> Content {
        let mut hasher = DefaultHasher::new();
        for child in presence.element().children.iter().filter(|child| child.ns != DELAY) {
            mix(child, &mut hasher);
        }
        Content(hasher.finish())
    }

    /// Of `<presence/>`.
    pub fn empty() -> Content {
        Content(DefaultHasher::new().finish())
    }
}

fn mix(element: &Element, hasher: &mut DefaultHasher) {
    (element.name.as_str(), element.ns.as_str(), element.text.as_str()).hash(hasher);
    for attr in &element.attrs {
        (attr.name.as_str(), attr.value.as_str()).hash(hasher);
    }
    element.children.len().hash(hasher);
    element.children.iter().for_each(|child| mix(child, hasher));
}

/// The verdict on presence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresenceReport {
    /// Changes by owners, first presences included.
    pub changes: u64,
    /// Presences of known full JIDs that were shown to contacts.
    pub shown: u64,
    /// Flickers.
    pub flickers: u64,
    /// Repeats.
    pub repeats: u64,
    /// Contacts that were not shown the last presence of somebody whom they may see, as of now.
    pub missed: u64,
    /// The first flickers and repeats, and what was missed; one line each.
    pub list: Vec<String>,
}

impl PresenceReport {
    /// Nobody saw what was not so, and everybody saw what was.
    pub fn kept(&self) -> bool {
        self.flickers == 0 && self.repeats == 0 && self.missed == 0
    }
}

/// The record. Presence is rare, so one lock is enough.
#[derive(Debug, Default)]
pub struct PresenceRecord {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    owners: HashMap<String, Owner>,
    /// By contact, then by the full JID it was shown.
    shown: HashMap<String, HashMap<String, Shown>>,
    /// Contact and full JID, of those who may see each other.
    expected: HashSet<(String, String)>,
    report: PresenceReport,
}

/// What the owner of a full JID says of itself.
#[derive(Debug, Default)]
struct Owner {
    /// Counts logins and logouts.
    session: u64,
    /// All that was said in this session; empty when logged out.
    said: Vec<Content>,
    /// All that was said in the session before: its node may not have heard the last of it.
    before: Vec<Content>,
}

/// The last that a contact was shown.
#[derive(Clone, Copy, Debug)]
struct Shown {
    /// In which session of the owner it was said; 0 if in none that we know.
    session: u64,
    /// Which of that session's presences it was.
    index: usize,
    available: bool,
    /// It may as well have been said in the session before, on its way to a contact that had just begun.
    either: bool,
}

impl PresenceRecord {
    /// An empty record.
    pub fn new() -> Self {
        Self::default()
    }

    /// The owner of `full_jid` begins a new session and is about to say this.
    pub fn logs_in(&self, full_jid: &str, content: Content) {
        self.with(|inner| {
            let owner = inner.owners.entry(full_jid.to_owned()).or_default();
            owner.session += 1;
            owner.ends();
            owner.said = vec![content];
            inner.report.changes += 1;
        });
    }

    /// The owner of `full_jid` is about to change its presence. Without a session it changes nothing.
    pub fn says(&self, full_jid: &str, content: Content) {
        self.with(|inner| {
            if let Some(owner) = inner.owners.get_mut(full_jid).filter(|owner| !owner.said.is_empty()) {
                owner.said.push(content);
                inner.report.changes += 1;
            }
        });
    }

    /// The owner of `full_jid` logs out.
    pub fn logs_out(&self, full_jid: &str) {
        self.with(|inner| {
            let owner = inner.owners.entry(full_jid.to_owned()).or_default();
            owner.session += 1;
            owner.ends();
        });
    }

    /// `contact` (a bare name) may see the presence of `full_jid`, and is to be shown it.
    pub fn may_see(&self, contact: &str, full_jid: &str) {
        self.with(|inner| inner.expected.insert((contact.to_owned(), full_jid.to_owned())));
    }

    /// `contact` (a bare name) begins a new session: it will be shown everyone's presence afresh.
    pub fn begins(&self, contact: &str) {
        self.with(|inner| inner.shown.remove(contact));
    }

    /// `contact` was shown this stanza. What is no presence, or not of a known full JID, is ignored.
    pub fn shown(&self, contact: &str, stanza: &Stanza) {
        if stanza.head.kind != Kind::Presence {
            return;
        }
        let content = match stanza.head.type_.as_deref() {
            None => Some(Content::of(stanza)),
            Some("unavailable") => None,
            Some(_) => return,
        };
        if let Some(from) = &stanza.head.from {
            self.with(|inner| inner.judge(contact, from.as_str(), content));
        }
    }

    /// Whether everybody has been shown what they are to see.
    pub fn settled(&self) -> bool {
        self.with(|inner| inner.missing().next().is_none())
    }

    /// The verdict so far.
    pub fn report(&self) -> PresenceReport {
        self.with(|inner| {
            let mut report = inner.report.clone();
            let missing =
                inner.missing().map(|(contact, jid)| format!("{contact} missed the last presence of {jid}"));
            let mut missing: Vec<String> = missing.collect();
            missing.sort_unstable();
            report.missed = missing.len() as u64;
            report.list.extend(missing.into_iter().take(LISTED));
            report
        })
    }

    fn with<T>(&self, what: impl FnOnce(&mut Inner) -> T) -> T {
        what(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Owner {
    /// Its session is over, if it has one.
    fn ends(&mut self) {
        if !self.said.is_empty() {
            self.before = std::mem::take(&mut self.said);
        }
    }
}

impl Inner {
    /// Those of `expected` who have not been shown the last that was said.
    fn missing(&self) -> impl Iterator<Item = &(String, String)> {
        self.expected.iter().filter(|(contact, jid)| {
            let owner = self.owners.get(jid).filter(|owner| !owner.said.is_empty());
            owner.is_some_and(|owner| {
                let shown = self.shown.get(contact).and_then(|seen| seen.get(jid));
                let last = shown.filter(|shown| shown.available && shown.session == owner.session);
                last.is_none_or(|last| owner.said[last.index] != owner.said[owner.said.len() - 1])
            })
        })
    }

    fn judge(&mut self, contact: &str, full_jid: &str, content: Option<Content>) {
        let Some(owner) = self.owners.get(full_jid) else { return };
        self.report.shown += 1;
        let seen = self.shown.entry(contact.to_owned()).or_default();
        let last = seen.get(full_jid).copied();
        // In this session the contact has seen something: nothing older can be on its way.
        let current = last.filter(|last| last.session == owner.session && !owner.said.is_empty());
        let from = current.map_or(0, |last| last.index);
        let Some(content) = content else {
            if current.is_some_and(|last| last.available) {
                self.report.flicker(format_args!("{contact} was shown unavailable of {full_jid}"));
            }
            let (session, index) = current.map_or((0, 0), |last| (last.session, last.index));
            seen.insert(full_jid.to_owned(), Shown { session, index, available: false, either: false });
            return;
        };
        let repeats = current.is_some_and(|last| last.available && owner.said[last.index] == content);
        if let Some(last) = current.filter(|last| repeats && last.either) {
            seen.insert(full_jid.to_owned(), Shown { either: false, ..last });
            return;
        }
        // The same words again may have been said again: then it is the later one.
        let begin = from + usize::from(repeats);
        let found =
            owner.said.iter().skip(begin).position(|said| *said == content).map(|found| begin + found);
        match (found, current) {
            (Some(index), _) => {
                let either = last.is_none() && owner.before.contains(&content);
                let shown = Shown { session: owner.session, index, available: true, either };
                seen.insert(full_jid.to_owned(), shown);
            }
            (None, Some(_)) if repeats => {
                self.report.repeats += 1;
                self.report.note(format_args!("{contact} was shown the same presence of {full_jid} again"));
            }
            (None, Some(_)) => {
                self.report.flicker(format_args!("{contact} was shown another presence of {full_jid}"));
            }
            // Of an earlier session, still on its way.
            (None, None) => {
                seen.insert(
                    full_jid.to_owned(),
                    Shown { session: 0, index: 0, available: true, either: false },
                );
            }
        }
    }
}

impl PresenceReport {
    fn flicker(&mut self, line: std::fmt::Arguments<'_>) {
        self.flickers += 1;
        self.note(line);
    }

    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        if self.list.len() < LISTED {
            self.list.push(line.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JID: &str = "u0@example.org/sim";

    fn presence(inside: &str, type_: &str) -> Stanza {
        let text = format!("<presence from='{JID}' {type_}>{inside}</presence>");
        Stanza::parse(text.as_bytes()).unwrap()
    }

    fn status(text: &str) -> Stanza {
        presence(&format!("<status>{text}</status>"), "")
    }

    fn verdict(record: &PresenceRecord) -> (u64, u64, u64) {
        let report = record.report();
        assert_eq!(report.list.len() as u64, report.flickers + report.repeats + report.missed);
        (report.flickers, report.repeats, report.missed)
    }

    fn logged_in() -> PresenceRecord {
        let record = PresenceRecord::new();
        record.may_see("u1", JID);
        record.logs_in(JID, Content::empty());
        assert_eq!(verdict(&record), (0, 0, 1));
        record.shown("u1", &presence("", ""));
        assert_eq!(verdict(&record), (0, 0, 0));
        record
    }

    #[test]
    fn content_leaves_out_what_a_server_adds() {
        assert_eq!(Content::of(&presence("", "")), Content::empty());
        assert_eq!(Content::of(&presence("<delay xmlns='urn:xmpp:delay' stamp='x'/>", "")), Content::empty());
        assert_ne!(Content::of(&presence("<show>away</show>", "")), Content::empty());
    }

    #[test]
    fn unavailable_of_someone_logged_in_is_a_flicker_and_so_is_another_presence() {
        let record = logged_in();
        record.shown("u1", &presence("", "type='unavailable'"));
        assert_eq!(verdict(&record), (1, 0, 1));
        record.shown("u1", &presence("", ""));
        assert_eq!(verdict(&record), (1, 0, 0), "coming back is not a repeat");
        record.shown("u1", &status("never said"));
        assert_eq!(verdict(&record), (2, 0, 0));
    }

    #[test]
    fn the_same_again_is_a_repeat_unless_the_contact_or_the_owner_begins_anew() {
        let record = logged_in();
        record.shown("u1", &presence("", ""));
        assert_eq!(verdict(&record), (0, 1, 0));
        record.begins("u1");
        record.shown("u1", &presence("", ""));
        record.says(JID, Content::empty());
        record.shown("u1", &presence("", ""));
        assert_eq!(verdict(&record), (0, 1, 0));
        record.logs_in(JID, Content::empty());
        record.shown("u1", &presence("", ""));
        assert_eq!(verdict(&record), (0, 1, 0));
    }

    #[test]
    fn a_contact_that_begins_may_be_shown_the_session_before_and_then_the_new_one_once() {
        let record = logged_in();
        record.begins("u1");
        record.logs_in(JID, Content::empty());
        for repeats in [0, 0, 1] {
            record.shown("u1", &presence("", ""));
            assert_eq!(verdict(&record), (0, repeats, 0));
        }
    }

    #[test]
    fn a_change_on_its_way_excuses_neither_unavailable_nor_what_is_older() {
        let record = logged_in();
        for text in ["1", "2", "3"] {
            record.says(JID, Content::of(&status(text)));
        }
        record.shown("u1", &status("2"));
        assert_eq!(verdict(&record), (0, 0, 1), "a server may leave out what is out of date");
        record.shown("u1", &presence("", "type='unavailable'"));
        assert_eq!(verdict(&record).0, 1);
        record.shown("u1", &status("1"));
        assert_eq!(verdict(&record).0, 2);
        record.shown("u1", &status("3"));
        assert_eq!(verdict(&record), (2, 0, 0));
    }

    #[test]
    fn what_is_said_twice_may_be_shown_twice() {
        let record = logged_in();
        for text in ["away", "back", "away"] {
            record.says(JID, Content::of(&status(text)));
            record.shown("u1", &status(text));
        }
        assert_eq!(verdict(&record), (0, 0, 0));
        record.shown("u1", &status("away"));
        assert_eq!(verdict(&record), (0, 1, 0));
    }

    #[test]
    fn logging_out_is_no_flicker_nor_is_what_came_before_a_new_session() {
        let record = logged_in();
        record.logs_out(JID);
        record.says(JID, Content::of(&status("nobody says this")));
        record.shown("u1", &presence("", "type='unavailable'"));
        record.shown("u1", &presence("", "type='subscribe'"));
        record.logs_in(JID, Content::of(&status("new")));
        record.shown("u1", &status("old"));
        record.shown("u1", &presence("", "type='unavailable'"));
        assert_eq!(verdict(&record), (0, 0, 1));
        record.shown("u1", &status("new"));
        assert_eq!(verdict(&record), (0, 0, 0));
    }
}
