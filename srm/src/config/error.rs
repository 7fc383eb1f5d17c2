//! What is wrong with a configuration, where, and what to do: all of it is for the operator.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Why there is no configuration. Whose fault: the operator's, in all variants.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// None was named and none is where one is looked for.
    #[error(
        "there is no configuration: none was named with -c, and none of {} is there; name one with -c FILE, or make \
         one with `tandem init`",
        list(.looked)
    )]
    NotFound {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// The file is missing or may not be read.
    #[error("{}: cannot be read: {reason}; name another file with -c FILE, or make it readable", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The file breaks rules.
    #[error("{}", faults_text(.path, .faults))]
    Refused {
        /// The file.
        path: PathBuf,
        /// Every rule that it breaks; at least one.
        faults: Vec<Fault>,
    },
}

impl ConfigError {
    /// The broken rules, if the file could be read at all.
    pub fn faults(&self) -> &[Fault] {
        match self {
            ConfigError::Refused { faults, .. } => faults,
            _ => &[],
        }
    }
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Line of the key in the file, from 1; `None` where the fault is something that is missing.
    pub line: Option<usize>,
    /// The key, such as `srm.keep_alive_timeout`; empty where the file is no TOML at all.
    pub key: String,
    /// The rule that is broken, and by what.
    pub problem: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.problem)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn faults_text(path: &std::path::Path, faults: &[Fault]) -> String {
    let line = |fault: &Fault| match fault.line {
        Some(line) => format!("{}:{line}: {fault}", path.display()),
        None => format!("{}: {fault}", path.display()),
    };
    let lines: Vec<String> = faults.iter().map(line).collect();
    match lines.len() {
        1 => lines.concat(),
        many => format!("{many} rules of the configuration are broken:\n  {}", lines.join("\n  ")),
    }
}

/// The text of a file, for finding the line of a key.
pub(super) struct Source<'a> {
    text: &'a str,
    root: Option<Spanned<DeTable<'a>>>,
}

impl<'a> Source<'a> {
    /// Parses the text for its places; a text that is no TOML has none.
    pub fn new(text: &'a str) -> Self {
        Source { text, root: DeTable::parse(text).ok() }
    }

    /// Line of the key `section.name`, or of its section. Of several sections of one name the key says which, from 1:
    /// `section.2.name`.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        let mut table = self.root.as_ref()?.get_ref();
        let mut found = None;
        let mut names = key.split('.');
        while let Some(name) = names.next() {
            let Some((at, mut value)) = table.iter().find(|(at, _)| at.get_ref() == name) else { break };
            found = Some(at.span());
            if let DeValue::Array(list) = value.get_ref() {
                let nth = names.next().and_then(|nth| list.get(nth.parse::<usize>().ok()?.checked_sub(1)?));
                let Some(section) = nth else { break };
                found = Some(section.span());
                value = section;
            }
            let Some(inner) = value.get_ref().as_table() else { break };
            table = inner;
        }
        found.map(|span| self.line_at(span.start))
    }

    /// A fault from an error of the TOML reader.
    pub fn fault(&self, error: &toml::de::Error) -> Fault {
        let problem = error.message().trim().replace('\n', ", ");
        let span = error.span();
        let mut path = match (&self.root, &span) {
            (Some(root), Some(span)) => path_to(root.get_ref(), span),
            _ => Vec::new(),
        };
        let missing = problem.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
        path.extend(missing.map(|(name, _)| name.to_owned()));
        let hint = hint(&problem);
        Fault { line: span.map(|span| self.line_at(span.start)), key: path.join("."), problem, hint }
    }

    fn line_at(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// The names that lead to the key, or the table, that lies at this place; nothing if there is none.
fn path_to(table: &DeTable<'_>, place: &Range<usize>) -> Vec<String> {
    let inside = |span: Range<usize>| span.start <= place.start && place.end <= span.end;
    for (name, value) in table {
        // Keys below a header in brackets lie outside the span of their table: look into each.
        let mut path = match value.get_ref() {
            DeValue::Table(inner) => path_to(inner, place),
            DeValue::Array(list) => path_in(list, place),
            _ => Vec::new(),
        };
        if !path.is_empty() || inside(name.span()) || inside(value.span()) {
            path.insert(0, name.get_ref().to_string());
            return path;
        }
    }
    Vec::new()
}

/// The same among several sections of one name: which of them, from 1, and the key in it.
fn path_in(sections: &[Spanned<DeValue<'_>>], place: &Range<usize>) -> Vec<String> {
    for (number, section) in (1..).zip(sections) {
        let Some(table) = section.get_ref().as_table() else { continue };
        let mut path = path_to(table, place);
        let span = section.span();
        if !path.is_empty() || (span.start <= place.start && place.end <= span.end) {
            path.insert(0, number.to_string());
            return path;
        }
    }
    Vec::new()
}

fn hint(message: &str) -> String {
    let hint = if message.starts_with("unknown field") {
        "correct its spelling, or remove it"
    } else if message.starts_with("missing field") {
        "add it"
    } else if message.contains("a duration") || message.contains("time unit") {
        "write a number and a unit in quotes, such as \"90s\" or \"30min\""
    } else if message.contains("socket address") {
        "write address and port in quotes, such as \"[::]:5222\" or \"127.0.0.1:5222\""
    } else {
        ""
    };
    hint.to_owned()
}
