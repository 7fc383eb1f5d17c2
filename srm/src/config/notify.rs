//! `[[notify]]`: who is told of events, and how.

mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xmpp_core::jid::BareJid;

use super::check::Faults;
use super::file::read_private;
use super::link::{split_port, with_port};
use crate::events::{Record, Severity};
use crate::notify::{Hook, Template, authorities};

pub(super) use read::{NotifyFile, resolve};

/// Shortest secret of a webhook in bytes.
const SECRET_BYTES: usize = 16;
/// Who is told of events, and how. Each receiver is told by itself: a dead one holds up no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// Its place among the `[[notify]]` of the file, from 1.
    pub number: usize,
    /// Of which events.
    pub wants: Wants,
    /// By which way.
    pub way: Way,
}

impl Notify {
    /// The files that it names, by the key that names each.
    pub(super) fn files(&self) -> Vec<(&'static str, &Path)> {
        let files = match &self.way {
            Way::Syslog(_) | Way::Snmp(_) | Way::Xmpp(_) => Vec::new(),
            Way::Smtp(smtp) => vec![
                ("notify.password_file", smtp.login.as_ref().map(|login| login.password_file.as_path())),
                ("notify.ca", smtp.ca.as_deref()),
            ],
            Way::Webhook(webhook) => {
                vec![
                    ("notify.secret_file", webhook.secret_file.as_deref()),
                    ("notify.ca", webhook.ca.as_deref()),
                ]
            }
        };
        files.into_iter().filter_map(|(key, path)| Some((key, path?))).collect()
    }

    /// Reads the files that it names, and those of the machine that it needs.
    pub(super) fn check_files(&self, faults: &mut Faults<'_>) {
        let (ca, tls, secret) = match &self.way {
            Way::Syslog(_) | Way::Snmp(_) | Way::Xmpp(_) => return,
            Way::Smtp(smtp) => {
                let password = smtp.login.as_ref().map(Login::password);
                (&smtp.ca, smtp.tls != SmtpTls::None, password.map(|read| ("password_file", read)))
            }
            Way::Webhook(webhook) => {
                let secret = webhook.secret().map(|read| ("secret_file", read));
                (&webhook.ca, webhook.to.iter().any(Hook::is_https), secret)
            }
        };
        if let Some((key, Err(problem))) = secret {
            faults.add(&format!("notify.{}.{key}", self.number), problem, "");
        }
        if tls && let Err(problem) = authorities(ca.as_deref()) {
            faults.add(&format!("notify.{}.ca", self.number), problem, "");
        }
    }
}

/// Of which events a receiver is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Of those at least as severe; `None`: only of those in `events`.
    pub severity: Option<Severity>,
    /// Of these kinds, however severe.
    pub events: BTreeSet<String>,
}

impl Wants {
    /// Whether the receiver is told of this event.
    pub fn takes(&self, record: &Record) -> bool {
        self.severity.is_some_and(|least| record.severity >= least) || self.events.contains(&record.event)
    }
}

/// How receivers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// RFC 5424.
    Syslog(Syslog),
    /// E-mail.
    Smtp(Smtp),
    /// SNMPv2c traps.
    Snmp(Snmp),
    /// HTTP POST.
    Webhook(Webhook),
    /// A message to accounts of this server.
    Xmpp(Xmpp),
}

/// Receivers of syslog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// At least one.
    pub to: Vec<SyslogTo>,
    /// Number of the facility, by RFC 5424 section 6.2.1.
    pub facility: u8,
    /// The message.
    pub body: Template,
}

/// One receiver of syslog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogTo {
    /// Over TCP; else over UDP.
    pub tcp: bool,
    /// Where it listens.
    pub at: HostPort,
}

/// Receivers of e-mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    /// Their addresses, at least one. Each gets a mail of its own.
    pub to: Vec<String>,
    /// The sender's address.
    pub from: String,
    /// The server that takes the mail.
    pub server: HostPort,
    /// How the connection to it is protected.
    pub tls: SmtpTls,
    /// How this node logs in there.
    pub login: Option<Login>,
    /// PEM file of the authorities to trust; `None`: those that the machine trusts.
    pub ca: Option<PathBuf>,
    /// The subject.
    pub subject: Template,
    /// The text.
    pub body: Template,
}

/// How a node logs in at a mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The file with the password.
    pub password_file: PathBuf,
}

impl Login {
    /// Reads the password. The error says what is wrong with the file, and what to do.
    pub fn password(&self) -> Result<String, String> {
        secret_in(&self.password_file, 1, "a password")
    }
}

/// Receivers of SNMP traps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snmp {
    /// Where they listen, at least one.
    pub to: Vec<HostPort>,
    /// The community string.
    pub community: Community,
    /// Where docs/TANDEM-MIB.txt is rooted.
    pub oid: Vec<u32>,
    /// The text in the trap.
    pub body: Template,
}

/// A community string. Never shown, not even by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Community(String);

impl Community {
    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Community(..)")
    }
}

/// Receivers of HTTP requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where events are posted, at least one.
    pub to: Vec<Hook>,
    /// The file with the secret that signs them.
    pub secret_file: Option<PathBuf>,
    /// PEM file of the authorities to trust; `None`: those that the machine trusts.
    pub ca: Option<PathBuf>,
}

impl Webhook {
    /// Reads the secret, if there is one. The error says what is wrong with the file, and what to do.
    pub fn secret(&self) -> Option<Result<String, String>> {
        self.secret_file.as_deref().map(|path| secret_in(path, SECRET_BYTES, "a secret"))
    }
}

/// Accounts that get messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xmpp {
    /// Their bare JIDs, at least one.
    pub to: Vec<BareJid>,
    /// The subject.
    pub subject: Template,
    /// The text.
    pub body: Template,
}

fn secret_in(path: &Path, least: usize, what: &str) -> Result<String, String> {
    let text = read_private(path).map_err(|(problem, hint)| format!("{problem}; {hint}"))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.len() < least || secret.chars().any(char::is_control) {
        let file = path.display();
        return Err(format!(
            "{file} does not hold {what}; write one of at least {least} characters on one line"
        ));
    }
    Ok(secret.to_owned())
}

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl HostPort {
    fn parse(text: &str) -> Option<HostPort> {
        let (host, port) = split_port(text)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let sound = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.contains(':') && ServerName::try_from(host).is_ok(),
        };
        sound.then(|| HostPort { host: bare.unwrap_or(host).to_owned(), port })
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_port(&self.host, self.port))
    }
}

/// How the connection to a mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// It begins in the clear, and nothing is sent before STARTTLS (RFC 3207).
    #[default]
    Starttls,
    /// It begins with TLS (RFC 8314).
    Implicit,
    /// Not at all.
    None,
}
