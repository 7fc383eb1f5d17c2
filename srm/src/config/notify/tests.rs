//! Every refusal of a `[[notify]]`, with its key and its line.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::{Config, ConfigError};
use super::*;
use crate::notify::DEFAULT_OID;

/// A sound node before the tables.
const NODE: &str = "[node]\nname = \"a\"\ndomains = [\"im.example\"]\n[c2s]\ncert = \"c\"\nkey = \"k\"\n";

const MAIL: &str = "by = \"smtp\"\nto = \"ops@example.org\"\nserver = \"mail.example.org:587\"\nfrom = \"tandem@example.org\"\n";

fn load(tables: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tandem.toml");
    fs::write(&path, format!("{NODE}{tables}")).unwrap();
    Config::load(&path)
}

fn sound(table: &str) -> Notify {
    let config = load(&format!("[[notify]]\n{table}\n")).unwrap_or_else(|error| panic!("{table}: {error}"));
    config.notify.into_iter().next().unwrap()
}

/// The only fault of the second of two tables: its key without its place, its line in the table, what is said of it.
fn refusal(table: &str) -> (String, usize, String) {
    let before = format!("[[notify]]\n{MAIL}\n[[notify]]\n");
    let error = load(&format!("{before}{table}\n")).expect_err(table);
    let [fault] = error.faults() else { panic!("{error}") };
    let key = fault.key.strip_prefix("notify.2.").unwrap_or_else(|| panic!("{error}"));
    let line = fault.line.unwrap_or_else(|| panic!("{error}"));
    (
        key.to_owned(),
        line - NODE.lines().count() - before.lines().count(),
        format!("{}; {}", fault.problem, fault.hint),
    )
}

#[test]
fn each_way_has_its_defaults() {
    let syslog = sound("by = \"syslog\"\nto = \"udp://log.example.org:514\"");
    assert_eq!(syslog.wants, Wants { severity: Some(Severity::Warning), events: BTreeSet::new() });
    let Way::Syslog(way) = syslog.way else { panic!("{syslog:?}") };
    assert_eq!(
        (way.to[0].tcp, way.to[0].at.to_string(), way.facility),
        (false, "log.example.org:514".into(), 3)
    );

    let Way::Smtp(way) = sound(MAIL).way else { panic!() };
    assert_eq!((way.tls, way.login, way.ca), (SmtpTls::Starttls, None, None));

    let to = "to = [\"udp://[2001:db8::7]:162\", \"udp://192.0.2.7:162\"]";
    let Way::Snmp(way) = sound(&format!("by = \"snmp\"\n{to}")).way else { panic!() };
    assert_eq!(way.to[0], HostPort { host: "2001:db8::7".into(), port: 162 });
    assert_eq!((way.to[0].to_string(), way.to.len()), ("[2001:db8::7]:162".into(), 2));
    assert_eq!((way.community.as_str(), way.oid.as_slice()), ("public", DEFAULT_OID.as_slice()));

    let Way::Webhook(way) = sound("by = \"webhook\"\nto = \"https://hooks.example.org/x\"").way else {
        panic!()
    };
    assert!(way.to[0].is_https() && way.secret().is_none());
    let Way::Xmpp(way) = sound("by = \"xmpp\"\nto = [\"Admin@IM.example\", \"b@im.example\"]").way else {
        panic!()
    };
    assert_eq!(way.to.iter().map(|to| to.as_str()).collect::<Vec<_>>(), ["admin@im.example", "b@im.example"]);
    assert!(load("").unwrap().notify.is_empty());
}

#[test]
fn kinds_take_the_place_of_the_severity_unless_both_are_written() {
    let way = "by = \"syslog\"\nto = \"udp://h:1\"";
    let kinds = sound(&format!("{way}\nevents = [\"peer-up\"]")).wants;
    assert_eq!((kinds.severity, kinds.events.len()), (None, 1));
    let both = sound(&format!("{way}\nevents = [\"peer-up\"]\nseverity = \"error\"")).wants;
    assert_eq!((both.severity, both.events.len()), (Some(Severity::Error), 1));
}

