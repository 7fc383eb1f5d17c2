//! The binary as a script sees it: exit codes, and what goes where.

use std::path::Path;
use std::process::{Command, Output};

fn tandem(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_tandem")).current_dir(dir).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn exit_codes_and_streams_are_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| tandem(dir.path(), args);

    assert_eq!(run(&["--version"]).0, 0);
    assert_eq!(run(&["nonsense"]).0, 2);
    let init =
        ["init", "--domain", "im.example", "--node", "a=127.0.0.1", "--node", "b=127.0.0.1", "--out", "."];
    let (code, out, err) = run(&init);
    assert!(code == 0 && out.contains("tandem serve -c") && err.is_empty(), "{out}{err}");
    let (code, out, err) = run(&init);
    assert!(code == 3 && out.is_empty() && err.contains("not touched"), "{out}{err}");

    let (code, a, _) = run(&["config", "check", "-c", "a/tandem.toml", "--json"]);
    let (_, b, _) = run(&["config", "check", "-c", "b/tandem.toml", "--json"]);
    let (a, b): (serde_json::Value, serde_json::Value) =
        (serde_json::from_str(&a).unwrap(), serde_json::from_str(&b).unwrap());
    assert!(code == 0 && a["ok"] == true && a["hash"] == b["hash"], "{a} {b}");

    let (code, out, err) = run(&["status", "-c", "a/tandem.toml", "--json"]);
    assert_eq!(code, 3);
    assert!(err.contains("no tandem is running at 127.0.0.1:"), "{err}");
    assert!(err.contains("tandem serve -c a/tandem.toml"), "{err}");
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["ok"], false);

    let sound = std::fs::read_to_string(dir.path().join("a/tandem.toml")).unwrap();
    let line = 1 + sound.lines().position(|line| line.starts_with("domains = ")).unwrap();
    std::fs::write(dir.path().join("tandem.toml"), sound.replace("domains = ", "domain = ")).unwrap();
    let (code, out, err) = run(&["config", "check"]);
    assert!(code == 1 && out.is_empty(), "{out}{err}");
    assert!(err.contains(&format!("tandem.toml:{line}: node.domain: unknown field")), "{err}");
    assert_eq!(run(&["serve"]).0, 3);
}
