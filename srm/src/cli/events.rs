//! `tandem events`: what happened, and what happens.

use std::io::Write;

use presence_engine::state::stamp;
use serde_json::json;

use super::Client;
use super::args::EventsArgs;
use super::output::{Answer, Failure, Paint};
use crate::events::{Record, Severity};

/// Asks once, or goes on for ever.
pub(super) fn events(client: &Client, args: &EventsArgs) -> Result<Answer, Failure> {
    let wanted = |record: &Record| args.severity.is_none_or(|least| record.severity >= least);
    let mut told = client.events(0, args.last, 0)?;
    told.retain(wanted);
    if !args.follow {
        let text = told.iter().map(|record| line(record, Paint::stdout())).collect::<String>();
        let text = if text.is_empty() { "No events.\n".to_owned() } else { text };
        return Ok(Answer::new(text, json!({ "events": told })));
    }
    let mut last = 0;
    loop {
        for record in told.iter().filter(|record| wanted(record)) {
            let line = if args.client.json {
                serde_json::to_string(record).unwrap_or_default() + "\n"
            } else {
                line(record, Paint::stdout())
            };
            if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
                // Whoever read is gone.
                return Ok(Answer::silent(super::Exit::Well));
            }
        }
        last = told.iter().map(|record| record.number).fold(last, u64::max);
        told = client.events(last, super::args::MOST_EVENTS, WAIT_S)?;
    }
}

/// How long the node may keep a question that waits for news, in seconds.
const WAIT_S: u64 = 20;

/// One event: when, which, how much it matters, the row, what.
fn line(record: &Record, paint: Paint) -> String {
    let severity = match record.severity {
        Severity::Info | Severity::Notice => paint.dim(record.severity.name()),
        Severity::Warning => paint.yellow(record.severity.name()),
        Severity::Error | Severity::Critical => paint.red(record.severity.name()),
    };
    let pad = " ".repeat(8_usize.saturating_sub(record.severity.name().len()));
    let row = record.row.map_or("    -".to_owned(), |row| format!("row {row:>3}"));
    let when = stamp(record.at_ms);
    // An event is one line, whatever is in it.
    let text: String = record.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{when}  {:<6} {severity}{pad}  {row}  {:<17} {text}\n", record.id(), record.event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let record = Record {
            number: 17,
            node: "a".into(),
            at_ms: 1_795_648_987_250,
            severity: Severity::Warning,
            event: "failover-complete".into(),
            row: Some(3),
            text: "b serves\nthe users of a\u{1b}[2J".into(),
            ..Record::default()
        };
        assert_eq!(
            line(&record, Paint::PLAIN),
            "2026-11-25T23:23:07.250Z  a-17   warning   row   3  failover-complete b serves the users of a [2J\n"
        );
    }
}
