//! What is printed: a table for people, JSON, or rows for docs/performance.md; and whether the aims are met.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::args::{Form, Kind};
use super::processes;

/// The aims of docs/performance.md: parts of what ejabberd takes, and bytes.
const MESSAGE_PART: f64 = 0.25;
const LOGIN_PART: f64 = 0.5;
const SESSION_BYTES: f64 = 22.0 * 1024.0;

/// One run of one server.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Which server.
    pub server: String,
    /// Its version.
    pub version: String,
    /// Processor time for each, in microseconds.
    pub cpu_us: f64,
    /// How many a second.
    pub rate: f64,
    /// How many were counted.
    pub count: u64,
    /// Acknowledgements that the server asked its clients for, for each message.
    pub asked: f64,
    /// Which share of the machine was busy, clients included, 0 to 1.
    pub busy: f64,
    /// Load averages at the end.
    pub load: String,
}

/// What sessions hold at one node.
#[derive(Clone, Debug)]
pub struct Held {
    /// Which server, and what.
    pub server: String,
    /// Its version.
    pub version: String,
    /// Which of its nodes; empty where there is one.
    pub node: String,
    /// Growth of the resident set for each, in bytes.
    pub rss: f64,
    /// The same, shared pages by their share.
    pub pss: f64,
    /// How many sessions there were.
    pub sessions: u64,
    /// Resident set before and with them, in bytes.
    pub empty: u64,
    /// The same, with them.
    pub full: u64,
}

/// Everything that was measured.
pub struct Report {
    /// Runs of messages.
    pub messages: Vec<Sample>,
    /// Runs of logins.
    pub logins: Vec<Sample>,
    /// Memory.
    pub memory: Vec<Held>,
    began: String,
    ended: String,
}

/// All runs of one server.
struct Row<'a> {
    runs: Vec<&'a Sample>,
}

impl Row<'_> {
    fn name(&self) -> &str {
        &self.runs[0].server
    }

    fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.runs.iter().map(|run| of(run)).collect())
    }

    fn each(&self) -> String {
        self.runs.iter().map(|run| format!("{:.1}", run.cpu_us)).collect::<Vec<_>>().join(" ")
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len().max(1) - 1) / 2, values.len() / 2);
    match (values.get(low), values.get(high)) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

/// The runs of each server together, in the order in which they began.
fn rows(samples: &[Sample]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for sample in samples {
        match rows.iter_mut().find(|row| row.name() == sample.server) {
            Some(row) => row.runs.push(sample),
            None => rows.push(Row { runs: vec![sample] }),
        }
    }
    rows
}

/// The median of Tandem's pair, as part of the lower one of ejabberd's.
fn part_of_ejabberd(samples: &[Sample]) -> Option<f64> {
    let rows = rows(samples);
    let of = |kind: Kind| {
        let row = rows.iter().find(|row| row.name() == kind.name())?;
        Some(row.median(|run| run.cpu_us))
    };
    let theirs = [false, true].into_iter().filter_map(|quiet| of(Kind::Ejabberd { quiet }));
    Some(of(Kind::Tandem)? / theirs.min_by(f64::total_cmp)?)
}

fn kib(bytes: f64) -> f64 {
    bytes / 1024.0
}

impl Report {
    /// Nothing yet; notes the load of the machine.
    pub fn begin() -> Report {
        let (messages, logins, memory) = (Vec::new(), Vec::new(), Vec::new());
        Report { messages, logins, memory, began: processes::load_average(), ended: String::new() }
    }

    /// Everything is measured.
    pub fn end(&mut self) {
        self.ended = processes::load_average();
    }

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
        samples(&mut out, "message", &self.messages, markdown);
        samples(&mut out, "login", &self.logins, markdown);
        self.held(&mut out, markdown);
        for (aim, met) in self.aims() {
            let _ = writeln!(out, "{aim}: {}", if met { "met" } else { "NOT met" });
        }
        out
    }

    fn held(&self, out: &mut String, markdown: bool) {
        if self.memory.is_empty() {
            return;
        }
        let head = ["KiB for a session", "node", "RSS", "PSS", "sessions", "MiB empty", "MiB full"];
        let lines = self.memory.iter().map(|held| {
            let mib = |bytes: u64| format!("{:.1}", bytes as f64 / 1048576.0);
            vec![
                format!("{} {}", held.server, held.version),
                held.node.clone(),
                format!("{:.1}", kib(held.rss)),
                format!("{:.1}", kib(held.pss)),
                held.sessions.to_string(),
                mib(held.empty),
                mib(held.full),
            ]
        });
        lay_out(out, &head, &lines.collect::<Vec<_>>(), markdown);
    }

    /// Each aim that was measured, in words, and whether it is met.
    fn aims(&self) -> Vec<(String, bool)> {
        let mut aims = Vec::new();
        let parts = [("message", &self.messages, MESSAGE_PART), ("login", &self.logins, LOGIN_PART)];
        for (what, samples, most) in parts {
            if let Some(part) = part_of_ejabberd(samples) {
                let text = format!(
                    "a pair takes {part:.2} of ejabberd's processor time for a {what}, at most {most}"
                );
                aims.push((text, part <= most));
            }
        }
        let of_pair = self.memory.iter().filter(|held| held.server == Kind::Tandem.name());
        for held in of_pair {
            let text =
                format!("an idle session takes {:.1} KiB of node {}, at most 22", kib(held.rss), held.node);
            aims.push((text, held.rss <= SESSION_BYTES));
        }
        aims
    }

    fn json(&self) -> Value {
        let samples = |samples: &[Sample]| {
            let each = rows(samples).into_iter().map(|row| {
                let runs = row.runs.iter().map(|run| {
                    json!({ "cpu_us": run.cpu_us, "per_second": run.rate, "count": run.count, "asked": run.asked,
                            "machine_busy": run.busy, "load_average": run.load })
                });
                json!({ "server": row.name(), "version": row.runs[0].version,
                        "cpu_us": row.median(|run| run.cpu_us), "per_second": row.median(|run| run.rate),
                        "runs": runs.collect::<Vec<_>>() })
            });
            each.collect::<Vec<_>>()
        };
        let memory = self.memory.iter().map(|held| {
            json!({ "server": held.server, "version": held.version, "node": held.node,
                    "rss_bytes": held.rss, "pss_bytes": held.pss, "sessions": held.sessions,
                    "empty_bytes": held.empty, "full_bytes": held.full })
        });
        let aims = self.aims().into_iter().map(|(aim, met)| json!({ "aim": aim, "met": met }));
        json!({
            "machine": processes::machine(),
            "load_average": { "before": self.began, "after": self.ended },
            "messages": samples(&self.messages),
            "logins": samples(&self.logins),
            "memory": memory.collect::<Vec<_>>(),
            "aims": aims.collect::<Vec<_>>(),
        })
    }
}

