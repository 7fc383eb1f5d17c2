//! Software that others wrote, as it comes from their packages: a server that proves our scripts, clients that prove us.

pub mod etcd;
pub mod prosody;
pub mod puppet;

use std::path::PathBuf;

/// Where a program of the search path is; panics with the line that installs it. A missing tool fails its test: a test
/// that passes without having run proves nothing.
pub fn tool(program: &str, install: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is not installed: run `{install}` (or .ci/run, which does)"))
}
