//! From the text of a `[[notify]]` to what it means: each key for its way, templates, addresses, files.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xmpp_core::jid::BareJid;

use super::super::check::Faults;
use super::{
    Community, HostPort, Login, Notify, Smtp, SmtpTls, Snmp, Syslog, SyslogTo, Wants, Way, Webhook, Xmpp,
};
use crate::events::Severity;
use crate::events::kinds::KINDS;
use crate::notify::{self, DEFAULT_OID, Hook, Template};

/// Most `[[notify]]`, and most receivers of one.
const MOST: usize = 32;
/// Longest template in bytes.
const TEMPLATE_BYTES: usize = 4096;
const SUBJECT: &str = "[{severity}] {domain}: {event} ({source})";
const MAIL: &str = "{text}\n\nevent: {event}\nseverity: {severity}\nat: {date} {time}\ncause: {cause}\nasked by: {asked_by}\nrow: {row}\n\
                    node: {source}\nid: {id}\n";
/// Many clients do not show a subject: the text says it all.
const MESSAGE: &str = "[{severity}] {text}\n{event} of {source}, {date} {time}, {id}";

/// Ways of telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum By {
    Syslog,
    Smtp,
    Snmp,
    Webhook,
    Xmpp,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "expected text in quotes, or a list of such")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// `[[notify]]`: who is told of events, and how; as often as there are ways and receivers. Events that a receiver does not
/// take are kept for it, at most 1000 and one hour, in memory. A receiver that does not work is an alarm, and holds up
/// no other.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NotifyFile {
    /// How: `"syslog"` (RFC 5424), `"smtp"` (e-mail), `"snmp"` (SNMPv2c traps, docs/TANDEM-MIB.txt), `"webhook"` (HTTP
    /// POST of the event as JSON) or `"xmpp"` (a message to an account of this server). No default.
    by: By,
    /// The receiver, or a list of up to 32: for syslog `udp://HOST:PORT` or `tcp://HOST:PORT`, for smtp an address of
    /// mail, for snmp `udp://HOST:PORT`, for a webhook its URL, for xmpp an account `NAME@DOMAIN`. No default.
    to: OneOrMore,
    /// Of which events: those of this severity and worse, of `"info"`, `"notice"`, `"warning"`, `"error"` and
    /// `"critical"`. Default `"warning"`, or none but those in `events` where there is that.
    severity: Option<Severity>,
    /// Of which kinds of events besides, however severe, such as `["failover-complete"]`. Default none.
    events: Option<Vec<String>>,
    /// The subject of a mail or a message, with placeholders: {date}, {time}, {id}, {source} (the node whose event it is), {severity},
    /// {event}, {row}, {cause}, {asked_by}, {text}, {node} (this node) and {domain}; braces are written twice. At most 4096
    /// bytes. Default `"[{severity}] {domain}: {event} ({source})"`.
    subject: Option<String>,
    /// The text of a mail, of a message, of a line of syslog or in a trap, with the same placeholders and limit. Default:
    /// all of the event in a mail and in a message of XMPP, else `"{text}"`.
    body: Option<String>,
    /// smtp: the mail server, `HOST:PORT`. No default.
    server: Option<String>,
    /// smtp: `"starttls"`, `"implicit"` (TLS from the first byte) or `"none"`. Default `"starttls"`.
    tls: Option<SmtpTls>,
    /// smtp: the sender's address. No default.
    from: Option<String>,
    /// smtp: the user as which this node logs in. Default: it does not.
    user: Option<String>,
    /// smtp: the file with the user's password, readable by its owner only. No default.
    password_file: Option<PathBuf>,
    /// smtp and webhook: PEM file of the authorities to trust. Default: those that the machine trusts.
    ca: Option<PathBuf>,
    /// webhook: file with a secret of at least 16 bytes, readable by its owner only. Requests then bear the header
    /// `X-Tandem-Signature: sha256=` with the HMAC of the body in hexadecimal digits. Default none.
    secret_file: Option<PathBuf>,
    /// snmp: the community string, 1 to 64 characters of ASCII. Default `"public"`.
    community: Option<String>,
    /// snmp: where docs/TANDEM-MIB.txt is rooted, below 1.3.6.1.4.1. Default `"1.3.6.1.4.1.8072.9999.9999.5222"`.
    oid: Option<String>,
    /// syslog: the facility, `"user"`, `"daemon"`, `"auth"`, `"authpriv"` or `"local0"` to `"local7"`. Default
    /// `"daemon"`.
    facility: Option<String>,
}

