//! What this program calls itself, to its peer and to operators.

use std::sync::OnceLock;

/// The version of this program. For tests, a node of another version is made by `TANDEM_PROGRAM_VERSION=0.0.9`: it says so
/// wherever nodes compare versions, and is the same program otherwise (`TANDEM_LINK_NEWEST` has it speak an older link).
pub fn program() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    let given = || std::env::var("TANDEM_PROGRAM_VERSION").ok().filter(|version| !version.is_empty());
    VERSION.get_or_init(|| given().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()))
}
