//! The demo's verdict, for people and for programs.

use client_sim::fleet::{FleetReport, Summary};
use serde::{Deserialize, Serialize};

use super::story::{OVERRIDES, Options};
use crate::admin::CountersStatus;

/// Milliseconds from a fault to `<resumed/>`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

impl From<Summary> for Times {
    fn from(s: Summary) -> Times {
        Times { count: s.count, p50: s.p50, p99: s.p99, max: s.max }
    }
}

/// A change of what a node shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateLine {
    /// Milliseconds since the demo began.
    pub ms: u64,
    /// The node.
    pub node: String,
    /// Its state.
    pub state: String,
    /// Its reason.
    pub reason: String,
}

/// Counters of a node at the end of a phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CountersLine {
    /// The phase.
    pub phase: String,
    /// The node.
    pub node: String,
    /// Its counters.
    #[serde(flatten)]
    pub counters: CountersStatus,
}

/// Everything that the demo found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Nothing was lost, doubled or reordered, and nobody flickered.
    pub ok: bool,
    /// Seed of all random choices.
    pub seed: u64,
    /// Messages counted in an `<a/>` or `<resumed/>` to their senders.
    pub acknowledged: u64,
    /// Messages shown to their receivers.
    pub delivered: u64,
    /// Messages without an acknowledgement at the end.
    pub unacknowledged: u64,
    /// Acknowledged and never shown.
    pub lost: u64,
    /// Shown twice to one resource.
    pub duplicated: u64,
    /// Shown behind a later one of the same sender.
    pub reordered: u64,
    /// Presence that was shown to contacts.
    pub presence_shown: u64,
    /// Shown `unavailable`, or another presence than the last one sent, of somebody logged in who changed nothing.
    pub flickers: u64,
    /// Shown the same presence again without a change.
    pub presence_repeats: u64,
    /// Contacts that at the end had not been shown the last presence.
    pub presence_missed: u64,
    /// Clients with a parked stream.
    pub flip_ms: Times,
    /// Clients without.
    pub plain_resume_ms: Times,
    /// Acknowledged messages a second before the fault.
    pub messages_per_second: f64,
    /// What the nodes showed.
    pub states: Vec<StateLine>,
    /// Counters phase by phase.
    pub counters: Vec<CountersLine>,
    /// Settings that differ from the defaults.
    pub overrides: Vec<String>,
    /// The first offending messages and errors.
    pub details: Vec<String>,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        fleet: &FleetReport,
        states: Vec<StateLine>,
        counters: Vec<CountersLine>,
        messages_per_second: f64,
    ) -> Report {
        let ledger = &fleet.ledger;
        let mut details = Vec::new();
        for list in [
            &ledger.lost_list,
            &ledger.duplicated_list,
            &ledger.reordered_list,
            &ledger.strangers_list,
            &ledger.unacknowledged_list,
            &fleet.presence.list,
            &fleet.error_list,
        ] {
            details.extend(list.iter().cloned());
        }
        let presence = &fleet.presence;
        let seen = presence.kept() && presence.shown > 0;
        let whole = fleet.fault_pending == 0 && fleet.fault_unresumed == 0;
        Report {
            ok: ledger.kept() && whole && seen && ledger.acknowledged > 0 && ledger.unacknowledged == 0,
            seed: options.seed,
            acknowledged: ledger.acknowledged,
            delivered: ledger.delivered,
            unacknowledged: ledger.unacknowledged,
            lost: ledger.lost,
            duplicated: ledger.duplicated,
            reordered: ledger.reordered,
            presence_shown: presence.shown,
            flickers: presence.flickers,
            presence_repeats: presence.repeats,
            presence_missed: presence.missed,
            flip_ms: fleet.flip_ms.into(),
            plain_resume_ms: fleet.plain_resume_ms.into(),
            messages_per_second,
            states,
            counters,
            overrides: OVERRIDES.iter().map(|(key, value)| format!("{key} = {value}")).collect(),
            details,
        }
    }

    pub(super) fn print(&self) {
        let line = |what: &str, t: &Times| {
            println!(
                "  {what}  {:>4} clients   p50 {:>7.1} ms   p99 {:>7.1} ms   max {:>7.1} ms",
                t.count, t.p50, t.p99, t.max
            );
        };
        println!("\nLedger");
        println!("  acknowledged {:>8}   delivered {:>8}", self.acknowledged, self.delivered);
        println!("  lost {}   doubled {}   reordered {}", self.lost, self.duplicated, self.reordered);
        println!(
            "Presence shown to contacts {}   flickers {}   repeats {}   missed {}",
            self.presence_shown, self.flickers, self.presence_repeats, self.presence_missed
        );
        println!("From kill -9 to the session's <resumed/>");
        line("dual (flip)  ", &self.flip_ms);
        line("plain (XEP-0198)", &self.plain_resume_ms);
        println!("{:.0} messages a second before the kill", self.messages_per_second);
        println!("Settings other than the defaults: {}", self.overrides.join(", "));
        for detail in &self.details {
            println!("  ! {detail}");
        }
        let verdict = if self.ok {
            "Nothing was lost, doubled or reordered, and nobody flickered."
        } else {
            "THE PROMISE WAS BROKEN."
        };
        println!("{verdict}");
    }
}
