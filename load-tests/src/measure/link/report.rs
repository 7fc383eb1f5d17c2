//! What is printed of links: tables for people, JSON, or rows for docs/performance.md.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::measure::args::{Form, Width};
use crate::measure::processes;
use crate::measure::report::{head, lay_out};

/// Half of all take less, one in a hundred more, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(mut times: Vec<Duration>) -> Option<Spread> {
        times.sort_unstable();
        // The nearest rank: the smallest that so many percent do not exceed.
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).checked_sub(1)?;
            times.get(rank).map(|time| time.as_secs_f64() * 1e3)
        };
        Some(Spread { p50: at(50)?, p99: at(99)? })
    }
}

/// A fixed load.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Messages written in a second.
    pub rate: u32,
    /// The pair kept up with it: everything arrived, what was under way did not grow, and both nodes protected each other.
    pub kept: bool,
    /// Bytes of IP on the link, both ways, for each message.
    pub link_bytes: f64,
    /// From writing to arrival; `None`: nothing arrived.
    pub arrival: Option<Spread>,
    /// From writing to acknowledgement.
    pub acknowledgement: Option<Spread>,
}

/// The highest load of those tried that the pair kept up with.
#[derive(Clone, Copy, Debug)]
pub struct Highest {
    /// Messages in a second.
    pub rate: f64,
    /// Bytes of IP on the link, both ways, for each message.
    pub link_bytes: f64,
}

/// A node that came back empty has everything.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    /// From the start of its process.
    pub seconds: f64,
    /// Bytes of IP on the link, both ways.
    pub bytes: u64,
}

/// One link.
#[derive(Clone, Debug)]
pub struct Row {
    /// From one node to the other and back, in milliseconds.
    pub round_trip_ms: u64,
    /// Its width.
    pub width: Width,
    /// Fixed loads.
    pub loads: Vec<Loaded>,
    /// `None`: it kept up with none that was tried.
    pub highest: Option<Highest>,
    /// `None`: there was no time for it.
    pub copied: Option<Copied>,
}

impl Default for Row {
    fn default() -> Row {
        Row { round_trip_ms: 0, width: Width(None), loads: Vec::new(), highest: None, copied: None }
    }
}

impl Row {
    fn link(&self) -> [String; 2] {
        [format!("{} ms", self.round_trip_ms), self.width.to_string()]
    }
}

/// Everything that was measured.
#[derive(Default)]
pub struct Report {
    /// Each link.
    pub rows: Vec<Row>,
    /// Sessions that there were.
    pub sessions: usize,
    /// Accounts that there were.
    pub accounts: usize,
    /// Load averages.
    pub began: String,
    /// The same, at the end.
    pub ended: String,
}

impl Report {
    /// The copy over a link; one whose loads were left out has a row of its own.
    pub fn put(&mut self, round_trip_ms: u64, width: Width, copied: Copied) {
        let there = |row: &&mut Row| row.round_trip_ms == round_trip_ms && row.width == width;
        match self.rows.iter_mut().find(there) {
            Some(row) => row.copied = Some(copied),
            None => self.rows.push(Row { round_trip_ms, width, copied: Some(copied), ..Row::default() }),
        }
    }

    /// As it is to be printed.
    pub fn text(&self, form: Form) -> String {
        let markdown = match form {
            Form::Json => return format!("{:#}\n", self.json()),
            Form::Table => false,
            Form::Markdown => true,
        };
        let mut out = head(&self.began, &self.ended);
        self.loads(&mut out, markdown);
        let highest = self.rows.iter().filter(|row| !row.loads.is_empty()).map(|row| {
            let cells = row.highest.map_or(["none that was tried", "-", "-"].map(str::to_owned), |highest| {
                let mbit = highest.rate * highest.link_bytes * 8.0 / 1e6;
                [format!("{:.0}", highest.rate), format!("{:.0}", highest.link_bytes), format!("{mbit:.2}")]
            });
            row.link().into_iter().chain(cells).collect()
        });
        let names = [
            "round trip",
            "width",
            "messages a second, at most",
            "bytes on the link each",
            "Mbit/s both ways",
        ];
        lay_out(&mut out, &names, &highest.collect::<Vec<_>>(), markdown);
        let copies = self.rows.iter().filter_map(|row| {
            let copied = row.copied?;
            let cells = [format!("{:.1}", copied.seconds), format!("{:.2}", copied.bytes as f64 / 1e6)];
            Some(row.link().into_iter().chain(cells).collect())
        });
        let _ = writeln!(
            out,
            "A full copy of {} accounts, {} of them with a session:\n",
            self.accounts, self.sessions
        );
        lay_out(&mut out, &["round trip", "width", "s", "MB"], &copies.collect::<Vec<_>>(), markdown);
        out
    }