#[test]
fn keys_of_another_way_are_refused_with_what_to_do() {
    let ways = [
        ("syslog", "by = \"syslog\"\nto = \"udp://h:1\"\n"),
        ("smtp", MAIL),
        ("snmp", "by = \"snmp\"\nto = \"udp://h:1\"\n"),
        ("webhook", "by = \"webhook\"\nto = \"http://h\"\n"),
        ("xmpp", "by = \"xmpp\"\nto = \"admin@im.example\"\n"),
    ];
    for (key, value, of) in [
        ("subject", "\"x\"", "smtp xmpp"),
        ("server", "\"h:1\"", "smtp"),
        ("tls", "\"none\"", "smtp"),
        ("from", "\"a@b.example\"", "smtp"),
        ("user", "\"u\"", "smtp"),
        ("password_file", "\"f\"", "smtp"),
        ("ca", "\"f\"", "smtp webhook"),
        ("secret_file", "\"f\"", "webhook"),
        ("community", "\"c\"", "snmp"),
        ("oid", "\"1.3.6.1.4.1.1\"", "snmp"),
        ("facility", "\"user\"", "syslog"),
        ("body", "\"x\"", "syslog smtp snmp xmpp"),
    ] {
        for (way, table) in ways.iter().filter(|(way, _)| !of.split(' ').any(|known| known == *way)) {
            let (at, line, why) = refusal(&format!("{table}{key} = {value}"));
            assert_eq!((at.as_str(), line), (key, table.lines().count() + 1), "{way}");
            assert!(why.contains(&format!("not for {way:?}")) && why.contains("remove it"), "{why}");
        }
    }
}

#[test]
fn what_a_way_needs_is_asked_for() {
    let syslog = "by = \"syslog\"\nto = \"udp://h:1\"\n";
    let snmp = "by = \"snmp\"\nto = \"udp://h:1\"\n";
    let hook = "by = \"webhook\"\nto = \"http://h\"\n";
    let without = |line: &str| MAIL.lines().filter(|l| !l.starts_with(line)).collect::<Vec<_>>().join("\n");
    for (table, key, said) in [
        ("to = \"udp://h:1\"".into(), "by", "missing field `by`; add it"),
        ("by = \"syslog\"".into(), "to", "missing field `to`; add it"),
        ("by = \"pager\"\nto = \"x\"".into(), "by", "expected one of `syslog`"),
        (format!("{syslog}levels = 1"), "levels", "unknown field `levels`"),
        (format!("{syslog}severity = \"bad\""), "severity", "`warning`"),
        (format!("{syslog}facility = \"kern\""), "facility", "choose among user, daemon"),
        (format!("{syslog}events = []"), "events", "name one, or remove"),
        (format!("{syslog}events = [\"Node Up\"]"), "events", "\"Node Up\" is no kind"),
        (format!("{syslog}body = \"{{who}}\""), "body", "{who} is no placeholder; write {date}, {time}"),
        (format!("{syslog}body = \"{}\"", "x".repeat(4097)), "body", "at most 4096"),
        ("by = \"syslog\"\nto = 7".into(), "to", "expected text in quotes, or a list"),
        ("by = \"syslog\"\nto = []".into(), "to", "0 receivers"),
        ("by = \"syslog\"\nto = \"h:514\"".into(), "to", "neither udp://HOST:PORT nor tcp"),
        ("by = \"syslog\"\nto = \"tls://h:514\"".into(), "to", "neither udp://HOST:PORT nor tcp"),
        ("by = \"syslog\"\nto = \"udp://h\"".into(), "to", "such as \"udp://log.example.org:514\""),
        ("by = \"syslog\"\nto = \"udp://::1:514\"".into(), "to", "neither"),
        ("by = \"syslog\"\nto = [\"udp://h:1\", \"udp://h:1\"]".into(), "to", "named twice"),
        (without("server"), "server", "add server = HOST:PORT"),
        (without("from"), "from", "add from ="),
        (without("server") + "\nserver = \"mail\"", "server", "not HOST:PORT"),
        (without("from") + "\nfrom = \"tandem\"", "from", "no address of mail"),
        (without("to") + "\nto = [\"a@b.example\\r\\nBcc: x@y.example\"]", "to", "no address of mail"),
        (format!("{MAIL}subject = \"a\\nb\""), "subject", "one line"),
        (format!("{MAIL}user = \"u\""), "user", "without a password; add password_file"),
        (format!("{MAIL}password_file = \"f\""), "password_file", "without a user; add user"),
        (format!("{MAIL}tls = \"none\"\nca = \"f\""), "ca", "tls is \"none\""),
        (format!("{MAIL}tls = \"none\"\nuser = \"u\"\npassword_file = \"f\""), "tls", "in the clear; choose"),
        (format!("{snmp}community = \"a b\""), "community", "1 to 64 characters"),
        (format!("{snmp}oid = \"1.3.6.1.2.1\""), "oid", "below 1.3.6.1.4.1"),
        (format!("{snmp}oid = \"1.3.6.1.4.1.x\""), "oid", "below 1.3.6.1.4.1"),
        ("by = \"snmp\"\nto = \"tcp://h:162\"".into(), "to", "not udp://HOST:PORT"),
        (format!("{hook}ca = \"f\""), "ca", "no receiver has TLS"),
        ("by = \"webhook\"\nto = \"h.example\"".into(), "to", "https://"),
        (
            "by = \"xmpp\"\nto = \"im.example\"".into(),
            "to",
            "no NAME@DOMAIN; write it such as \"admin@im.example\"",
        ),
        ("by = \"xmpp\"\nto = \"admin@im.example/x\"".into(), "to", "no NAME@DOMAIN"),
        (
            "by = \"xmpp\"\nto = \"a@other.example\"".into(),
            "to",
            "a@other.example is no account of im.example",
        ),
    ] {
        let (at, line, why) = refusal(&table);
        assert!(at == key && why.contains(said), "{table}: {at}: {why}");
        let there = table.lines().nth(line.saturating_sub(1)).unwrap();
        assert!(line == 0 || there.starts_with(key), "{table}: line {line} is {there:?}");
    }
}