/// Which way each key is for, and what to do where it stands beside another.
const FITS: [(&str, &[By], &str); 12] = [
    ("subject", &[By::Smtp, By::Xmpp], "only a mail and a message have a subject: remove it"),
    (
        "body",
        &[By::Syslog, By::Smtp, By::Snmp, By::Xmpp],
        "a webhook gets the whole event as JSON: remove it",
    ),
    ("server", &[By::Smtp], "the receiver stands in `to`: remove it"),
    ("tls", &[By::Smtp], "whether a webhook has TLS is said by its URL, and the others have none: remove it"),
    ("from", &[By::Smtp], "only a mail has a sender: remove it"),
    ("user", &[By::Smtp], "only a mail server is logged in to: remove it"),
    ("password_file", &[By::Smtp], "only a mail server is logged in to: remove it"),
    ("ca", &[By::Smtp, By::Webhook], "there is no TLS: remove it"),
    ("secret_file", &[By::Webhook], "only requests of webhooks are signed: remove it"),
    ("community", &[By::Snmp], "only traps have a community: remove it"),
    ("oid", &[By::Snmp], "only traps have object identifiers: remove it"),
    ("facility", &[By::Syslog], "only syslog has facilities: remove it"),
];

/// Facilities by their names, with their numbers (RFC 5424 section 6.2.1).
const FACILITIES: [(&str, u8); 12] = [
    ("user", 1),
    ("daemon", 3),
    ("auth", 4),
    ("authpriv", 10),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

impl By {
    fn name(self) -> &'static str {
        match self {
            By::Syslog => "syslog",
            By::Smtp => "smtp",
            By::Snmp => "snmp",
            By::Webhook => "webhook",
            By::Xmpp => "xmpp",
        }
    }
}

/// What the tables say; those with a fault are missing. `base` is the folder that names of files are relative to,
/// `domain` the one that accounts belong to.
pub(in super::super) fn resolve(
    tables: Vec<NotifyFile>,
    base: &Path,
    domain: Option<&str>,
    faults: &mut Faults<'_>,
) -> Vec<Notify> {
    if tables.len() > MOST {
        let problem = format!("there are {} [[notify]] where at most {MOST} may be", tables.len());
        faults.add("notify", problem, "put receivers that are told alike into one list `to`");
    }
    let tables = (1..).zip(tables);
    tables.filter_map(|(number, table)| Reader { number, base, domain, faults }.notify(table)).collect()
}

/// Reads one table.
struct Reader<'a, 'b> {
    number: usize,
    base: &'a Path,
    domain: Option<&'a str>,
    faults: &'a mut Faults<'b>,
}

impl Reader<'_, '_> {
    fn fault<T>(&mut self, key: &str, problem: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        self.faults.add(&format!("notify.{}.{key}", self.number), problem, hint);
        None
    }

    fn notify(&mut self, table: NotifyFile) -> Option<Notify> {
        let fits = self.fits(&table);
        let wants = self.wants(&table);
        let way = match table.by {
            By::Syslog => self.syslog(table).map(Way::Syslog),
            By::Smtp => self.smtp(table).map(Way::Smtp),
            By::Snmp => self.snmp(table).map(Way::Snmp),
            By::Webhook => self.webhook(table).map(Way::Webhook),
            By::Xmpp => self.xmpp(table).map(Way::Xmpp),
        };
        fits?;
        Some(Notify { number: self.number, wants: wants?, way: way? })
    }