    fn loads(&self, out: &mut String, markdown: bool) {
        let names = [
            "round trip",
            "width",
            "messages a second",
            "kept up",
            "bytes on the link each",
            "arrival ms, median",
            "99 %",
            "acknowledgement ms, median",
            "99 %",
        ];
        let lines = self.rows.iter().flat_map(|row| {
            row.loads.iter().map(|load| {
                let kept = if load.kept { "yes" } else { "NO" };
                let figures = [load.rate.to_string(), kept.to_owned(), format!("{:.0}", load.link_bytes)];
                let spreads = [load.arrival, load.acknowledgement].map(|spread| match spread {
                    Some(spread) => [format!("{:.1}", spread.p50), format!("{:.1}", spread.p99)],
                    None => ["-".to_owned(), "-".to_owned()],
                });
                row.link().into_iter().chain(figures).chain(spreads.concat()).collect()
            })
        });
        lay_out(out, &names, &lines.collect::<Vec<Vec<String>>>(), markdown);
    }

    fn json(&self) -> Value {
        let spread = |spread: Option<Spread>| spread.map(|s| json!({ "p50": s.p50, "p99": s.p99 }));
        let rows = self.rows.iter().map(|row| {
            let loads = row.loads.iter().map(|load| {
                json!({ "per_second": load.rate, "kept_up": load.kept, "link_bytes": load.link_bytes,
                        "arrival_ms": spread(load.arrival), "acknowledgement_ms": spread(load.acknowledgement) })
            });
            json!({
                "round_trip_ms": row.round_trip_ms,
                "bits_per_second": row.width.0,
                "loads": loads.collect::<Vec<_>>(),
                "highest": row.highest.map(|h| json!({ "per_second": h.rate, "link_bytes": h.link_bytes })),
                "copy": row.copied.map(|copied| json!({ "seconds": copied.seconds, "bytes": copied.bytes })),
            })
        });
        json!({
            "machine": processes::machine(),
            "load_average": { "before": self.began, "after": self.ended },
            "sessions": self.sessions,
            "accounts": self.accounts,
            "links": rows.collect::<Vec<_>>(),
        })
    }

    /// The loads of the link that was measured last, in a line.
    pub fn last(&self) -> String {
        let Some(row) = self.rows.last() else { return String::new() };
        let [round_trip, width] = row.link();
        let kept = row.loads.iter().map(|load| {
            let times = load
                .arrival
                .map_or("nothing".to_owned(), |s| format!("{:.1} ms, 99 % {:.1} ms", s.p50, s.p99));
            format!("{} a second arrive in {times}{}", load.rate, if load.kept { "" } else { " (too many)" })
        });
        let highest =
            row.highest.map_or("none that was tried".to_owned(), |highest| format!("{:.0}", highest.rate));
        format!("{round_trip}, {width}: {}; at most {highest} a second", kept.collect::<Vec<_>>().join("; "))
    }

    /// The copy over a link, in a line.
    pub fn copy_line(&self, round_trip_ms: u64, width: Width) -> String {
        let row = self.rows.iter().find(|row| row.round_trip_ms == round_trip_ms && row.width == width);
        let copied = row.and_then(|row| row.copied);
        copied.map_or(String::new(), |copied| {
            format!(
                "{round_trip_ms} ms, {width}: a copy took {:.1} s and {} bytes",
                copied.seconds, copied.bytes
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_taken_by_the_nearest_rank() {
        let times = |count: u64| (1..=count).rev().map(Duration::from_millis).collect();
        assert_eq!(Spread::of(times(200)), Some(Spread { p50: 100.0, p99: 198.0 }));
        assert_eq!(Spread::of(times(1)), Some(Spread { p50: 1.0, p99: 1.0 }));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn every_form_has_every_link_and_what_was_left_out_is_no_number() {
        let loaded =
            Loaded { rate: 200, kept: false, link_bytes: 640.0, arrival: None, acknowledgement: None };
        let row =
            Row { round_trip_ms: 80, width: Width(Some(2_000_000)), loads: vec![loaded], ..Row::default() };
        let mut report = Report { rows: vec![row], ..Report::default() };
        report.put(80, Width(Some(2_000_000)), Copied { seconds: 3.25, bytes: 1_500_000 });
        report.put(0, Width(None), Copied { seconds: 1.0, bytes: 1 });
        assert_eq!(report.rows.len(), 2, "a copy over a link without loads");
        let text = report.text(Form::Markdown);
        assert!(text.contains(" NO |") && text.contains("none that was tried"), "{text}");
        assert!(text.lines().any(|line| line.contains("2 Mbit/s") && line.contains("1.50")), "{text}");
        let json = report.json();
        assert_eq!(json["links"][0]["loads"][0]["arrival_ms"], Value::Null);
        assert_eq!(json["links"][0]["copy"]["bytes"], 1_500_000);
        assert_eq!(json["links"][1]["bits_per_second"], Value::Null);
    }
}
