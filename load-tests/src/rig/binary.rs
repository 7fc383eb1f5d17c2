//! The binary that tests start. `cargo test -p load-tests` does not build it, so an old one is refused: nobody shall test
//! what is not in the sources.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The crates that the binary is made of.
const CRATES: [&str; 5] = ["xmpp-core", "presence-engine", "session-mover", "client-sim", "srm"];
const BUILD: &str = "run the tests with `cargo test --workspace --profile ci`, or first `cargo build --workspace --profile ci`";

/// The tandem binary of this build, beside the test's own. Panics with what to do if it is missing or older than its
/// sources.
pub fn tandem() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let found = test.ancestors().skip(1).take(3).map(|dir| dir.join("tandem")).find(|path| path.is_file());
    let found = found.unwrap_or_else(|| panic!("the tandem binary is not built: {BUILD}"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let crates = CRATES.map(|name| root.join(name));
    match younger(&found, &crates) {
        Ok(None) => found,
        Ok(Some(source)) => panic!("{} is older than {}: {BUILD}", found.display(), source.display()),
        Err(error) => panic!("the age of {} is not known: {error}", found.display()),
    }
}

/// The first source of these crates that is younger than the binary.
fn younger(binary: &Path, crates: &[PathBuf]) -> io::Result<Option<PathBuf>> {
    let built = fs::metadata(binary)?.modified()?;
    for dir in crates {
        if changed(&dir.join("Cargo.toml"))? > built {
            return Ok(Some(dir.join("Cargo.toml")));
        }
        let mut files = BTreeSet::new();
        sources(&dir.join("src"), &mut files)?;
        let mut of_tests = BTreeSet::new();
        for file in &files {
            of_tests.extend(test_modules(file)?);
        }
        for file in files {
            if !of_tests.contains(&file) && changed(&file)? > built {
                return Ok(Some(file));
            }
        }
    }
    Ok(None)
}

fn changed(path: &Path) -> io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

fn sources(dir: &Path, files: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, files)?;
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.insert(path);
        }
    }
    Ok(())
}

/// Files of the modules that this file declares for tests only: the binary does not have them.
fn test_modules(file: &Path) -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string(file)?;
    let dir = match file.file_name().and_then(|name| name.to_str()) {
        Some("mod.rs" | "lib.rs" | "main.rs") => file.parent().unwrap_or(file).to_owned(),
        _ => file.with_extension(""),
    };
    let lines = text.lines().zip(text.lines().skip(1));
    let declared = lines.filter(|(before, _)| before.trim() == "#[cfg(test)]").filter_map(|(_, line)| {
        let (_, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
        Some([dir.join(format!("{name}.rs")), dir.join(name).join("mod.rs")])
    });
    Ok(declared.flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_binary_that_is_older_than_a_source_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("one/src/part")).unwrap();
        let write = |name: &str, text: &str, seconds: u64| {
            fs::write(path(name), text).unwrap();
            let file = fs::File::options().write(true).open(path(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        write("tandem", "", 100);
        write("one/Cargo.toml", "", 1);
        write("one/src/lib.rs", "mod part;\n#[cfg(test)]\nmod tests;\n", 100);
        write("one/src/tests.rs", "", 500);
        write("one/src/part/mod.rs", "#[cfg(test)]\npub(crate) mod fake;\n", 2);
        write("one/src/part/fake.rs", "", 500);
        let crates = [path("one")];
        assert_eq!(younger(&path("tandem"), &crates).unwrap(), None);
        for name in ["one/src/part/mod.rs", "one/src/lib.rs", "one/Cargo.toml"] {
            let text = fs::read_to_string(path(name)).unwrap();
            write(name, &text, 101);
            assert_eq!(younger(&path("tandem"), &crates).unwrap(), Some(path(name)));
            write(name, &text, 99);
        }
        assert!(younger(&path("none"), &crates).is_err());
    }
}
