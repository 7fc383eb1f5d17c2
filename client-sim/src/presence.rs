//! What every client said of its own presence and what its contacts were shown: flickers and repeats.
//!
//! A *flicker* is an `unavailable`, or an `available` other than the last one sent, for a full JID whose owner is logged in
//! and has changed nothing. A *repeat* is an `available` equal to the last one shown, without a change by its owner.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
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
    /// Presences of known full JIDs that were shown to contacts.
    pub shown: u64,
    /// Flickers.
    pub flickers: u64,
    /// Repeats.
    pub repeats: u64,
    /// The first flickers, one line each.
    pub flickers_list: Vec<String>,
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
    report: PresenceReport,
}

/// What the owner of a full JID says of itself.
#[derive(Debug)]
struct Owner {
    /// `None` when logged out.
    content: Option<Content>,
    changes: u64,
}

/// The last that a contact was shown, and which of the owner's changes that was.
#[derive(Debug)]
struct Shown {
    content: Option<Content>,
    change: u64,
}

impl PresenceRecord {
    /// An empty record.
    pub fn new() -> Self {
        Self::default()
    }

    /// The owner of `full_jid` is about to send this presence in a new session, or changes it; `None`: it logs out.
    pub fn says(&self, full_jid: &str, content: Option<Content>) {
        self.with(|inner| {
            let owner = inner.owners.entry(full_jid.to_owned()).or_insert(Owner { content, changes: 0 });
            owner.content = content;
            owner.changes += 1;
        });
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

    /// The verdict so far.
    pub fn report(&self) -> PresenceReport {
        self.with(|inner| inner.report.clone())
    }

    fn with<T>(&self, what: impl FnOnce(&mut Inner) -> T) -> T {
        what(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn judge(&mut self, contact: &str, full_jid: &str, content: Option<Content>) {
        let Some(owner) = self.owners.get(full_jid) else { return };
        self.report.shown += 1;
        let seen = self.shown.entry(contact.to_owned()).or_default();
        // Before the contact has seen the owner's last change, older presence may still be on its way.
        let last = seen.get(full_jid).filter(|last| last.change == owner.changes);
        if last.is_some() && owner.content.is_some() {
            if content != owner.content {
                self.report.flickers += 1;
                if self.report.flickers_list.len() < LISTED {
                    let what = if content.is_none() { "unavailable" } else { "another presence" };
                    self.report.flickers_list.push(format!("{contact} was shown {what} of {full_jid}"));
                }
            } else if last.is_some_and(|last| last.content == content) {
                self.report.repeats += 1;
            }
        }
        let caught_up = last.is_some() || content == owner.content;
        let change = if caught_up { owner.changes } else { 0 };
        seen.insert(full_jid.to_owned(), Shown { content, change });
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

    fn verdict(record: &PresenceRecord) -> (u64, u64) {
        let report = record.report();
        assert_eq!(report.flickers_list.len() as u64, report.flickers);
        (report.flickers, report.repeats)
    }

    fn logged_in() -> PresenceRecord {
        let record = PresenceRecord::new();
        record.says(JID, Some(Content::empty()));
        record.shown("u1", &presence("", ""));
        assert_eq!(verdict(&record), (0, 0));
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
        assert_eq!(verdict(&record), (1, 0));
        record.shown("u1", &presence("", ""));
        assert_eq!(verdict(&record), (1, 0), "coming back is not a repeat");
        record.shown("u1", &presence("<show>away</show>", ""));
        assert_eq!(verdict(&record), (2, 0));
    }

    #[test]
    fn the_same_again_is_a_repeat_unless_the_contact_or_the_owner_begins_anew() {
        let record = logged_in();
        record.shown("u1", &presence("", ""));
        assert_eq!(verdict(&record), (0, 1));
        record.begins("u1");
        record.shown("u1", &presence("", ""));
        record.says(JID, Some(Content::empty()));
        record.shown("u1", &presence("", ""));
        assert_eq!(verdict(&record), (0, 1));
    }

    #[test]
    fn a_change_may_overtake_nobody_and_logging_out_is_no_flicker() {
        let record = logged_in();
        let away = presence("<show>away</show>", "");
        record.says(JID, Some(Content::of(&away)));
        record.shown("u1", &presence("", "type='unavailable'"));
        record.shown("u1", &presence("", ""));
        record.shown("u1", &away);
        assert_eq!(verdict(&record), (0, 0), "older presence was still on its way");
        record.says(JID, None);
        record.shown("u1", &presence("", "type='unavailable'"));
        record.shown("u1", &presence("", "type='subscribe'"));
        assert_eq!(verdict(&record), (0, 0));
    }
}
