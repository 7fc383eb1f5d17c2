//! Rules of the operator: an event of this node that has it fail over (`[srm] failover_on_events`). The node
//! counts these failovers with those that a service brings about, and refuses what is too many.

use std::sync::Arc;
use std::time::Duration;

use super::chronicle::Chronicle;
use super::ops::Operations;
use super::reload::Live;
use crate::config::EventRule;
use crate::events::Record;
use crate::notify::UNREACHED;

/// What no rule looks at for longer has no event.
const PATIENCE: Duration = Duration::from_secs(60);
/// Events of one look.
const MOST: usize = 1_000;

/// Looks for ever.
pub async fn watch(operations: Arc<Operations>, chronicle: Arc<Chronicle>, live: Arc<Live>) {
    let mut seen = chronicle.last();
    loop {
        chronicle.wait(seen, PATIENCE).await;
        let srm = live.config().srm;
        for record in chronicle.since(seen, MOST) {
            seen = seen.max(record.number);
            let Some(rule) = srm.failover_on_events.iter().find(|rule| fits(rule, &record)) else { continue };
            if srm.disable_automatics {
                continue;
            }
            operations.fail_over_by_rule(rule.as_str(), &record.id()).await;
        }
    }
}

fn fits(rule: &EventRule, record: &Record) -> bool {
    rule.event() == record.event && rule.text().is_none_or(|text| own_words(&record.text).contains(text))
}

/// Without what a receiver of events answered: nobody moves users by such words.
fn own_words(text: &str) -> &str {
    match text.starts_with(UNREACHED) {
        true => text.split_once(": ").map_or(text, |(own, _)| own),
        false => text,
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
        let told =
            format!("{UNREACHED}ops@example.org: 451 clocks of the nodes differ; 3 wait and 0 were given up");
        assert!(!fits(&clocks, &record("alarm", &told)), "a mail server said so");
        assert!(fits(&rule("alarm: do not reach ops"), &record("alarm", &told)));
        assert!(!fits(&clocks, &record("alarm-ended", "the clocks of the nodes differ by 8 s")));
    }
}
