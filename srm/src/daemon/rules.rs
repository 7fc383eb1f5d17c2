//! Rules of the operator: an event of this node that has it fail over (`[srm] failover_on_events`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chronicle::Chronicle;
use super::ops::Operations;
use super::reload::Live;
use crate::config::EventRule;
use crate::events::Record;

/// What no rule looks at for longer has no event.
const PATIENCE: Duration = Duration::from_secs(60);
/// Events of one look.
const MOST: usize = 1_000;
const HOUR: Duration = Duration::from_secs(3_600);

/// Looks for ever.
pub async fn watch(operations: Arc<Operations>, chronicle: Arc<Chronicle>, live: Arc<Live>) {
    let mut seen = chronicle.last();
    let mut guard = Guard::default();
    loop {
        chronicle.wait(seen, PATIENCE).await;
        let srm = live.config().srm;
        for record in chronicle.since(seen, MOST) {
            seen = seen.max(record.number);
            let Some(rule) = srm.failover_on_events.iter().find(|rule| fits(rule, &record)) else { continue };
            if srm.disable_automatics {
                continue;
            }
            let id = record.id();
            if guard.may(srm.automatic_failovers_per_hour, Instant::now()) {
                // One that is refused is none.
                if operations.fail_over_by_rule(rule.as_str(), &id).await {
                    guard.begun(Instant::now());
                }
            } else {
                let text = format!(
                    "the rule for \"{}\" fits to {id}, but there were enough failovers this hour",
                    rule.as_str()
                );
                chronicle.tell("rule-refused", text);
            }
        }
    }
}

fn fits(rule: &EventRule, record: &Record) -> bool {
    rule.event() == record.event && rule.text().is_none_or(|text| record.text.contains(text))
}

/// When failovers were begun within the last hour.
#[derive(Debug, Default)]
struct Guard(VecDeque<Instant>);

impl Guard {
    fn may(&mut self, most: u32, now: Instant) -> bool {
        self.0.retain(|begun| now.saturating_duration_since(*begun) < HOUR);
        self.0.len() < most as usize
    }

    fn begun(&mut self, now: Instant) {
        self.0.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fits_to_a_kind_and_to_words_of_it() {
        let record =
            |event: &str, text: &str| Record { event: event.into(), text: text.into(), ..Record::default() };
        let rule = |text: &str| EventRule::try_from(text.to_owned()).unwrap();
        assert!(fits(&rule("disk-stalled"), &record("disk-stalled", "the disk")));
        assert!(!fits(&rule("disk-stalled"), &record("alarm", "the disk")));
        let clocks = rule("alarm: clocks of the nodes");
        assert!(fits(&clocks, &record("alarm", "the clocks of the nodes differ by 8 s")));
        assert!(!fits(&clocks, &record("alarm", "unprotected: users of a")));
        assert!(!fits(&clocks, &record("alarm-ended", "the clocks of the nodes differ by 8 s")));
    }

    #[test]
    fn there_are_so_many_an_hour() {
        let (mut guard, now) = (Guard::default(), Instant::now());
        for _ in 0..2 {
            // Asking takes nothing of it.
            assert!(guard.may(2, now) && guard.may(2, now));
            guard.begun(now);
        }
        assert!(!guard.may(2, now));
        assert!(!guard.may(2, now + HOUR - Duration::from_secs(1)));
        assert!(guard.may(2, now + HOUR));
    }
}
