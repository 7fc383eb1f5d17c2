//! What somebody who helps gets to see of a node: all that is asked for, and none of its secrets, whether it runs or not.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flate2::read::GzDecoder;
use load_tests::rig::{Nodes, QUICK, last_lines, tandem};
use rustix::process::Signal;
use srm::demo::pair::{PASSWORD, Pair};

const LIMIT: Duration = Duration::from_secs(30);

/// Packs it; the files by their names, and what the command says.
fn bundle(pair: &Pair, to: &Path, log: &Path) -> (BTreeMap<String, String>, String) {
    let mut command = Command::new(tandem());
    command.arg("support-bundle").arg(to).arg("--log").arg(log);
    let output = command.arg("-c").arg(&pair.made.nodes[0].config).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{failed}{}", last_lines(pair));
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(to).unwrap()));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(name.strip_prefix("tandem-support/").unwrap().to_owned(), text);
    }
    (files, said)
}

/// Writes a file that only its owner reads, beside the configuration.
fn private(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Everything that nobody may see: what the secret files hold, line by line, and what stands in the configuration.
fn secrets(folder: &Path) -> Vec<String> {
    let mut secrets: Vec<String> =
        ["t0ken-of-a-hook", "c0mmunity", "mail-user", "a-comment", PASSWORD].map(str::to_owned).into();
    for name in ["secret", "admin.token", "c2s.key", "link.key", "mail.password", "hook.secret"] {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let lines = text.lines().filter(|line| !line.starts_with("-----") && !line.starts_with('#'));
        secrets.extend(lines.map(|line| line.trim().to_owned()).filter(|line| line.len() >= 4));
    }
    secrets
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_tells_what_is_asked_for_and_no_secret_whether_the_node_runs_or_not() {
    let mut pair = Nodes::make(2, QUICK).await;
    let config = pair.made.nodes[0].config.clone();
    let folder = config.parent().unwrap().to_owned();
    private(&folder, "mail.password", "correct horse\n");
    private(&folder, "hook.secret", "0123456789abcdef0123\n");
    write!(
        OpenOptions::new().append(true).open(&config).unwrap(),
        "\n# a-comment\n[[notify]]\nby = \"webhook\"\nto = \"http://127.0.0.1:9/t0ken-of-a-hook\"\n\
         secret_file = \"hook.secret\"\nseverity = \"info\"\n\
         [[notify]]\nby = \"smtp\"\nto = \"ops@example.org\"\nfrom = \"tandem@example.org\"\ntls = \"none\"\n\
         server = \"localhost:9\"\nuser = \"mail-user\"\npassword_file = \"mail.password\"\n\
         [[notify]]\nby = \"snmp\"\nto = \"udp://127.0.0.1:9\"\ncommunity = \"c0mmunity\"\n"
    )
    .unwrap();
    // Receivers that nobody hears are alarms, for which a pair is not waited for otherwise.
    for node in 0..2 {
        pair.start(node).unwrap();
    }
    pair.wait_all(LIMIT, "both Normal", |s| s.row == Some(1)).unwrap();
    pair.user_add(0, "eva", 0).unwrap();
    fs::write(folder.join("data/failovers.json"), "{\"left_ms\":[]}").unwrap();

    // A log that says too much.
    let secrets = secrets(&folder);
    let log = pair.folder().join("said-too-much.log");
    let lines: Vec<String> =
        secrets.iter().filter(|text| *text != PASSWORD && *text != "a-comment").cloned().collect();
    fs::write(&log, format!("the node has started\n{}\n", lines.join("\nagain "))).unwrap();

    let clean = |files: &BTreeMap<String, String>| {
        for (name, text) in files {
            let found = secrets.iter().find(|secret| text.contains(secret.as_str()));
            assert_eq!(found, None, "{name} holds a secret:\n{text}");
        }
    };
    let (files, said) = bundle(&pair, &pair.folder().join("one.tar.gz"), &log);
    clean(&files);
    for (name, part) in [
        ("status.txt", "Normal"),
        ("status.json", "\"name\": \"b\""),
        ("status.json", "router"),
        ("events.json", "\"started\""),
        ("metrics.txt", "tandem_node_ready 1"),
        ("group.json", "high_availability"),
        ("configuration.json", "srm.keep_alive_timeout"),
        ("configuration.json", "http://127.0.0.1:9/.."),
        ("about.json", "\"node_answers\": true"),
        ("log.txt", "the node has started"),
        ("log.txt", "(secret)"),
        ("disk/files.txt", "log/own/"),
        ("disk/events.jsonl", "started"),
        ("disk/failovers.json", "left_ms"),
    ] {
        let text = files.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", files.keys()));
        assert!(text.contains(part), "{part} is not in {name}:\n{text}");
    }
    assert!(!said.contains("missing"), "{said}");

    // Nothing is written over.
    let mut again = Command::new(tandem());
    let again = again.arg("support-bundle").arg(pair.folder().join("one.tar.gz")).arg("-c").arg(&config);
    let output = again.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("choose another name"), "{output:?}");

    // The node does not run: what its disk has, and what is missing.
    pair.signal(0, Signal::KILL).unwrap();
    pair.wait(0, LIMIT).unwrap();
    let (files, said) = bundle(&pair, &pair.folder().join("two.tar.gz"), &log);
    clean(&files);
    assert!(said.contains("missing: the node"), "{said}");
    assert!(files["about.json"].contains("\"node_answers\": false"), "{}", files["about.json"]);
    assert!(files["disk/events.jsonl"].contains("started") && files.contains_key("configuration.json"));
    assert!(!files.contains_key("status.json"));
}
