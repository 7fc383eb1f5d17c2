//! What is printed of failovers: a table for people, JSON, or rows for docs/performance.md.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::measure::args::Form;
use crate::measure::processes;
use crate::measure::report::{head, lay_out};

/// When users were served, after the death of their node.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which clients, and which moment.
    pub what: String,
    /// The first, the median and the last, in seconds.
    pub seconds: [f64; 3],
    /// How many in a second between the first and the last; `None` where it is not about logins.
    pub rate: Option<f64>,
    /// Attempts that failed and were made again.
    pub again: u64,
}

impl Row {
    /// Of the time of each user; `None`: there are none.
    pub fn of(what: &str, mut times: Vec<Duration>) -> Option<Row> {
        times.sort_unstable();
        let middle = times.get(times.len().checked_sub(1)? / 2)?;
        let seconds = [times.first()?, middle, times.last()?].map(Duration::as_secs_f64);
        Some(Row { what: what.into(), seconds, rate: None, again: 0 })
    }

    /// The same of logins.
    pub fn of_logins(what: &str, times: Vec<Duration>, again: u64) -> Option<Row> {
        let count = times.len();
        let row = Row::of(what, times)?;
        let [first, _, last] = row.seconds;
        // From the first on, so that the time until the takeover does not count.
        let rate = (last > first).then(|| (count - 1) as f64 / (last - first));
        Some(Row { rate, again, ..row })
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    /// Users, all of whom had their home at the node that died.
    pub users: usize,
    /// Lower and upper re-login limit that they had been told, in seconds.
    pub announced: (u32, u32),
    /// Each measurement.
    pub rows: Vec<Row>,
    /// Load averages.
    pub began: String,
    /// The same, at the end.
    pub ended: String,
}

impl Report {
    /// As it is to be printed.
    pub fn text(&self, form: Form) -> String {
        match form {
            Form::Json => format!("{:#}\n", self.json()),
            Form::Table => self.table(false),
            Form::Markdown => self.table(true),
        }
    }

    fn table(&self, markdown: bool) -> String {
        let mut out = head(&self.began, &self.ended);
        let (lower, upper) = self.announced;
        let _ = writeln!(out, "{} users; re-login limits announced: {lower} s to {upper} s\n", self.users);
        let names =
            ["served, s after the kill", "first", "median", "last", "logins a second", "attempts again"];
        let lines = self.rows.iter().map(|row| {
            let seconds = row.seconds.map(|seconds| format!("{seconds:.3}"));
            let rate = row.rate.map_or("-".to_owned(), |rate| format!("{rate:.0}"));
            [row.what.clone()].into_iter().chain(seconds).chain([rate, row.again.to_string()]).collect()
        });
        lay_out(&mut out, &names, &lines.collect::<Vec<_>>(), markdown);
        out
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let [first, median, last] = row.seconds;
            json!({ "what": row.what, "first_s": first, "median_s": median, "last_s": last,
                    "logins_per_second": row.rate, "attempts_again": row.again })
        });
        json!({
            "machine": processes::machine(),
            "load_average": { "before": self.began, "after": self.ended },
            "users": self.users,
            "announced_s": { "lower": self.announced.0, "upper": self.announced.1 },
            "served": rows.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_median_and_last_and_the_rate_between_them() {
        let times = || [3, 1, 2, 5, 4].map(Duration::from_secs).to_vec();
        let row = Row::of_logins("x", times(), 7).unwrap();
        assert_eq!((row.seconds, row.rate, row.again), ([1.0, 3.0, 5.0], Some(1.0), 7));
        assert_eq!(Row::of("x", times()).unwrap().rate, None);
        assert!(Row::of("x", Vec::new()).is_none());
        let alone = Row::of_logins("x", vec![Duration::from_secs(1)], 0).unwrap();
        assert_eq!(alone.rate, None, "one login has no rate");
    }

    #[test]
    fn every_form_tells_the_limits_and_each_row() {
        let rows = vec![Row::of("by the parked stream", vec![Duration::from_millis(1_500)]).unwrap()];
        let report = Report { users: 1, announced: (10, 30), rows, ..Report::default() };
        let text = report.text(Form::Markdown);
        assert!(text.contains("10 s to 30 s") && text.contains("| by the parked stream"), "{text}");
        assert_eq!(report.json()["served"][0]["last_s"], 1.5);
        assert_eq!(report.json()["announced_s"]["upper"], 30);
    }
}
