//! One setting, changed in the file; all else stays as it was written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;
use toml_edit::{DocumentMut, Item, Table, Value};

use super::file;
use super::reference::setting;
use super::{Config, ConfigError};

/// A setting and its value.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Setting {
    /// `section.key`.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// Its default, as TOML; `None` where there is none.
    pub default: Option<String>,
    /// It must be equal on both nodes.
    pub clusterwide: bool,
    /// A change waits for a restart.
    pub restart: bool,
}

/// Why a setting is not changed: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub hint: String,
}

fn unfit(problem: impl Into<String>, hint: impl Into<String>) -> Unfit {
    Unfit { problem: problem.into(), hint: hint.into() }
}

impl Config {
    /// All settings in effect but for the secret and `[[notify]]`, in the order of their names.
    pub fn list(&self) -> Vec<Setting> {
        let all = self.settings.iter().filter(|(key, _)| key.as_str() != "notify");
        let of = |(key, value): (&String, &String)| {
            let known = setting(key)?;
            let (key, value) = (key.clone(), value.clone());
            Some(Setting {
                key,
                value,
                default: known.default,
                clusterwide: known.clusterwide,
                restart: known.restart,
            })
        };
        all.filter_map(of).collect()
    }
}

/// Whether a setting must be equal on both nodes. Refuses one that cannot be changed by itself.
///
/// # Errors
/// It is not known, or is not changed this way.
pub fn is_clusterwide(key: &str) -> Result<bool, Unfit> {
    if key == "link.secret" {
        return Err(unfit("the secret is not changed this way", "use `tandem renew secret`"));
    }
    if key == "notify" || key.starts_with("notify.") {
        return Err(unfit(
            "[[notify]] is not changed this way",
            "edit the file; `tandem config check` checks it",
        ));
    }
    match setting(key) {
        Some(known) => Ok(known.clusterwide),
        None => {
            let hint = "see `tandem config show`, or docs/configuration.md, for all settings";
            Err(unfit(format!("there is no setting {key}"), hint))
        }
    }
}

/// A change of one setting that is sound, and is not in the file yet.
#[derive(Debug)]
pub struct Change {
    /// The value before, as it was written; `None`: it was not.
    pub before: Option<String>,
    text: String,
}

/// What the file would be with another value; `None`: without one, so that the default counts. A value is TOML; what is
/// none is taken as text, so that `30s` needs no quotes.
///
/// # Errors
/// The setting or the value is refused, by the same rules as when the file is read.
pub fn change(path: &Path, key: &str, value: Option<&str>) -> Result<Change, Unfit> {
    is_clusterwide(key)?;
    let (section, name) = key.split_once('.').unwrap_or_default();
    let broken = |error: &dyn std::fmt::Display| {
        unfit(
            format!("{}: {error}", path.display()),
            "correct the file first; `tandem config check` checks it",
        )
    };
    let text = fs::read_to_string(path).map_err(|error| broken(&error))?;
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| broken(&error))?;
    let table = document.entry(section).or_insert_with(|| Item::Table(Table::new()));
    let Some(table) = table.as_table_like_mut() else {
        return Err(unfit(format!("[{section}] is not a section in {}", path.display()), "correct the file"));
    };
    let before = table.get(name).and_then(Item::as_value).map(|value| {
        let mut value = value.clone();
        value.decor_mut().clear();
        value.to_string()
    });
    match value {
        None => _ = table.remove(name),
        Some(text) => {
            let mut value: Value = text.trim().parse().unwrap_or_else(|_| text.into());
            // The comment at the end of the line stays.
            if let Some(old) = table.get(name).and_then(Item::as_value) {
                *value.decor_mut() = old.decor().clone();
            }
            table.insert(name, Item::Value(value));
        }
    }
    let text = document.to_string();
    file::parse(path, &text).map_err(|error| refused(key, &error))?;
    Ok(Change { before, text })
}

/// What is wrong with the setting itself comes first.
fn refused(key: &str, error: &ConfigError) -> Unfit {
    let faults = error.faults();
    match faults.iter().find(|fault| fault.key == key).or(faults.first()) {
        Some(fault) => unfit(format!("{}: {}", fault.key, fault.problem), fault.hint.clone()),
        None => unfit(error.to_string(), ""),
    }
}

impl Change {
    /// Puts it in the place of the file, whole or not at all.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mode = fs::metadata(path)?.mode() & 0o777;
        let new = path.with_extension("toml.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(self.text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all()
    }
}
