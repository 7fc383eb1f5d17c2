//! The rules of the configuration: ranges and combinations. A wrong one is refused with the rule that it breaks.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use xmpp_core::jid::BareJid;
use xmpp_core::sasl::Mechanism;
use xmpp_core::tls::{self, Authority, Identity, TlsError};

use super::error::{ConfigError, Fault, Source};
use super::link::split_port;
use super::{COMPUTED_LOWER_S, Config, LEASE, Peer, Policy, ReLogin, Srm, file, text};

/// Collects faults and finds their lines.
pub(super) struct Faults<'a> {
    source: &'a Source<'a>,
    list: Vec<Fault>,
}

impl<'a> Faults<'a> {
    pub fn new(source: &'a Source<'a>) -> Self {
        Faults { source, list: Vec::new() }
    }

    /// Notes that `key` breaks a rule.
    pub fn add(&mut self, key: &str, problem: impl Into<String>, hint: impl Into<String>) {
        let line = self.source.line_of(key);
        self.list.push(Fault { line, key: key.into(), problem: problem.into(), hint: hint.into() });
    }

    /// All faults, in the order of the file.
    pub fn done(mut self) -> Vec<Fault> {
        self.list.sort_by_key(|fault| fault.line);
        self.list
    }

    pub fn range<T: PartialOrd + Copy + ToString>(
        &mut self,
        key: &str,
        value: T,
        allowed: RangeInclusive<T>,
    ) {
        if !allowed.contains(&value) {
            let (low, high) = (allowed.start().to_string(), allowed.end().to_string());
            self.add(
                key,
                format!("{} is not within {low} to {high}", value.to_string()),
                "choose one within it",
            );
        }
    }

    pub fn duration(&mut self, key: &str, value: Duration, allowed: RangeInclusive<u64>) {
        let (low, high) = (Duration::from_secs(*allowed.start()), Duration::from_secs(*allowed.end()));
        if value < low || value > high {
            let problem = format!("{} is not within {} to {}", text(value), text(low), text(high));
            self.add(key, problem, "choose one within it");
        }
    }
}

/// Checks everything, and brings domains into the form in which they are compared.
pub(super) fn rules(config: &mut Config, faults: &mut Faults<'_>) {
    names(config, faults);
    domains(&mut config.node.domains, faults);
    mechanisms(config, faults);
    ports(config, faults);
    match (&config.peer, &config.link) {
        (Some(peer), Some(_)) => addresses(peer, faults),
        (Some(_), None) => faults.add(
            "peer",
            "there is a [peer], but no [link] to reach it by",
            "add [link] with cert, key, ca and secret, or remove [peer] for a single node",
        ),
        _ => {}
    }
    witness(config, faults);
    srm(&config.srm, faults);
    config.limits.check(faults);
    faults.range("store.checkpoint_frames", config.store.checkpoint_frames, 1..=1_000_000);
}

fn witness(config: &Config, faults: &mut Faults<'_>) {
    let asked = config.link.as_ref().is_some_and(|link| link.policy == Policy::Witness);
    if let Some(witness) = &config.witness {
        witness.check(faults);
    }
    match (&config.witness, &config.etcd) {
        (Some(_), Some(_)) => faults.add(
            "etcd.endpoints",
            "there is a [witness], too: one of them decides",
            "remove the section that is not to be asked",
        ),
        (None, None) if asked => faults.add(
            "link.policy",
            "\"strict+witness\" needs a witness, and there is neither [witness] nor [etcd]",
            "add [witness] with its address or [etcd] with its endpoints, or choose another policy",
        ),
        _ => {}
    }
}

fn names(config: &Config, faults: &mut Faults<'_>) {
    name("node.name", &config.node.name, faults);
    let Some(peer) = &config.peer else { return };
    name("peer.name", &peer.name, faults);
    if peer.name.eq_ignore_ascii_case(&config.node.name) {
        faults.add(
            "peer.name",
            format!("both nodes are named {:?}", peer.name),
            "write this node's name in [node] and the other's in [peer]; the two must differ, and not in case only",
        );
    }
}

fn name(key: &str, name: &str, faults: &mut Faults<'_>) {
    if let Some(fault) = name_fault(name) {
        faults.add(key, fault.problem, fault.hint);
    }
}