    /// Whether each key is one of its way.
    fn fits(&mut self, table: &NotifyFile) -> Option<()> {
        let set = table.set();
        let strange = FITS.iter().filter(|(key, ways, _)| set.contains(key) && !ways.contains(&table.by));
        let mut fits = Some(());
        for (key, ways, hint) in strange {
            let ways: Vec<String> = ways.iter().map(|way| format!("{:?}", way.name())).collect();
            let problem = format!("this is for by = {}, not for {:?}", ways.join(" and "), table.by.name());
            fits = self.fault(key, problem, *hint);
        }
        fits
    }

    fn wants(&mut self, table: &NotifyFile) -> Option<Wants> {
        let events = table.events.clone().unwrap_or_default();
        if table.events.is_some() && events.is_empty() {
            return self.fault("events", "no kind of event is named", "name one, or remove the line");
        }
        if let Some(bad) = events.iter().find(|name| KINDS.iter().all(|kind| kind.name != name.as_str())) {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            let hint = format!("choose among {}", known.join(", "));
            return self.fault("events", format!("{bad:?} is no kind of event"), hint);
        }
        let severity = match table.severity {
            None if events.is_empty() => Some(Severity::Warning),
            written => written,
        };
        Some(Wants { severity, events: events.into_iter().collect() })
    }

    fn syslog(&mut self, table: NotifyFile) -> Option<Syslog> {
        let to = self.receivers(table.to, |text| {
            let (scheme, rest) = text.split_once("://").unwrap_or_default();
            let at = HostPort::parse(rest).filter(|_| ["udp", "tcp"].contains(&scheme));
            let like = "write it such as \"udp://log.example.org:514\" or \"tcp://[2001:db8::7]:601\"";
            let wrong =
                || (format!("{text:?} is neither udp://HOST:PORT nor tcp://HOST:PORT"), like.to_owned());
            Ok(SyslogTo { tcp: scheme == "tcp", at: at.ok_or_else(wrong)? })
        });
        let body = self.template("body", table.body, "{text}");
        let facility = table.facility.as_deref().unwrap_or("daemon");
        let Some((_, facility)) = FACILITIES.iter().find(|(name, _)| *name == facility) else {
            let names: Vec<&str> = FACILITIES.iter().map(|(name, _)| *name).collect();
            let hint = format!("choose among {}", names.join(", "));
            return self.fault("facility", format!("{facility:?} is not known"), hint);
        };
        Some(Syslog { to: to?, facility: *facility, body: body? })
    }

    fn smtp(&mut self, table: NotifyFile) -> Option<Smtp> {
        let to = self.receivers(table.to, |text| match notify::is_mailbox(text) {
            true => Ok(text.to_owned()),
            false => Err((
                format!("{text:?} is no address of mail"),
                "write it such as \"ops@example.org\"".into(),
            )),
        });
        let tls = table.tls.unwrap_or_default();
        let server = self.server(table.server);
        let from = match table.from {
            Some(from) if notify::is_mailbox(&from) => Some(from),
            Some(from) => self.fault(
                "from",
                format!("{from:?} is no address of mail"),
                "write it such as \"tandem@example.org\"",
            ),
            None => self.fault(
                "from",
                "a mail needs a sender",
                "add from = \"tandem@example.org\" with your domain",
            ),
        };
        let login = self.login(table.user, table.password_file, tls, server.as_ref());
        if tls == SmtpTls::None && table.ca.is_some() {
            return self.fault(
                "ca",
                "tls is \"none\", and no authority is asked",
                "remove it, or choose another tls",
            );
        }
        let subject = self.subject(table.subject);
        let body = self.template("body", table.body, MAIL);
        Some(Smtp {
            to: to?,
            from: from?,
            server: server?,
            tls,
            login: login?,
            ca: table.ca.map(|path| self.base.join(path)),
            subject: subject?,
            body: body?,
        })
    }

