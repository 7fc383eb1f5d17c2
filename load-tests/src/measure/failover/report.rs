//! What is printed of failovers: a table for people, JSON, or rows for docs/performance.md.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::measure::args::{Assignment, Form};
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

    /// From the first to the last.
    fn spread(&self) -> f64 {
        let [first, _, last] = self.seconds;
        last - first
    }
}

/// What those with a parked stream lost whose node died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Sessions that did not go on.
    pub sessions: u64,
    /// Messages that had been acknowledged and did not come to a session that went on.
    pub messages: u64,
    /// Messages that came once too often.
    pub doubled: u64,
}

impl Losses {
    /// A session went on, and what it had not handled came so many times.
    pub fn came(&mut self, times: u32) {
        self.messages += u64::from(times == 0);
        self.doubled += u64::from(times.saturating_sub(1));
    }
}

/// What became of those at home at the node that was left.
#[derive(Clone, Debug)]
pub struct Stayed {
    /// While which clients of the other node came.
    pub what: String,
    /// How many there are.
    pub users: u64,
    /// How often one had to come back.
    pub reconnects: u64,
    /// How many had a message of their own in the end.
    pub answered: u64,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    /// Users of both nodes.
    pub users: usize,
    /// Those who had their home at the node that died: the rows are about them.
    pub moved: usize,
    /// How they were spread.
    pub assignment: Assignment,
    /// Lower and upper re-login limit that they had been told, in seconds.
    pub announced: (u32, u32),
    /// Each measurement.
    pub rows: Vec<Row>,
    /// What they lost.
    pub losses: Losses,
    /// Those who did not move, in each measurement.
    pub stayed: Vec<Stayed>,
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

    /// What nobody may have suffered, whatever it took.
    ///
    /// # Errors
    /// Somebody lost something, or was disturbed at home at the node that was left.
    pub fn verdict(&self) -> anyhow::Result<()> {
        let Losses { sessions, messages, doubled } = self.losses;
        ensure!(
            self.losses == Losses::default(),
            "{sessions} sessions and {messages} messages were lost, and {doubled} messages came twice"
        );
        for Stayed { what, users, reconnects, answered } in &self.stayed {
            ensure!(
                *reconnects == 0 && answered == users,
                "at home at the node that was left clients came back {reconnects} times, and {answered} of {users} had a \
                 message of their own in the end ({what})"
            );
        }
        Ok(())
    }

    fn table(&self, markdown: bool) -> String {
        let mut out = head(&self.began, &self.ended);
        let (lower, upper) = self.announced;
        let _ = writeln!(
            out,
            "{} users, {}: {} at home at the node that was killed; re-login limits announced: {lower} s to {upper} s\n",
            self.users,
            self.assignment.as_str(),
            self.moved
        );
        let names = [
            "served, s after the kill",
            "first",
            "median",
            "last",
            "spread",
            "logins a second",
            "attempts again",
        ];
        let lines = self.rows.iter().map(|row| {
            let seconds =
                row.seconds.into_iter().chain([row.spread()]).map(|seconds| format!("{seconds:.3}"));
            let rate = row.rate.map_or("-".to_owned(), |rate| format!("{rate:.0}"));
            [row.what.clone()].into_iter().chain(seconds).chain([rate, row.again.to_string()]).collect()
        });
        lay_out(&mut out, &names, &lines.collect::<Vec<_>>(), markdown);
        let Losses { sessions, messages, doubled } = self.losses;
        let _ = writeln!(
            out,
            "lost with a parked stream: {sessions} sessions, {messages} messages; {doubled} messages came twice\n"
        );
        if !self.stayed.is_empty() {
            let names = ["at home at the node that was left", "users", "reconnects", "answered in the end"];
            let lines = self.stayed.iter().map(|stayed| {
                let numbers = [stayed.users, stayed.reconnects, stayed.answered].map(|n| n.to_string());
                [stayed.what.clone()].into_iter().chain(numbers).collect()
            });
            lay_out(&mut out, &names, &lines.collect::<Vec<_>>(), markdown);
        }
        out
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let [first, median, last] = row.seconds;
            json!({ "what": row.what, "first_s": first, "median_s": median, "last_s": last, "spread_s": row.spread(),
                    "logins_per_second": row.rate, "attempts_again": row.again })
        });
        let stayed = self.stayed.iter().map(|stayed| {
            json!({ "what": stayed.what, "users": stayed.users, "reconnects": stayed.reconnects,
                    "answered": stayed.answered })
        });
        let Losses { sessions, messages, doubled } = self.losses;
        json!({
            "machine": processes::machine(),
            "load_average": { "before": self.began, "after": self.ended },
            "users": self.users,
            "assignment": self.assignment.as_str(),
            "moved": self.moved,
            "announced_s": { "lower": self.announced.0, "upper": self.announced.1 },
            "served": rows.collect::<Vec<_>>(),
            "lost": { "sessions": sessions, "messages": messages, "doubled": doubled },
            "stayed": stayed.collect::<Vec<_>>(),
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
        assert_eq!(row.spread(), 4.0);
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
        assert!(
            text.contains("0 sessions, 0 messages") && !text.contains("the node that was left"),
            "{text}"
        );
        report.verdict().unwrap();
    }

    fn stayed(reconnects: u64, answered: u64) -> Report {
        let stayed = vec![Stayed { what: "x".into(), users: 2, reconnects, answered }];
        Report { users: 5, moved: 3, assignment: Assignment::Balanced, stayed, ..Report::default() }
    }

    #[test]
    fn who_did_not_move_is_told_and_who_was_disturbed_is_an_error() {
        let text = stayed(0, 2).text(Form::Markdown);
        assert!(text.contains("5 users, balanced: 3 at home"), "{text}");
        assert!(text.contains("| at home at the node that was left |"), "{text}");
        assert_eq!(stayed(0, 2).json()["stayed"][0]["answered"], 2);
        stayed(0, 2).verdict().unwrap();
        assert!(stayed(1, 2).verdict().is_err(), "one came back");
        assert!(stayed(0, 1).verdict().is_err(), "one is not served");
    }

    #[test]
    fn what_came_not_once_is_lost_or_doubled_and_an_error() {
        let mut losses = Losses::default();
        losses.came(1);
        assert_eq!(losses, Losses::default());
        [0, 3].into_iter().for_each(|times| losses.came(times));
        assert_eq!(losses, Losses { sessions: 0, messages: 1, doubled: 2 });
        let each = [losses, Losses { sessions: 1, ..Losses::default() }];
        for losses in each {
            assert!(Report { losses, ..Report::default() }.verdict().is_err(), "{losses:?}");
        }
        assert_eq!(Report { losses, ..Report::default() }.json()["lost"]["doubled"], 2);
    }
}