/// The first line of every report: what the machine is, and what else it did.
pub(super) fn head(began: &str, ended: &str) -> String {
    let machine = processes::machine();
    format!(
        "{}, {} cores, {} MiB, Linux {}; load average {began} before, {ended} after\n\n",
        machine["processor"].as_str().unwrap_or_default(),
        machine["cores"],
        machine["memory_mib"],
        machine["kernel"].as_str().unwrap_or_default(),
    )
}

fn samples(out: &mut String, what: &str, samples: &[Sample], markdown: bool) {
    if samples.is_empty() {
        return;
    }
    let first = format!("CPU for a {what}");
    let mut head = vec![first.as_str(), "median, us", "all runs, us", "a second", "machine busy"];
    // Of logins there is nothing to ask for.
    let asks = samples.iter().any(|sample| sample.asked > 0.0);
    if asks {
        head.push("`<r/>` of the server");
    }
    let lines = rows(samples).into_iter().map(|row| {
        let mut line = vec![
            format!("{} {}", row.name(), row.runs[0].version),
            format!("{:.1}", row.median(|run| run.cpu_us)),
            row.each(),
            format!("{:.0}", row.median(|run| run.rate)),
            format!("{:.0} %", 100.0 * row.median(|run| run.busy)),
        ];
        if asks {
            line.push(format!("{:.2}", row.median(|run| run.asked)));
        }
        line
    });
    lay_out(out, &head, &lines.collect::<Vec<_>>(), markdown);
}

/// A table: the first column to the left, all others to the right.
pub(super) fn lay_out(out: &mut String, head: &[&str], lines: &[Vec<String>], markdown: bool) {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let width = |column: usize| {
        let cells = lines.iter().chain([&head]).map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let (edge, between) = if markdown { ("|", " | ") } else { ("", "  ") };
    let mut put = |line: &[String]| {
        let cells = line.iter().enumerate().map(|(column, cell)| match column {
            0 => format!("{cell:<0$}", width(column)),
            _ => format!("{cell:>0$}", width(column)),
        });
        let text = cells.collect::<Vec<_>>().join(between);
        let _ = writeln!(out, "{}", if markdown { format!("| {text} {edge}") } else { text });
    };
    put(&head);
    if markdown {
        let rule = (0..head.len()).map(|column| if column == 0 { "---" } else { "---:" }.to_owned());
        put(&rule.collect::<Vec<_>>());
    }
    lines.iter().for_each(|line| put(line));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: Kind, cpu_us: f64) -> Sample {
        let (server, version, load) = (kind.name().into(), "1".into(), String::new());
        Sample { server, version, cpu_us, rate: 1.0, count: 1, asked: 0.0, busy: 0.5, load }
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn tandem_is_compared_with_the_lower_of_ejabberds_two() {
        let mut samples = vec![sample(Kind::Tandem, 30.0), sample(Kind::Tandem, 50.0)];
        assert_eq!(part_of_ejabberd(&samples), None);
        samples.push(sample(Kind::Ejabberd { quiet: false }, 400.0));
        assert_eq!(part_of_ejabberd(&samples), Some(0.1));
        samples.push(sample(Kind::Ejabberd { quiet: true }, 100.0));
        assert_eq!(part_of_ejabberd(&samples), Some(0.4));
        let report = Report { messages: samples, ..Report::begin() };
        assert!(matches!(report.aims().as_slice(), [(_, false)]), "0.4 is more than a quarter");
    }

    #[test]
    fn tables_have_a_line_for_each_server() {
        let report = Report { logins: vec![sample(Kind::Prosody, 7.0)], ..Report::begin() };
        let text = report.text(Form::Markdown);
        assert!(text.contains("| CPU for a login |"), "{text}");
        assert!(text.contains("| Prosody 1 "), "{text}");
        assert_eq!(report.json()["logins"][0]["cpu_us"], 7.0);
    }
}
