//! The reference of all settings, from the comments beside them: as a page, and as comments for a new file.

use schemars::schema_for;
use serde_json::{Map, Value};

use super::file::File;
use super::reload::at_start;

/// One section of the file.
struct Section {
    name: String,
    /// As it stands in the file.
    heading: String,
    about: String,
    keys: Vec<Key>,
}

struct Key {
    name: String,
    about: String,
    /// As it stands in the file; `None` where there is none.
    default: Option<String>,
}

/// All sections, in the order of the file.
fn sections() -> Vec<Section> {
    let schema = schema_for!(File).to_value();
    let none = Map::new();
    let object = |value: &Value, key: &str| value.get(key).and_then(Value::as_object).cloned();
    let named = object(&schema, "$defs").unwrap_or_default();
    let of = |(name, value): (&String, &Value)| {
        // Optional sections are a choice between the section and nothing.
        let choices = value.get("anyOf").and_then(Value::as_array).cloned().unwrap_or_default();
        // One that may stand there several times is a list of it.
        let items = value.get("items").cloned();
        let heading = if items.is_some() { format!("[[{name}]]") } else { format!("[{name}]") };
        let all = [value.clone()].into_iter().chain(choices).chain(items);
        let refers =
            all.filter_map(|one| one.get("$ref")?.as_str()?.strip_prefix("#/$defs/").map(str::to_owned));
        let section = refers.filter_map(|name| named.get(&name)).next()?;
        let keys = object(section, "properties").unwrap_or_else(|| none.clone());
        let keys = keys.iter().map(|(name, key)| Key {
            name: name.clone(),
            about: about(key),
            default: key.get("default").filter(|value| !value.is_null()).map(toml_text),
        });
        Some(Section { name: name.clone(), heading, about: about(section), keys: keys.collect() })
    };
    object(&schema, "properties").unwrap_or_default().iter().filter_map(of).collect()
}

/// The comment, each paragraph on one line.
fn about(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// A default as TOML. Paths beside the configuration file and the like are text.
fn toml_text(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}

/// The page: what each setting means, its default, its limits, and when a change of it takes effect.
pub fn reference() -> String {
    let mut page = "# Configuration reference\n\n\
        One TOML file a node. Unknown keys are refused, and `tandem config check` checks the file and all files that it \
        names. What\nis not written has its default. *Clusterwide* settings must be equal on both nodes: a difference \
        is an alarm. A running\nnode reads its file again on SIGHUP (`systemctl reload tandem`), on `tandem config \
        reload`, and a few seconds after the\nfile or one that it names has changed. A file with a fault changes \
        nothing, and the alarm says what is wrong. What is\nmarked *restart* waits for the next start.\n\n\
        This page is generated from the comments beside the settings.\n"
        .to_owned();
    for section in sections() {
        page.push_str(&format!("\n## `{}`\n\n{}\n\n", section.heading, without_name(&section)));
        page.push_str("| setting | meaning, default, limits | a change takes effect |\n|---|---|---|\n");
        for key in &section.keys {
            let when =
                if at_start(&format!("{}.{}", section.name, key.name)) { "restart" } else { "at once" };
            page.push_str(&format!("| `{}` | {} | {when} |\n", key.name, key.about.replace('|', "\\|")));
        }
    }
    page
}

/// A comment for a key that stands in a new file.
pub(crate) fn commented(section: &str, key: &str) -> Vec<String> {
    let found = sections().into_iter().find(|known| known.name == section);
    let key = found.and_then(|section| section.keys.into_iter().find(|known| known.name == key));
    key.map(|key| wrapped(&key.about)).unwrap_or_default()
}

/// What is said of one setting.
pub(super) struct Known {
    /// As TOML.
    pub default: Option<String>,
    pub clusterwide: bool,
    pub restart: bool,
}

/// Finds a setting by `section.key`.
pub(super) fn setting(key: &str) -> Option<Known> {
    let (section, name) = key.split_once('.')?;
    let found = sections().into_iter().find(|known| known.name == section)?;
    let found = found.keys.into_iter().find(|known| known.name == name)?;
    let clusterwide = found.about.contains("Clusterwide.");
    Some(Known { default: found.default, clusterwide, restart: at_start(key) })
}

/// All keys of a section but those in `set`, as comments, each with its default.
pub(crate) fn defaults(section: &str, set: &[String]) -> Vec<String> {
    let Some(section) = sections().into_iter().find(|known| known.name == section) else { return Vec::new() };
    let mut lines = Vec::new();
    for key in section.keys.iter().filter(|key| !set.contains(&key.name)) {
        let Some(default) = &key.default else { continue };
        lines.extend(wrapped(&key.about));
        lines.push(format!("# {} = {default}", key.name));
    }
    lines
}

/// What a section is for, as comments.
pub(crate) fn about_section(name: &str) -> Vec<String> {
    let found = sections().into_iter().find(|known| known.name == name);
    found.map(|section| wrapped(&without_name(&section))).unwrap_or_default()
}

/// The section's comment without its name in front, beginning with a capital letter.
fn without_name(section: &Section) -> String {
    let text = section.about.trim_start_matches(&format!("`{}`", section.heading));
    let text = text.trim_start_matches([':', '.', ' ']);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Text as comment lines of at most 110 characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec!["#".to_owned()];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| line.len() + word.len() >= 110) {
            lines.push("#".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines
}