#[test]
fn the_secret_of_an_url_is_not_repeated() {
    let (_, _, why) = refusal("by = \"webhook\"\nto = [\"https://h/s3cret\", \"https://h/s3cret\"]");
    assert!(why.contains("named twice") && !why.contains("s3cret"), "{why}");
    let config = load(
        "[[notify]]\nby = \"webhook\"\nto = \"https://h/s3cret\"\n\
                       [[notify]]\nby = \"snmp\"\nto = \"udp://h:1\"\ncommunity = \"s3cret\"\n",
    );
    assert!(!format!("{:?}", config.unwrap()).contains("s3cret"));
}

#[test]
fn files_are_checked_with_the_others_and_a_change_takes_effect_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tandem.toml");
    let tables = format!(
        "[[notify]]\n{MAIL}user = \"u\"\npassword_file = \"pw\"\nca = \"ca.pem\"\n\
         [[notify]]\nby = \"webhook\"\nto = \"http://h\"\nsecret_file = \"hmac\"\n"
    );
    fs::write(&path, format!("{NODE}{tables}")).unwrap();
    let config = Config::load(&path).unwrap();
    let faults = |config: &Config| {
        let error = config.check_files().unwrap_err();
        let of_ours = error.faults().iter().filter(|fault| fault.key.starts_with("notify."));
        of_ours.map(|fault| format!("{}: {}", fault.key, fault.problem)).collect::<Vec<_>>()
    };
    let found = faults(&config);
    assert!(found.len() == 3 && found.iter().all(|fault| fault.contains("cannot be read")), "{found:?}");
    let private = |name: &str, text: &str| {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    private("pw", "\n");
    private("hmac", "0123456789\n");
    let found = faults(&config);
    assert!(found[0].contains("does not hold a password") && found[2].contains("at least 16"), "{found:?}");
    private("pw", "secret\n");
    private("hmac", "0123456789abcdef\n");
    assert_eq!(faults(&config).len(), 1);
    let named: Vec<&str> =
        config.files().iter().map(|(key, _)| *key).filter(|key| key.starts_with("notify")).collect();
    assert_eq!(named, ["notify.password_file", "notify.ca", "notify.secret_file"]);

    fs::write(&path, format!("{NODE}{}", tables.replace("ops@", "others@"))).unwrap();
    let (followed, change) = config.follow(Config::load(&path).unwrap());
    assert_eq!((change.taken, change.restart), (vec!["notify".to_owned()], Vec::new()));
    assert_ne!(followed.notify, config.notify);
    let (_, change) = followed.follow(Config::load(&path).unwrap());
    assert_eq!(change, super::super::Change::default());
}

#[test]
fn the_example_in_the_documents_is_sound() {
    let page = include_str!("../../../../docs/notify.md");
    let example = page.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
    let config = load(&example.replace("admin@example.org", "admin@im.example")).unwrap();
    let told = |at: usize, severity, event: &str| {
        config.notify[at].wants.takes(&Record { severity, event: event.into(), ..Record::default() })
    };
    assert_eq!(config.notify.len(), 5);
    assert!(told(0, Severity::Warning, "x") && !told(0, Severity::Notice, "x"));
    assert!(told(1, Severity::Info, "failover-complete") && !told(1, Severity::Warning, "x"));
}
