//! `tandem support-bundle`: what somebody who helps needs to see, in one file, and nothing that must not be seen.
//!
//! What the node says of itself and of its peer is asked of its admin API; where it does not answer, what its disk has is all
//! that there is. Settings are taken one by one, never the text of the file, whose comments may say anything; and whatever is
//! packed is looked through for the secrets that the configuration names ([`secrets`]).

mod secrets;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::Client;
use super::args::BundleArgs;
use super::output::{Answer, Exit, Failure, Paint};
use super::status::render;
use crate::config::{self, Config, Way};
use secrets::Secrets;

/// How much of the end of a log or of the events is packed, in bytes.
const TAIL: u64 = 1 << 20;
/// Events that are asked for.
const EVENTS: u64 = 1_000;
/// Folder in the archive.
const FOLDER: &str = "tandem-support";

/// What goes in, by its name, and what could not be had.
struct Bundle {
    secrets: Secrets,
    files: Vec<(String, String)>,
    missing: Vec<String>,
}

/// Packs it.
pub(super) fn bundle(args: &BundleArgs) -> Result<Answer, Failure> {
    let path = config::find(args.client.config.as_deref()).map_err(|error| Failure::environment(&error))?;
    let config = Config::load(&path);
    let secrets = config.as_ref().map_or_else(|_| Secrets::default(), Secrets::of);
    let mut bundle = Bundle { secrets, files: Vec::new(), missing: Vec::new() };
    match &config {
        Ok(config) => {
            bundle.json("configuration.json", &settings(config));
            bundle.disk(&config.node.data);
        }
        Err(error) => {
            // The fault itself may quote what stands there.
            let keys: Vec<&str> = error.faults().iter().map(|fault| fault.key.as_str()).collect();
            bundle.missing.push(format!("the configuration cannot be used; faults at: {}", keys.join(", ")));
        }
    }
    // Where the configuration cannot be read it is not known what is secret.
    let known = config.is_ok();
    let answers = match Client::find(&args.client) {
        Ok(client) if known => bundle.node(&client),
        Err(failure) if known => bundle.miss("the node", &failure),
        _ => false,
    };
    if let Some(log) = &args.log {
        if !known {
            let error = "the configuration cannot be used, so it is not known what to leave out of the log";
            return Err(Failure::new(
                Exit::Environment,
                error,
                "mend it: `tandem config check`; or leave --log out",
            ));
        }
        match tail(log) {
            Ok(text) => bundle.add("log.txt", text),
            Err(error) => {
                let error = format!("{} cannot be read: {error}", log.display());
                return Err(Failure::new(Exit::Environment, error, "name the file of the node's log"));
            }
        }
    }
    bundle.about(answers);
    bundle.write(&args.file).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AlreadyExists => "choose another name: nothing is written over",
            _ => "name a file in a folder that can be written",
        };
        Failure::new(Exit::Environment, format!("{}: {error}", args.file.display()), hint)
    })?;
    let names: Vec<&str> = bundle.files.iter().map(|(name, _)| name.as_str()).collect();
    let mut text = format!("{} holds {}\n", args.file.display(), names.join(", "));
    bundle.missing.iter().for_each(|what| text.push_str(&format!("missing: {what}\n")));
    Ok(Answer::new(
        text,
        json!({ "file": args.file, "holds": names, "missing": bundle.missing, "answers": answers }),
    ))
}

impl Bundle {
    fn add(&mut self, name: &str, text: impl AsRef<str>) {
        self.files.push((name.to_owned(), self.secrets.mask(text.as_ref())));
    }

    fn json(&mut self, name: &str, value: &Value) {
        self.add(name, serde_json::to_string_pretty(value).unwrap_or_default());
    }

    fn miss(&mut self, what: &str, failure: &Failure) -> bool {
        let why = self.secrets.mask(&failure.refusal.error);
        self.missing.push(format!("{what}: {why}"));
        false
    }