    fn server(&mut self, server: Option<String>) -> Option<HostPort> {
        const LIKE: &str = "such as \"mail.example.org:587\"";
        let Some(server) = server else {
            return self.fault(
                "server",
                "no mail server is named",
                format!("add server = HOST:PORT, {LIKE}"),
            );
        };
        match HostPort::parse(&server) {
            Some(server) => Some(server),
            None => self.fault("server", format!("{server:?} is not HOST:PORT"), format!("write it {LIKE}")),
        }
    }

    fn login(
        &mut self,
        user: Option<String>,
        file: Option<PathBuf>,
        tls: SmtpTls,
        server: Option<&HostPort>,
    ) -> Option<Option<Login>> {
        let (user, file) = match (user, file) {
            (None, None) => return Some(None),
            (Some(user), Some(file)) => (user, file),
            (Some(_), None) => {
                let hint = "add password_file, or remove user for a server that asks for none";
                return self.fault("user", "there is a user without a password", hint);
            }
            (None, Some(_)) => {
                let hint = "add user, or remove password_file for a server that asks for none";
                return self.fault("password_file", "there is a password without a user", hint);
            }
        };
        if tls == SmtpTls::None && server.is_some_and(|server| !server.is_loopback()) {
            let hint = "choose tls = \"starttls\" or \"implicit\", or a server on this machine";
            return self.fault("tls", "the password would cross the network in the clear", hint);
        }
        if user.is_empty() || user.contains(char::is_control) {
            return self.fault("user", "this is no user", "write the name that the mail server knows");
        }
        Some(Some(Login { user, password_file: self.base.join(file) }))
    }

    fn snmp(&mut self, table: NotifyFile) -> Option<Snmp> {
        let to = self.receivers(table.to, |text| {
            let like = "write it such as \"udp://nms.example.org:162\"";
            let at = text.strip_prefix("udp://").and_then(HostPort::parse);
            at.ok_or_else(|| (format!("{text:?} is not udp://HOST:PORT"), like.to_owned()))
        });
        let body = self.template("body", table.body, "{text}");
        let community = table.community.unwrap_or_else(|| "public".into());
        if community.is_empty()
            || community.len() > 64
            || !community.bytes().all(|byte| byte.is_ascii_graphic())
        {
            let problem = "this is not 1 to 64 characters of ASCII without spaces";
            return self.fault("community", problem, "write the one that the receiver of the traps expects");
        }
        let oid = match table.oid.as_deref() {
            None => DEFAULT_OID.to_vec(),
            Some(text) => match oid(text) {
                Some(arcs) => arcs,
                None => {
                    let problem =
                        format!("{text:?} is no object identifier below 1.3.6.1.4.1 of at most 32 numbers");
                    let hint =
                        "write your enterprise's such as \"1.3.6.1.4.1.32473.1\", and the same into the MIB";
                    return self.fault("oid", problem, hint);
                }
            },
        };
        Some(Snmp { to: to?, community: Community(community), oid, body: body? })
    }

    fn webhook(&mut self, table: NotifyFile) -> Option<Webhook> {
        let to = self.receivers(table.to, Hook::parse)?;
        if table.ca.is_some() && !to.iter().any(Hook::is_https) {
            let hint = "remove it, or write https:// into `to`";
            return self.fault("ca", "no receiver has TLS, and no authority is asked", hint);
        }
        let path = |path: Option<PathBuf>| path.map(|path| self.base.join(path));
        Some(Webhook { to, secret_file: path(table.secret_file), ca: path(table.ca) })
    }

