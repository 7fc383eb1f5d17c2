//! Prosody of the system's package: epoll, internal storage, stream management, and no limits on what clients send.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use client_sim::fleet::user_name;
use srm::demo::pair::{DOMAIN, PASSWORD};
use srm::setup::Made;
use xmpp_core::sasl::{ScramCredentials, ScramHash};

use super::{Foreign, Running, package, tool};
use crate::measure::args::Kind;

/// What Prosody 0.12 takes for new accounts.
const ITERATIONS: u32 = 10_000;

pub(super) fn program() -> anyhow::Result<PathBuf> {
    tool("prosody", "apt-get install --no-install-recommends prosody")
}

pub(super) fn start(kind: Kind, users: usize) -> anyhow::Result<Running> {
    let program = program()?;
    let foreign = Foreign::start(|dir, made| {
        let config = dir.join("prosody.cfg.lua");
        fs::write(&config, configuration(dir, made))?;
        write_accounts(dir, users)?;
        let mut command = Command::new(program);
        command.arg("-F").arg("--config").arg(&config);
        Ok(command)
    })?;
    foreign.running(kind, package("prosody"))
}

fn configuration(dir: &Path, made: &Made) -> String {
    let (dir, port) = (dir.display(), made.nodes[0].c2s_tls.port());
    format!(
        r#"run_as_root = true
pidfile = "{dir}/prosody.pid"
data_path = "{dir}/prosody"
log = {{ warn = "*console" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ }}
c2s_direct_tls_ports = {{ {port} }}
network_backend = "epoll"
c2s_require_encryption = true
authentication = "internal_hashed"
storage = "internal"
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "carbons", "ping", "version", "time", "smacks" }}
modules_disabled = {{ "s2s", "s2s_auth_certs" }}
ssl = {{ certificate = "{dir}/a/c2s.pem"; key = "{dir}/a/c2s.key" }}
VirtualHost "{DOMAIN}"
"#
    )
}

/// One salt for all: deriving keys is the client's work at the login, and its own would slow it down.
fn write_accounts(dir: &Path, users: usize) -> anyhow::Result<()> {
    let folder = dir.join("prosody").join(DOMAIN.replace('.', "%2e")).join("accounts");
    fs::create_dir_all(&folder)?;
    let salt = "6d65617375726564";
    let keys = ScramCredentials::derive(ScramHash::Sha1, PASSWORD, salt.as_bytes(), ITERATIONS)?;
    let (stored, server) = (hex(&keys.stored_key), hex(&keys.server_key));
    let text = format!(
        "return {{ [\"salt\"] = \"{salt}\"; [\"iteration_count\"] = {ITERATIONS}; [\"stored_key\"] = \"{stored}\"; \
         [\"server_key\"] = \"{server}\"; }};\n"
    );
    for user in 0..users {
        fs::write(folder.join(format!("{}.dat", user_name(user))), &text)?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