/// What is wrong with the name of a node, if anything.
pub fn name_fault(name: &str) -> Option<Fault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let (problem, hint) = if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
        let problem = format!("{name:?} is not 1 to 64 of the ASCII letters and digits and `-`, `_`, `.`");
        (problem, "choose a name such as \"a\" or \"node-1\"")
    } else if DnsName::try_from(name).is_err() || name.ends_with('.') {
        let hint = "choose one that has a letter after its last dot, no dot or `-` at either end of a part, and at \
                    most 63 characters between dots";
        (format!("{name:?} cannot stand in a certificate"), hint)
    } else {
        return None;
    };
    Some(Fault { line: None, key: "node.name".into(), problem, hint: hint.into() })
}

fn domains(domains: &mut Vec<String>, faults: &mut Faults<'_>) {
    const KEY: &str = "node.domains";
    if domains.is_empty() {
        faults.add(KEY, "no domain is named", "name at least one, such as [\"example.org\"]");
    }
    let mut prepared: Vec<String> = Vec::new();
    for domain in domains.iter() {
        let plain = !domain.contains(['@', '/']);
        match BareJid::new(None, domain).ok().filter(|_| plain) {
            Some(jid) if prepared.iter().any(|known| known == jid.domain()) => {
                faults.add(KEY, format!("{domain:?} is named twice"), "remove one of the two");
            }
            Some(jid) => prepared.push(jid.domain().to_owned()),
            None => faults.add(
                KEY,
                format!("{domain:?} is not a domain"),
                "write the part of the users' addresses after the @, such as \"example.org\"",
            ),
        }
    }
    *domains = prepared;
}

fn mechanisms(config: &Config, faults: &mut Faults<'_>) {
    const KEY: &str = "c2s.mechanisms";
    let known = super::default_mechanisms().join(", ");
    if config.c2s.mechanisms.is_empty() {
        faults.add(KEY, "no mechanism is named", format!("name at least one of {known}, or remove the line"));
    }
    for name in &config.c2s.mechanisms {
        match Mechanism::parse(name) {
            Some(Mechanism::Scram(_)) => {}
            Some(Mechanism::ScramPlus(_)) => faults.add(
                KEY,
                format!("{name:?} is not named by itself"),
                "name it without -PLUS: wherever TLS 1.3 is used, each is offered with -PLUS too",
            ),
            Some(Mechanism::Plain) => {
                faults.add(KEY, "\"PLAIN\" has a key of its own", "remove it here and write `plain = true`");
            }
            None => faults.add(KEY, format!("{name:?} is not known"), format!("choose among {known}")),
        }
    }
}

fn ports(config: &Config, faults: &mut Faults<'_>) {
    let mut listening = vec![
        ("c2s.starttls", config.c2s.starttls.port(), ""),
        ("c2s.direct", config.c2s.direct.port(), ""),
        ("admin.listen", config.admin.listen.port(), ""),
    ];
    if let Some(link) = &config.link {
        let port = link.listen.port();
        listening.push(("link.listen", port, ""));
        if port == u16::MAX {
            faults.add("link.listen", "the life socket needs the port above 65535", "choose a lower port");
        } else {
            listening.push(("link.listen", link.life().port(), " (the life socket, one above the link)"));
        }
    }
    let mut taken: BTreeMap<u16, &str> = BTreeMap::new();
    for (key, port, what) in listening {
        if port == 0 {
            faults.add(key, "port 0 is no port", "choose one from 1 to 65535");
        } else if let Some(other) = taken.insert(port, key) {
            let problem = format!("port {port}{what} is the port of {other} too");
            faults.add(key, problem, "give each its own port");
        }
    }
}

fn addresses(peer: &Peer, faults: &mut Faults<'_>) {
    if ServerName::try_from(peer.host.as_str()).is_err() {
        faults.add(
            "peer.host",
            format!("{:?} is neither a host name nor an address", peer.host),
            "write the bare name or address, such as \"b.example.org\" or \"192.0.2.7\"; ports have keys of their own",
        );
        // What follows from it is wrong for the same reason.
        return;
    }
    if peer.c2s == 0 {
        faults.add("peer.c2s", "port 0 is no port", "choose one from 1 to 65535, or remove the line");
    }
    for (key, address) in [("peer.link", &peer.link), ("peer.beacon", &peer.beacon)] {
        let sound = split_port(address).is_some_and(|(host, _)| {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            ServerName::try_from(host).is_ok()
        });
        if !sound {
            let problem = format!("{address:?} is not HOST:PORT");
            faults.add(key, problem, "write it such as \"b.example.org:22001\" or \"[2001:db8::7]:22001\"");
        }
    }
    if split_port(&peer.link).is_some_and(|(_, port)| port == u16::MAX) {
        faults.add("peer.link", "the peer's life socket needs the port above 65535", "choose a lower port");
    }
}