    fn xmpp(&mut self, table: NotifyFile) -> Option<Xmpp> {
        let domain = self.domain?;
        let to = self.receivers(table.to, |text| {
            let account = BareJid::parse(text).ok().filter(|jid| jid.local().is_some());
            let like = || format!("write it such as \"admin@{domain}\"");
            let account = account.ok_or_else(|| (format!("{text:?} is no NAME@DOMAIN"), like()))?;
            if account.domain() != domain {
                return Err((
                    format!("{account} is no account of {domain}, which this server serves"),
                    like(),
                ));
            }
            Ok(account)
        });
        let subject = self.subject(table.subject);
        let body = self.template("body", table.body, MESSAGE);
        Some(Xmpp { to: to?, subject: subject?, body: body? })
    }

    fn subject(&mut self, written: Option<String>) -> Option<Template> {
        if written.as_ref().is_some_and(|subject| subject.contains(char::is_control)) {
            return self.fault(
                "subject",
                "a subject has one line",
                "write it on one, and the rest into body",
            );
        }
        self.template("subject", written, SUBJECT)
    }

    /// The receivers, each read by `read`, which says what is wrong with it and what to do.
    fn receivers<T: PartialEq>(
        &mut self,
        to: OneOrMore,
        read: impl Fn(&str) -> Result<T, (String, String)>,
    ) -> Option<Vec<T>> {
        let texts = match to {
            OneOrMore::One(text) => vec![text],
            OneOrMore::More(texts) => texts,
        };
        if texts.is_empty() || texts.len() > MOST {
            let problem = format!("{} receivers are named where 1 to {MOST} may be", texts.len());
            return self.fault("to", problem, "name at least one, and more than that in another [[notify]]");
        }
        let mut receivers = Vec::new();
        for text in texts {
            match read(&text) {
                Ok(receiver) if receivers.contains(&receiver) => {
                    return self.fault("to", "a receiver is named twice", "remove one of the two");
                }
                Ok(receiver) => receivers.push(receiver),
                Err((problem, hint)) => return self.fault("to", problem, hint),
            }
        }
        Some(receivers)
    }

    fn template(&mut self, key: &str, written: Option<String>, default: &str) -> Option<Template> {
        let text = written.as_deref().unwrap_or(default);
        if text.len() > TEMPLATE_BYTES {
            let problem = format!("this has {} bytes where at most {TEMPLATE_BYTES} may be", text.len());
            return self.fault(key, problem, "shorten it");
        }
        match Template::parse(text) {
            Ok(template) => Some(template),
            Err(why) => {
                let (problem, hint) = why.split_once("; ").unwrap_or((&why, ""));
                self.fault(key, problem, hint)
            }
        }
    }
}

impl NotifyFile {
    /// The keys that are for some ways only and that are there.
    fn set(&self) -> Vec<&'static str> {
        let keys = [
            ("subject", self.subject.is_some()),
            ("body", self.body.is_some()),
            ("server", self.server.is_some()),
            ("tls", self.tls.is_some()),
            ("from", self.from.is_some()),
            ("user", self.user.is_some()),
            ("password_file", self.password_file.is_some()),
            ("ca", self.ca.is_some()),
            ("secret_file", self.secret_file.is_some()),
            ("community", self.community.is_some()),
            ("oid", self.oid.is_some()),
            ("facility", self.facility.is_some()),
        ];
        keys.into_iter().filter(|(_, there)| *there).map(|(key, _)| key).collect()
    }
}

/// The numbers of an object identifier below `enterprises`.
fn oid(text: &str) -> Option<Vec<u32>> {
    let arc = |arc: &str| arc.parse().ok().filter(|_| arc.bytes().all(|byte| byte.is_ascii_digit()));
    let arcs: Vec<u32> = text.split('.').map(arc).collect::<Option<_>>()?;
    (arcs.starts_with(&[1, 3, 6, 1, 4, 1]) && (7..=32).contains(&arcs.len())).then_some(arcs)
}