    /// What the node says. Whether it answers.
    fn node(&mut self, client: &Client) -> bool {
        match client.status() {
            Ok(status) => {
                self.add("status.txt", render(&status, Paint::PLAIN));
                self.json("status.json", &serde_json::to_value(&status).unwrap_or_default());
            }
            Err(failure) => return self.miss("the node", &failure),
        }
        match client.events(0, EVENTS, 0) {
            Ok(events) => self.json("events.json", &serde_json::to_value(&events).unwrap_or_default()),
            Err(failure) => _ = self.miss("events", &failure),
        }
        match client.group() {
            Ok(group) => self.json("group.json", &serde_json::to_value(&group).unwrap_or_default()),
            Err(failure) => _ = self.miss("the group", &failure),
        }
        match client.metrics() {
            Ok(text) => self.add("metrics.txt", text),
            Err(failure) => _ = self.miss("metrics", &failure),
        }
        true
    }

    /// What the data folder has, without logs and stores: they hold messages and verifiers.
    fn disk(&mut self, data: &Path) {
        let mut found = Vec::new();
        if let Err(error) = list(data, data, &mut found) {
            self.missing.push(format!("{}: {error}", data.display()));
        }
        found.sort();
        self.add("disk/files.txt", found.concat());
        for name in ["node.json", "crashes.json", "failovers.json", "events.old.jsonl", "events.jsonl"] {
            if let Ok(text) = tail(&data.join(name)) {
                self.add(&format!("disk/{name}"), text);
            }
        }
    }

    fn about(&mut self, answers: bool) {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let about = json!({
            "tandem": env!("CARGO_PKG_VERSION"),
            "made_ms": crate::config::now_s() * 1_000,
            "system": std::env::consts::OS,
            "processor": std::env::consts::ARCH,
            "kernel": kernel.trim(),
            "node_answers": answers,
            "missing": self.missing,
            "left_out": "keys, passwords, tokens, verifiers of accounts, messages; comments of the configuration",
        });
        self.json("about.json", &about);
    }

    fn write(&self, to: &Path) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        for (name, text) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(config::now_s()).unwrap_or_default());
            archive.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())?;
        }
        let mut file = archive.into_inner()?.finish()?;
        file.flush()?;
        file.sync_all()
    }
}

/// All settings but those that may be, or name, a secret; of who is told of events what alarms show too.
fn settings(config: &Config) -> Value {
    let all: serde_json::Map<String, Value> =
        config.list().into_iter().map(|setting| (setting.key, setting.value.into())).collect();
    let notify: Vec<Value> = config
        .notify
        .iter()
        .map(|notify| {
            let (by, to): (&str, Vec<String>) = match &notify.way {
                Way::Syslog(way) => ("syslog", way.to.iter().map(|to| to.at.to_string()).collect()),
                Way::Smtp(way) => ("smtp", vec![format!("{} receivers by {}", way.to.len(), way.server)]),
                Way::Snmp(way) => ("snmp", way.to.iter().map(ToString::to_string).collect()),
                Way::Webhook(way) => ("webhook", way.to.iter().map(ToString::to_string).collect()),
                Way::Xmpp(way) => ("xmpp", way.to.iter().map(ToString::to_string).collect()),
            };
            let severity = notify.wants.severity.map(|severity| severity.to_string());
            json!({ "by": by, "to": to, "severity": severity, "events": notify.wants.events })
        })
        .collect();
    let hash = format!("{:016x}", config.hash());
    json!({ "settings": all, "notify": notify, "hash": hash, "warnings": config.warnings() })
}

/// Names, lengths and times of everything below a folder.
fn list(top: &Path, folder: &Path, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // What goes away meanwhile, such as a segment of a log, is not there.
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if about.is_dir() {
            list(top, &path, found)?;
            continue;
        }
        let age = about.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
        let name = path.strip_prefix(top).unwrap_or(&path).display();
        found.push(format!("{name}: {} bytes, written {} s ago\n", about.len(), age.as_secs()));
    }
    Ok(())
}

/// The end of a file, from the beginning of a line.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match text.split_once('\n') {
        Some((_, rest)) if from > 0 => rest.to_owned(),
        _ => text,
    })
}