fn srm(srm: &Srm, faults: &mut Faults<'_>) {
    faults.duration("srm.critical_service_delay", srm.critical_service_delay, 10..=600);
    faults.duration("srm.automatic_fallback_after", srm.automatic_fallback_after, 1..=86_400);
    faults.duration("srm.keep_alive_interval", srm.keep_alive_interval, 1..=60);
    let least = (srm.keep_alive_interval * 4).max(2 * LEASE + Duration::from_millis(1));
    if srm.keep_alive_timeout < least {
        let (problem, hint) = if srm.keep_alive_timeout <= 2 * LEASE {
            let problem = format!("{} is not above 6s, twice the lease", text(srm.keep_alive_timeout));
            (problem, "raise it: a node that is cut off must stop before the other takes over".to_owned())
        } else {
            let problem = format!(
                "{} is less than 4 times keep_alive_interval ({})",
                text(srm.keep_alive_timeout),
                text(srm.keep_alive_interval)
            );
            (problem, format!("raise it to {} or more, or lower keep_alive_interval", text(least)))
        };
        faults.add("srm.keep_alive_timeout", problem, hint);
    }
    if srm.initialization_keep_alive_timeout < srm.keep_alive_timeout {
        faults.add(
            "srm.initialization_keep_alive_timeout",
            format!(
                "{} is less than keep_alive_timeout ({})",
                text(srm.initialization_keep_alive_timeout),
                text(srm.keep_alive_timeout)
            ),
            format!("raise it to {} or more, or lower keep_alive_timeout", text(srm.keep_alive_timeout)),
        );
    }
    faults.duration("srm.client_re_login_upper_limit", srm.client_re_login_upper_limit, 0..=7_200);
    if srm.client_re_login_lower_limit > srm.client_re_login_upper_limit {
        faults.add(
            "srm.client_re_login_lower_limit",
            format!(
                "{} is more than client_re_login_upper_limit ({})",
                text(srm.client_re_login_lower_limit),
                text(srm.client_re_login_upper_limit)
            ),
            "lower it, or raise the upper limit",
        );
    }
    faults.range("srm.force_failover_clients", srm.force_failover_clients, 1..=1000);
    faults.range("srm.automatic_failovers_per_hour", srm.automatic_failovers_per_hour, 1..=60);
}

/// What is allowed but deserves a second look.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let now_s = super::now_s();
    let mut found: Vec<String> =
        config.validities().iter().filter_map(|validity| validity.trouble(now_s)).collect();
    let (srm, listen) = (&config.srm, config.admin.listen);
    if !listen.ip().is_loopback() {
        found.push(format!(
            "admin.listen = {listen} is reachable from other machines without TLS: whoever sees the traffic has the \
             token; listen on 127.0.0.1 and use a tunnel or a proxy with TLS"
        ));
    }
    let computed = srm.client_re_login_limits == ReLogin::Computed;
    let shortest = Duration::from_secs(COMPUTED_LOWER_S.into()).min(srm.client_re_login_lower_limit);
    if config.peer.is_some() && computed && shortest < srm.critical_service_delay {
        found.push(format!(
            "srm.client_re_login_limits = \"computed\" has clients log in again from {} on, before \
             critical_service_delay ({}) is over: standby streams are made anew while a service may still be failing",
            text(shortest),
            text(srm.critical_service_delay)
        ));
    } else if config.peer.is_some() && srm.client_re_login_lower_limit < srm.critical_service_delay {
        found.push(format!(
            "srm.client_re_login_lower_limit = {} does not follow critical_service_delay ({}): standby streams are made anew \
             while a service may still be failing",
            text(srm.client_re_login_lower_limit),
            text(srm.critical_service_delay)
        ));
    }
    if srm.disable_automatics {
        found.push(
            "srm.disable_automatics is set: no failover and no fallback happens without the operator"
                .to_owned(),
        );
    }
    if config.c2s.plain {
        found.push(
            "c2s.plain is set: clients that choose PLAIN show this node their passwords; remove it once they know SCRAM"
                .to_owned(),
        );
    }
    let policy = config.link.as_ref().map(|link| link.policy);
    if config.witness.is_some() && policy.is_some_and(|policy| policy != Policy::Witness) {
        found.push("[witness] is not used: link.policy is not \"strict+witness\"".to_owned());
    }
    if config.etcd.is_some() && policy.is_some_and(|policy| policy != Policy::Witness) {
        found.push("[etcd] is not used: link.policy is not \"strict+witness\"".to_owned());
    }
    if config.peer.is_none() && config.link.is_some() {
        found.push("[link] is not used: there is no [peer]".to_owned());
    }
    if srm.scheduled_fallback && srm.enable_automatic_fallback {
        found.push(
            "srm.scheduled_fallback and enable_automatic_fallback are both on: fallback happens by whichever comes \
             first"
                .to_owned(),
        );
    }
    found
}

