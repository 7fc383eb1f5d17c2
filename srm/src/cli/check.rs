//! `tandem config` and `tandem log`: is the file sound, is the running node told of it, and how much does it tell?

use std::path::Path;

use serde_json::json;

use super::Client;
use super::args::{SetArgs, ShowArgs};
use super::output::{Answer, Exit, Failure, table};
use crate::admin::Reloaded;
use crate::config::edit::Setting;
use crate::config::{self, Config, ConfigError, Policy};

/// Checks the file and all that it names.
pub(super) fn check(named: Option<&Path>) -> Result<Answer, Failure> {
    let path = config::find(named).map_err(|error| Failure::environment(&error))?;
    let config = Config::load(&path).map_err(|error| failed(&error))?;
    config.check_files().map_err(|error| failed(&error))?;

    let (file, name, domains) =
        (path.display().to_string(), &config.node.name, config.node.domains.join(", "));
    let hash = format!("{:016x}", config.hash());
    let warnings = config.warnings();
    let mut text = match &config.peer {
        Some(peer) => format!(
            "{file} is sound: node {name} for {domains}, with its peer {} at {}\n\
             clusterwide settings: {hash} (`tandem config check` on {} must say the same)\n",
            peer.name, peer.host, peer.name
        ),
        None => format!("{file} is sound: node {name} for {domains}, without a peer\n"),
    };
    if let Some(witness) = config
        .witness
        .as_ref()
        .filter(|_| config.pair().is_some_and(|(_, link)| link.policy == Policy::Witness))
    {
        text.push_str(&format!(
            "who goes on alone is decided by the witness {} at {}\n",
            witness.name, witness.address
        ));
    }
    text.push_str(&warned(&warnings));
    let peer = config.peer.as_ref().map(|peer| &peer.name);
    let json = json!({ "file": file, "node": name, "peer": peer, "hash": hash, "warnings": warnings });
    Ok(Answer::new(text, json))
}

/// Shows the settings in effect.
pub(super) fn show(args: &ShowArgs) -> Result<Answer, Failure> {
    let path = config::find(args.file.config.as_deref()).map_err(|error| Failure::environment(&error))?;
    let config = Config::load(&path).map_err(|error| failed(&error))?;
    let prefix = args.prefix.as_deref().unwrap_or_default();
    let mut settings = config.list();
    settings.retain(|s| s.key.starts_with(prefix) && !(args.changed && s.default.as_ref() == Some(&s.value)));
    if settings.is_empty() && !prefix.is_empty() && !args.changed {
        let error = format!("there is no setting whose name begins with {prefix}");
        return Err(Failure::new(Exit::Usage, error, "`tandem config show` lists all"));
    }
    let line = |s: &Setting| {
        let changed = if s.default.as_ref() == Some(&s.value) { "" } else { "changed" };
        let both = if s.clusterwide { "both nodes" } else { "this node" };
        vec![s.key.clone(), s.value.clone(), both.to_owned(), changed.to_owned()]
    };
    let lines: Vec<Vec<String>> = settings.iter().map(line).collect();
    Ok(Answer::new(table(&lines, &[]).join("\n") + "\n", json!({ "file": path, "settings": settings })))
}

/// Changes one setting of a running node.
pub(super) fn set(client: &Client, args: &SetArgs) -> Result<Answer, Failure> {
    let done = client.set(&args.key, args.value.as_deref())?;
    let value = args.value.as_deref().unwrap_or("its default");
    let mut text = if done.restart.contains(&args.key) {
        format!("{} is {value} in the file; it counts after a restart of the node\n", args.key)
    } else {
        format!("{} is {value}\n", args.key)
    };
    text.push_str(&warned(&done.warnings));
    let Reloaded { taken, restart, warnings } = done;
    let json = json!({
        "key": args.key, "value": args.value, "taken": taken, "restart": restart, "warnings": warnings
    });
    Ok(Answer::new(text, json))
}

/// What in the file deserves a second look, a line each.
fn warned(warnings: &[String]) -> String {
    warnings.iter().map(|warning| format!("warning: {warning}\n")).collect()
}

/// Lets the node read its configuration again, and says what changed.
pub(super) fn reload(client: &Client) -> Result<Answer, Failure> {
    let done = client.reload()?;
    let mut text = match done.taken.as_slice() {
        [] => "nothing has changed\n".to_owned(),
        taken => format!("taken up: {}\n", taken.join(", ")),
    };
    if !done.restart.is_empty() {
        text.push_str(&format!("waits for a restart of the node: {}\n", done.restart.join(", ")));
    }
    text.push_str(&warned(&done.warnings));
    let Reloaded { taken, restart, warnings } = done;
    Ok(Answer::new(text, json!({ "taken": taken, "restart": restart, "warnings": warnings })))
}

/// Shows the level of the node's log, or sets it.
pub(super) fn log(client: &Client, level: Option<&str>) -> Result<Answer, Failure> {
    let now = match level {
        None => client.log_level()?,
        Some(level) => client.set_log_level(level)?,
    };
    Ok(Answer::new(format!("{now}\n"), json!({ "level": now })))
}

/// A file that breaks rules is refused; one that is not there is a matter of the environment.
fn failed(error: &ConfigError) -> Failure {
    let exit = if error.faults().is_empty() { Exit::Environment } else { Exit::Refused };
    Failure { exit, more: json!({ "faults": error.faults() }), ..Failure::environment(error) }
}
