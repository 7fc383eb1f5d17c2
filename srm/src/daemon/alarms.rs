//! All that is wrong, in one list; and alarms become events: one when it has lasted for a moment, one when it is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::chronicle::Chronicle;
use super::differences::{clocks_differ, limits_differ, settings_differ, versions_differ, zones_differ};
use super::ops::{Heard, Operations};
use super::reload::Live;
use crate::admin::NodeStatus;
use crate::events::{Record, Severity};
use crate::node::{DISARMED, SETTINGS_DIFFER, Snapshot, users_wait};

/// How often they are looked at.
const PERIOD: Duration = Duration::from_secs(5);

impl Operations {
    /// The alarms that `tandem status` shows, the metric counts and events tell: the node's, those of what changes while it
    /// runs, those of telling events, and what differs from the peer as it was heard last.
    pub(super) fn alarms(&self, s: &Snapshot, here: &NodeStatus, heard: Option<&Heard>) -> Vec<String> {
        let mut alarms = s.alarms.clone();
        alarms.extend(self.live.alarms());
        alarms.extend(self.chronicle.alarms());
        let Some(heard) = heard else { return alarms };
        let peer = &heard.status;
        alarms.extend(clocks_differ(peer, heard.asked_ms, heard.answered_ms));
        alarms.extend(versions_differ(peer));
        if self.live.config().srm.scheduled_fallback {
            alarms.extend(zones_differ(here, peer));
        }
        if let Some(text) = settings_differ(here, peer)
            && let Some(alarm) = alarms.iter_mut().find(|alarm| alarm.starts_with(SETTINGS_DIFFER))
        {
            let follows = if alarm.ends_with(DISARMED) { DISARMED } else { "" };
            *alarm = text + follows;
        }
        alarms.extend(limits_differ(here, peer));
        alarms
    }
}

/// Looks for ever.
pub async fn watch(operations: Arc<Operations>, chronicle: Arc<Chronicle>, live: Arc<Live>) {
    let mut alarms = Alarms::default();
    let mut clock = tokio::time::interval(PERIOD);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let status = operations.status_within(live.config().srm.keep_alive_interval).await;
        // A node that does not say how it is does not say that an alarm is over.
        if status.nodes.is_empty() {
            continue;
        }
        for record in alarms.look(status.alarms) {
            chronicle.write(record);
        }
    }
}

/// What was seen, by its text without figures: those change while the alarm stays.
#[derive(Debug, Default)]
struct Alarms(BTreeMap<String, Alarm>);

#[derive(Debug)]
struct Alarm {
    text: String,
    /// Looks in a row that showed it, or did not: two count.
    shown: u8,
    missed: u8,
    told: bool,
}

impl Alarms {
    fn look(&mut self, now: Vec<String>) -> Vec<Record> {
        let mut news = Vec::new();
        self.0.values_mut().for_each(|alarm| alarm.missed += 1);
        for text in now {
            let key: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
            let alarm = self.0.entry(key).or_insert(Alarm { text, shown: 0, missed: 1, told: false });
            alarm.shown = if alarm.missed > 1 && !alarm.told { 1 } else { alarm.shown.saturating_add(1) };
            alarm.missed = 0;
            if alarm.shown >= 2 && !alarm.told {
                alarm.told = true;
                news.push(record("alarm", &alarm.text));
            }
        }
        self.0.retain(|_, alarm| {
            let over = alarm.missed >= 2;
            if over && alarm.told {
                news.push(record("alarm-ended", &alarm.text));
            }
            !over
        });
        news
    }
}

fn record(event: &str, text: &str) -> Record {
    let severity =
        if event == "alarm" && users_wait(text) { Severity::Critical } else { Severity::default() };
    Record { event: event.to_owned(), severity, text: text.to_owned(), ..Record::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_of_which_users_wait_is_critical_and_its_end_is_not() {
        let waits = "fenced: users of a are not served here";
        assert_eq!(record("alarm", waits).severity, Severity::Critical);
        assert_ne!(record("alarm-ended", waits).severity, Severity::Critical);
        assert_ne!(record("alarm", "unprotected: users of a").severity, Severity::Critical);
    }

    #[test]
    fn an_alarm_that_lasts_is_told_once_and_its_end_too() {
        let mut alarms = Alarms::default();
        let mut look = |now: &[&str]| -> Vec<String> {
            let news = alarms.look(now.iter().map(|text| (*text).to_owned()).collect());
            news.into_iter().map(|record| format!("{}: {}", record.event, record.text)).collect()
        };
        assert!(look(&["fenced: a"]).is_empty(), "it may be over in a moment");
        assert!(look(&[]).is_empty());
        assert!(look(&["fenced: a", "clocks differ by 7 s"]).is_empty());
        assert!(look(&[]).is_empty() && look(&[]).is_empty(), "and never told, it does not end");
        assert!(look(&["clocks differ by 8 s"]).is_empty());
        assert_eq!(look(&["clocks differ by 9 s"]), ["alarm: clocks differ by 8 s"]);
        assert!(look(&["clocks differ by 10 s"]).is_empty());
        assert!(look(&[]).is_empty(), "one look is no end");
        assert!(look(&["clocks differ by 11 s"]).is_empty(), "nor a beginning");
        assert!(look(&[]).is_empty());
        assert_eq!(look(&[]), ["alarm-ended: clocks differ by 8 s"]);
    }
}
