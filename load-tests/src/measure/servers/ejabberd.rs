//! ejabberd of the system's package: Mnesia, stream management, no shaper; the Erlang options of the package.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use client_sim::fleet::user_name;
use serde_json::json;
use srm::demo::pair::{DOMAIN, PASSWORD};
use srm::setup::Made;

use super::{Foreign, Running, package, tool};
use crate::measure::args::Kind;

const INSTALL: &str = "apt-get install --no-install-recommends ejabberd";
/// Accounts that are registered at the same time.
const AT_ONCE: usize = 8;

/// Erlang, and where the package put ejabberd. The control script is left alone: it starts as another user and
/// registers a node, and we want a process of our own.
fn program() -> anyhow::Result<(PathBuf, PathBuf)> {
    tool("ejabberdctl", INSTALL)?;
    let erl = tool("erl", INSTALL)?;
    let script = fs::read_to_string(tool("ejabberdctl", INSTALL)?)?;
    let libraries = script.lines().find_map(|line| line.strip_prefix("ERL_LIBS='")?.strip_suffix('\''));
    let libraries = libraries.context("ejabberdctl does not say where ejabberd's code is")?;
    Ok((erl, libraries.into()))
}

pub(super) fn installed() -> anyhow::Result<()> {
    program().map(|_| ())
}

pub(super) fn start(kind: Kind, quiet: bool, users: usize) -> anyhow::Result<Running> {
    let (erl, libraries) = program()?;
    let mut foreign = Foreign::start(|dir, made| {
        let config = dir.join("ejabberd.yml");
        fs::write(&config, configuration(dir, made)?)?;
        let mut command = Command::new(erl);
        // As the package's script does, but without a name in a network of Erlang nodes.
        command.args(["+K", "true", "+P", "250000"]);
        if quiet {
            command.args(["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]);
        }
        command.args(["-mnesia", "dir", &format!("\"{}\"", dir.join("mnesia").display())]);
        command.args(["-noinput", "-s", "ejabberd"]);
        command.env("ERL_LIBS", libraries).env("EJABBERD_CONFIG_PATH", &config);
        command.env("EJABBERD_LOG_PATH", dir.join("ejabberd.log")).env("HOME", dir);
        command.env("ERL_CRASH_DUMP_BYTES", "0").env("ERL_MAX_PORTS", "32000").current_dir(dir);
        Ok(command)
    })?;
    let api = api(&foreign.made);
    foreign.listens(api)?;
    let log = foreign.dir.path().join("ejabberd.log");
    register(api, users)
        .with_context(|| format!("it said:\n{}", fs::read_to_string(&log).unwrap_or_default()))?;
    let mut running = foreign.running(kind, package("ejabberd"))?;
    running.logs.push(log);
    Ok(running)
}

/// Where accounts are registered.
fn api(made: &Made) -> SocketAddr {
    made.nodes[0].admin
}

fn configuration(dir: &Path, made: &Made) -> anyhow::Result<String> {
    // One file: ejabberd finds the key of a certificate by itself among the files it is given.
    let node = dir.join("a");
    let pem = [fs::read_to_string(node.join("c2s.pem"))?, fs::read_to_string(node.join("c2s.key"))?].concat();
    let both = dir.join("ejabberd.pem");
    fs::write(&both, pem)?;
    let (port, api) = (made.nodes[0].c2s_tls.port(), api(made).port());
    Ok(format!(
        r#"hosts:
  - {DOMAIN}
loglevel: warning
certfiles:
  - "{certificate}"
ca_file: "{ca}"
listen:
  -
    port: {port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    max_stanza_size: 262144
    shaper: none
    access: all
    tls: true
  -
    port: {api}
    ip: "127.0.0.1"
    module: ejabberd_http
    request_handlers:
      /api: mod_http_api
auth_method: internal
auth_password_format: scram
disable_sasl_mechanisms:
  - "digest-md5"
  - "X-OAUTH2"
api_permissions:
  "measure":
    from:
      - mod_http_api
    who:
      ip: 127.0.0.1/8
    what:
      - register
modules:
  mod_carboncopy: {{}}
  mod_disco: {{}}
  mod_offline: {{}}
  mod_ping: {{}}
  mod_roster:
    versioning: true
  mod_stream_mgmt:
    resend_on_timeout: if_offline
  mod_time: {{}}
  mod_version: {{}}
"#,
        certificate = both.display(),
        ca = made.ca.display(),
    ))
}

fn register(api: SocketAddr, users: usize) -> anyhow::Result<()> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
    let next = AtomicUsize::new(0);
    let add = || loop {
        let user = next.fetch_add(1, Ordering::Relaxed);
        if user >= users {
            return Ok(());
        }
        let account = json!({ "user": user_name(user), "host": DOMAIN, "password": PASSWORD });
        let mut answer = agent.post(format!("http://{api}/api/register")).send_json(&account)?;
        if !answer.status().is_success() {
            bail!("no account: {} {}", answer.status(), answer.body_mut().read_to_string()?);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(add)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
    })
}