/// Reads what the file names, and checks that it fits together.
pub(super) fn files(config: &Config) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(&config.path)
        .map_err(|reason| ConfigError::Unreadable { path: config.path.clone(), reason })?;
    let source = Source::new(&text);
    let mut faults = Faults::new(&source);
    c2s_files(config, &mut faults);
    if let Some((_, link)) = config.pair() {
        link_files("link", [&link.cert, &link.key, &link.ca], &config.node.name, &mut faults);
    }
    if let Err(problem) = file::read_token(&config.admin.token_file) {
        faults.add("admin.token_file", problem, "");
    }
    if let Some(etcd) = &config.etcd {
        etcd.check_files(&mut faults);
    }
    config.notify.iter().for_each(|notify| notify.check_files(&mut faults));
    match faults.done() {
        faults if faults.is_empty() => Ok(()),
        faults => Err(ConfigError::Refused { path: config.path.clone(), faults }),
    }
}

fn c2s_files(config: &Config, faults: &mut Faults<'_>) {
    let c2s = &config.c2s;
    let built = Identity::load(&c2s.cert, &c2s.key).and_then(|identity| tls::c2s_server(&identity, None));
    if let Err(error) = built {
        return tls_fault("c2s", &[("cert", &c2s.cert), ("key", &c2s.key)], &error, faults);
    }
    for domain in &config.node.domains {
        let Some(false) = bears(&c2s.cert, domain) else { continue };
        faults.add(
            "c2s.cert",
            format!("{} is not for {domain}", c2s.cert.display()),
            "clients would refuse it: get a certificate with that name in it (subject alternative name)",
        );
    }
}

/// The certificate, key and authority with which `name` speaks to the others of the cluster.
pub(super) fn link_files(section: &str, [cert, key, ca]: [&Path; 3], name: &str, faults: &mut Faults<'_>) {
    let built = Identity::load(cert, key).and_then(|identity| {
        let authority = Authority::load(ca)?;
        tls::link_server(&identity, &authority)?;
        tls::link_client(&identity, &authority)
    });
    if let Err(error) = built {
        return tls_fault(section, &[("cert", cert), ("key", key), ("ca", ca)], &error, faults);
    }
    if bears(cert, name) == Some(false) {
        faults.add(
            &format!("{section}.cert"),
            format!("{} is not for {name}", cert.display()),
            "the other side would refuse it: make one with this name in it (subject alternative name)",
        );
    }
}

/// Puts the fault at the key that names the damaged file.
fn tls_fault(section: &str, files: &[(&str, &Path)], error: &TlsError, faults: &mut Faults<'_>) {
    let key = match error {
        TlsError::Read { path, .. }
        | TlsError::Pem { path, .. }
        | TlsError::NoCertificate { path }
        | TlsError::NoKey { path }
        | TlsError::Authority { path, .. } => files.iter().find(|(_, file)| *file == path),
        TlsError::Identity { .. } | TlsError::Internal(_) => None,
    };
    let key = key.map_or("cert", |(key, _)| key);
    faults.add(&format!("{section}.{key}"), error.to_string(), "");
}

/// Whether the first certificate of the file is for this name; `None` where it cannot be told. Names beyond ASCII
/// stand in certificates as A-labels, which are not compared here.
fn bears(path: &Path, name: &str) -> Option<bool> {
    let cert = CertificateDer::from_pem_file(path).ok().filter(|_| name.is_ascii())?;
    Some(tls::certificate_is_for(&cert, name))
}
