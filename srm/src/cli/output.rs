//! What commands put out: answers, failures, progress, tables, colour.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::admin::Refusal;

/// Exit code of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Well = 0,
    /// A promise was broken, or the node refused.
    Refused = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The environment prevents it: no node, no file, no port.
    Environment = 3,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

/// What a command has to say when it did what it was asked.
#[derive(Debug)]
pub(super) struct Answer {
    /// For people; empty for nothing.
    pub text: String,
    /// The same for programs, an object.
    pub json: Value,
    pub exit: Exit,
}

impl Answer {
    pub fn new(text: impl Into<String>, json: Value) -> Self {
        Answer { text: text.into(), json, exit: Exit::Well }
    }

    /// Of a command that has printed everything itself.
    pub fn silent(exit: Exit) -> Self {
        Answer { text: String::new(), json: Value::Null, exit }
    }

    /// Prints it to standard output; gives the exit code.
    pub fn print(self, json: bool) -> Exit {
        say(&if json { self.line() } else { self.text });
        self.exit
    }

    /// For programs: one line of JSON, or nothing.
    pub fn line(&self) -> String {
        self.json.as_object().map(|object| line(self.exit == Exit::Well, object.clone())).unwrap_or_default()
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// What to exit with.
    pub exit: Exit,
    /// What failed; state and reason where a node refused; what to do.
    pub refusal: Refusal,
    /// More for programs, an object or null.
    pub more: Value,
}

impl Failure {
    /// What failed, and what to do.
    pub fn new(exit: Exit, error: impl Into<String>, hint: impl Into<String>) -> Self {
        let refusal = Refusal { error: error.into(), hint: hint.into(), ..Refusal::default() };
        Failure { exit, refusal, more: Value::Null }
    }

    /// An error whose text says what to do.
    pub fn environment(error: &impl Display) -> Self {
        Failure::new(Exit::Environment, format!("{error:#}"), "")
    }

    /// Prints it to standard error, and as JSON to standard output; gives the exit code.
    pub fn print(self, json: bool) -> Exit {
        if json {
            say(&self.line());
        }
        let _ = io::stderr().write_all(self.text().as_bytes());
        self.exit
    }

    /// For programs: one line of JSON.
    pub fn line(&self) -> String {
        let mut object = self.more.as_object().cloned().unwrap_or_default();
        if let Ok(Value::Object(refusal)) = serde_json::to_value(&self.refusal) {
            object.extend(refusal);
        }
        line(false, object)
    }

    /// For people.
    pub fn text(&self) -> String {
        let Refusal { error, state, reason, hint } = &self.refusal;
        let mut text = format!("tandem: {error}\n");
        if !state.is_empty() {
            text.push_str(&format!("  state: {state} / {reason}\n"));
        }
        if !hint.is_empty() {
            text.push_str(&format!("  to do: {hint}\n"));
        }
        text
    }
}

fn line(ok: bool, object: Map<String, Value>) -> String {
    let mut all = Map::new();
    all.insert("ok".into(), json!(ok));
    all.extend(object);
    format!("{}\n", Value::Object(all))
}

/// So many users, in words.
pub(super) fn users(number: u64) -> String {
    if number == 1 { "1 user".to_owned() } else { format!("{number} users") }
}

/// Writes to standard output. Whoever closed it (`| head`) does not want the rest.
pub(super) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A line on standard error that tells how far it is.
pub(super) struct Progress {
    /// Overwrite the line (a terminal), or write another once a second.
    live: bool,
    out: Box<dyn Write>,
    last: Option<(Instant, String)>,
}

impl Progress {
    const PAUSE: Duration = Duration::from_secs(1);

    pub fn stderr() -> Self {
        Progress { live: io::stderr().is_terminal(), out: Box::new(io::stderr()), last: None }
    }

    /// Shows nothing.
    pub fn none() -> Self {
        Progress { live: true, out: Box::new(io::sink()), last: None }
    }

    /// Shows the text, if it is new.
    pub fn show(&mut self, text: String) {
        let shown = self.last.as_ref();
        let soon = shown.is_some_and(|(when, _)| !self.live && when.elapsed() < Self::PAUSE);
        if soon || shown.is_some_and(|(_, last)| *last == text) {
            return;
        }
        let _ = if self.live { write!(self.out, "\r\x1b[K{text}") } else { writeln!(self.out, "{text}") };
        let _ = self.out.flush();
        self.last = Some((Instant::now(), text));
    }

    /// Takes the line away, so that the answer stands alone.
    pub fn end(&mut self) {
        if self.live && self.last.take().is_some() {
            let _ = write!(self.out, "\r\x1b[K");
            let _ = self.out.flush();
        }
    }
}

/// How to emphasise text, if at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    /// For a file.
    pub const PLAIN: Paint = Paint(false);
    #[cfg(test)]
    pub const COLOUR: Paint = Paint(true);

    pub fn stdout() -> Self {
        Paint::of(&io::stdout())
    }

    /// Colour on a terminal, unless NO_COLOR is set (<https://no-color.org>).
    pub fn of(out: &impl IsTerminal) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Paint(out.is_terminal() && !unwanted && !dumb)
    }

    /// Whether there is colour at all.
    pub fn is_on(self) -> bool {
        self.0
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    pub fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// Columns of text, two spaces apart; those listed in `right` are aligned to the right.
pub(super) fn table(rows: &[Vec<String>], right: &[usize]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| visible(cell)).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let cell = |(column, text): (usize, &String)| {
        let gap = " ".repeat(widths[column].saturating_sub(visible(text)));
        if right.contains(&column) { format!("{gap}{text}") } else { format!("{text}{gap}") }
    };
    let line = |row: &Vec<String>| row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ");
    rows.iter().map(|row| line(row).trim_end().to_owned()).collect()
}

/// Characters that take room: not those that set the colour.
fn visible(text: &str) -> usize {
    let mut hidden = false;
    text.chars()
        .filter(|char| {
            let escape = hidden || *char == '\x1b';
            hidden = escape && *char != 'm';
            !escape
        })
        .count()
}
