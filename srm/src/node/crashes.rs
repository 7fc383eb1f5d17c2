//! Runs of either node that ended in the middle of a turn, and what they were handling (D15). Each node keeps its own and
//! learns of the other's when they meet; an input that was there at two of them is not handled any more.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use presence_engine::engine::Print;
use serde::{Deserialize, Serialize};

use super::{CRASHES, Disk, Node, Out};
use session_mover::driver::Link;
use session_mover::msg::Msg;

/// Crashes that are remembered, the newest.
const MOST: usize = 64;

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crash {
    /// Names it, so that it counts once on whichever node it is told: random.
    pub run: u64,
    /// When it was found, in milliseconds since 1970.
    pub at_ms: u64,
    /// Names of the inputs that were being handled.
    pub prints: Vec<u64>,
}

/// All that this node knows of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Crashes(Vec<Crash>);

impl Crashes {
    /// Takes one more; whether it was not known.
    pub fn add(&mut self, crash: Crash) -> bool {
        if self.0.iter().any(|known| known.run == crash.run) {
            return false;
        }
        self.0.push(crash);
        self.0.sort_by_key(|crash| (crash.at_ms, crash.run));
        let more = self.0.len().saturating_sub(MOST);
        self.0.drain(..more);
        true
    }

    /// At how many crashes each input was being handled.
    pub fn counts(&self) -> BTreeMap<Print, u32> {
        let mut counts = BTreeMap::new();
        for crash in &self.0 {
            for print in crash.prints.iter().collect::<BTreeSet<_>>() {
                *counts.entry(Print(*print)).or_insert(0) += 1;
            }
        }
        counts
    }
}

impl Node {
    /// What is known of crashes at the start.
    pub fn remember_crashes(&mut self, crashes: Crashes) {
        self.driver.set_crashes(crashes.counts());
        self.crashes = crashes;
    }

    /// The peer is there: it hears of all.
    pub(super) fn tell_crashes(&mut self) {
        if self.crashes.0.is_empty() {
            return;
        }
        let mut bytes = vec![CRASHES];
        bytes.extend(postcard::to_stdvec(&self.crashes).expect("plain data can be written"));
        self.outs.push(Out::Link(Link::Out, Msg::Control(bytes.into())));
    }

    /// What the peer knows of them.
    pub(super) fn hear_crashes(&mut self, bytes: &Bytes, disk: &mut dyn Disk) {
        let Ok(Crashes(told)) = postcard::from_bytes(bytes) else { return };
        let news = told.into_iter().filter(|crash| self.crashes.add(crash.clone())).count();
        if news > 0 {
            disk.keep_crashes(&self.crashes);
            self.driver.set_crashes(self.crashes.counts());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crash(run: u64, prints: &[u64]) -> Crash {
        Crash { run, at_ms: run, prints: prints.to_vec() }
    }

    #[test]
    fn a_crash_counts_once_however_often_it_is_told() {
        let mut crashes = Crashes::default();
        assert!(crashes.add(crash(1, &[7, 7, 8])));
        assert!(!crashes.add(crash(1, &[7])));
        assert_eq!(crashes.counts(), BTreeMap::from([(Print(7), 1), (Print(8), 1)]));
        assert!(crashes.add(crash(2, &[7])));
        assert_eq!(crashes.counts()[&Print(7)], 2);
        for run in 3..200 {
            crashes.add(crash(run, &[run]));
        }
        assert_eq!(crashes.0.len(), MOST);
        assert!(!crashes.counts().contains_key(&Print(7)), "the oldest are forgotten");
    }
}
