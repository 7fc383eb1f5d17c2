//! Every refusal of the configuration, with its key and its line.

use std::fs;

use super::*;

const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A sound pair's file, where `{section}` lines can be added or replaced.
fn pair(edits: &[(&str, &str)]) -> String {
    let mut sections = vec![
        ("node", vec!["name = \"a\"".to_owned(), "domains = [\"im.example\"]".into()]),
        ("peer", vec!["name = \"b\"".into(), "host = \"b.example\"".into()]),
        ("c2s", vec!["cert = \"c2s.pem\"".into(), "key = \"c2s.key\"".into()]),
        (
            "link",
            vec![
                "cert = \"link.pem\"".into(),
                "key = \"link.key\"".into(),
                "ca = \"ca.pem\"".into(),
                format!("secret = \"{SECRET}\""),
            ],
        ),
        ("srm", vec![]),
        ("admin", vec![]),
        ("store", vec![]),
        ("limits", vec![]),
    ];
    for (key, value) in edits {
        let (section, name) = key.split_once('.').unwrap();
        let lines = &mut sections.iter_mut().find(|(known, _)| *known == section).unwrap().1;
        lines.retain(|line| !line.starts_with(&format!("{name} = ")));
        if !value.is_empty() {
            lines.push(format!("{name} = {value}"));
        }
    }
    let mut text = String::new();
    for (section, lines) in sections {
        text.push_str(&format!("[{section}]\n"));
        lines.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    }
    text
}

fn load(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tandem.toml");
    fs::write(&path, text).unwrap();
    Config::load(&path)
}

/// The only fault of a pair's file with this one edit: key, and problem with hint.
fn refusal(edits: &[(&str, &str)]) -> (String, String) {
    let text = pair(edits);
    let error = load(&text).expect_err(&text);
    let [fault] = error.faults() else { panic!("{error}") };
    let line = fault.line.expect("a line");
    let last = fault.key.rsplit('.').next().unwrap();
    let there = text.lines().nth(line - 1).unwrap();
    assert!(there.contains(last) || there.starts_with('['), "line {line} of {error} is {there:?}");
    assert!(error.to_string().contains("tandem.toml:"), "{error}");
    (fault.key.clone(), format!("{}; {}", fault.problem, fault.hint))
}

#[test]
fn a_small_file_has_the_products_defaults() {
    let config = load(&pair(&[])).unwrap();
    assert_eq!(config.c2s.starttls, "[::]:5222".parse().unwrap());
    assert_eq!(config.c2s.direct, "[::]:5223".parse().unwrap());
    assert_eq!(config.admin.listen, "127.0.0.1:20075".parse().unwrap());
    assert_eq!(config.c2s.mechanisms, ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"]);
    assert_eq!(config.srm.critical_service_delay, Duration::from_secs(90));
    assert_eq!(config.srm.keep_alive_interval, Duration::from_secs(15));
    assert_eq!(config.srm.keep_alive_timeout, Duration::from_secs(60));
    assert_eq!(config.srm.initialization_keep_alive_timeout, Duration::from_secs(120));
    assert_eq!(config.srm.client_re_login_lower_limit, Duration::from_secs(120));
    assert_eq!(config.srm.client_re_login_upper_limit, Duration::from_secs(537));
    assert_eq!(config.srm.scheduled_fallback_window.to_string(), "03:00-06:00");
    assert_eq!(config.srm.automatic_fallback_after, Duration::from_secs(30 * 60));
    let off = [
        config.srm.enable_automatic_fallback,
        config.srm.scheduled_fallback,
        config.srm.enable_authentication_monitoring,
        config.srm.disable_automatics,
        config.srm.allow_adding_users_in_failover,
    ];
    assert_eq!(off, [false; 5]);
    assert!(config.srm.force_failover_on_client_login && config.srm.nightly_check);
    assert_eq!((config.srm.force_failover_clients, config.srm.automatic_failovers_per_hour), (3, 1));
    assert_eq!(config.srm.user_assignment_mode, Assignment::Balanced);
    assert_eq!(config.srm.client_re_login_limits, ReLogin::Fixed);
    let (peer, link) = config.pair().unwrap();
    assert_eq!((peer.c2s, peer.link.as_str()), (5223, "b.example:22001"));
    assert_eq!((peer.beacon.as_str(), peer.life()), ("b.example:22001", "b.example:22002".to_owned()));
    assert_eq!((link.listen.port(), link.life().port()), (22001, 22002));
    assert_eq!((link.commit, link.policy), (Commit::Peer, Policy::Available));
    assert_eq!(config.members(), ["a", "b"]);
    assert_eq!(config.index(), 0);
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn a_single_node_needs_neither_peer_nor_link() {
    let text = "[node]\nname = \"a\"\ndomains = [\"IM.Example\"]\n[c2s]\ncert = \"c\"\nkey = \"k\"\n";
    let config = load(text).unwrap();
    assert!(config.pair().is_none());
    assert_eq!(config.members(), ["a"]);
    assert_eq!(config.node.domains, ["im.example"], "in the form in which addresses are compared");
}

#[test]
fn paths_are_relative_to_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tandem.toml");
    fs::write(&path, pair(&[("c2s.key", "\"/abs/key\"")])).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.node.data, dir.path().join("data"));
    assert_eq!(config.c2s.cert, dir.path().join("c2s.pem"));
    assert_eq!(config.c2s.key, Path::new("/abs/key"));
    assert_eq!(config.admin.token_file, dir.path().join("admin.token"));
}

#[test]
fn an_ipv6_peer_is_put_in_brackets() {
    let config = load(&pair(&[("peer.host", "\"2001:db8::7\"")])).unwrap();
    let peer = config.peer.unwrap();
    assert_eq!((peer.link.as_str(), peer.life()), ("[2001:db8::7]:22001", "[2001:db8::7]:22002".to_owned()));
}

#[test]
fn unknown_keys_and_sections_are_refused() {
    let (key, why) = refusal(&[("srm.keepalive", "\"60s\"")]);
    assert_eq!(key, "srm.keepalive");
    assert!(why.contains("unknown field `keepalive`") && why.contains("spelling"), "{why}");
    for section in ["node", "peer", "c2s", "link", "admin", "store", "limits"] {
        let key = format!("{section}.nonsense");
        assert_eq!(refusal(&[(&key, "1")]).0, key);
    }
    let error = load(&format!("{}\n[nonsense]\n", pair(&[]))).unwrap_err();
    assert_eq!(error.faults()[0].key, "nonsense");
}

#[test]
fn missing_keys_are_named() {
    for key in [
        "node.name",
        "node.domains",
        "peer.name",
        "peer.host",
        "c2s.cert",
        "c2s.key",
        "link.cert",
        "link.key",
        "link.ca",
        "link.secret",
    ] {
        let (at, why) = refusal(&[(key, "")]);
        assert_eq!(at, key);
        assert!(why.contains("missing") && why.contains("add it"), "{why}");
    }
    let error = load("").unwrap_err();
    assert!(error.to_string().contains("missing field `node`"), "{error}");
}

#[test]
fn a_file_that_is_no_toml_names_its_line() {
    let error = load("[node]\nname = \"a\nother = 1\n").unwrap_err();
    assert_eq!(error.faults()[0].line, Some(2), "{error}");
}

#[test]
fn durations_without_a_unit_are_refused() {
    for value in ["60", "\"60\"", "\"sixty\""] {
        let (key, why) = refusal(&[("srm.keep_alive_timeout", value)]);
        assert_eq!(key, "srm.keep_alive_timeout");
        assert!(why.contains("\"90s\""), "{value}: {why}");
    }
}

#[test]
fn wrong_names_are_refused() {
    for bad in ["\"\"", "\"a b\"", "\"ä\"", "\"a/b\"", "\".\"", "\"-a\"", "\"a.\"", "\"1\"", "\"192.0.2.1\""]
    {
        assert_eq!(refusal(&[("node.name", bad)]).0, "node.name", "{bad}");
        assert_eq!(refusal(&[("peer.name", bad)]).0, "peer.name", "{bad}");
    }
    let long = |length: usize| format!("\"{}.x\"", "a".repeat(31) + "." + &"b".repeat(length - 34));
    assert_eq!(refusal(&[("node.name", &long(65))]).0, "node.name");
    assert!(load(&pair(&[("node.name", &long(64))])).is_ok());
    for same in ["\"a\"", "\"A\""] {
        let (key, why) = refusal(&[("peer.name", same)]);
        assert!(key == "peer.name" && why.contains("differ"), "{why}");
    }
}

#[test]
fn wrong_domains_are_refused() {
    for bad in ["[]", "[\"\"]", "[\"a@b\"]", "[\"b/c\"]", "[\"a.example\", \"A.example\"]"] {
        assert_eq!(refusal(&[("node.domains", bad)]).0, "node.domains", "{bad}");
    }
}

#[test]
fn wrong_mechanisms_are_refused() {
    assert_eq!(refusal(&[("c2s.mechanisms", "[]")]).0, "c2s.mechanisms");
    assert!(refusal(&[("c2s.mechanisms", "[\"DIGEST-MD5\"]")]).1.contains("SCRAM-SHA-256"));
    assert!(refusal(&[("c2s.mechanisms", "[\"SCRAM-SHA-256-PLUS\"]")]).1.contains("without -PLUS"));
    assert!(refusal(&[("c2s.mechanisms", "[\"PLAIN\"]")]).1.contains("plain = true"));
}

#[test]
fn plain_is_off_unless_asked_for_and_then_deserves_a_second_look() {
    let about_plain = |text: &str| {
        let config = load(text).unwrap();
        (config.c2s.plain, config.warnings().iter().any(|warning| warning.starts_with("c2s.plain")))
    };
    assert_eq!(about_plain(&pair(&[])), (false, false));
    assert_eq!(about_plain(&pair(&[("c2s.plain", "true")])), (true, true));
}

#[test]
fn ports_must_be_distinct_and_real() {
    assert!(refusal(&[("c2s.direct", "\"[::]:5222\"")]).1.contains("c2s.starttls too"));
    assert!(refusal(&[("link.listen", "\"[::]:20075\"")]).1.contains("admin.listen too"));
    let (key, why) = refusal(&[("admin.listen", "\"127.0.0.1:22002\"")]);
    assert!(key == "link.listen" && why.contains("life socket"), "{key}: {why}");
    assert_eq!(refusal(&[("c2s.starttls", "\"[::]:0\"")]).0, "c2s.starttls");
    assert_eq!(
        refusal(&[("link.listen", "\"[::]:65535\""), ("peer.link", "\"b.example:22001\"")]).0,
        "link.listen"
    );
    let (key, why) = refusal(&[("c2s.starttls", "5222")]);
    assert!(key == "c2s.starttls" && why.contains("in quotes"), "{key}: {why}");
}

#[test]
fn wrong_addresses_of_the_peer_are_refused() {
    for bad in ["\"\"", "\"b.example:5222\"", "\"xmpp://b\"", "\"b b\""] {
        assert_eq!(refusal(&[("peer.host", bad)]).0, "peer.host", "{bad}");
    }
    for bad in ["\"b.example\"", "\"b.example:0\"", "\":22001\"", "\"b:65536\""] {
        assert_eq!(refusal(&[("peer.link", bad), ("peer.beacon", "\"b:1\"")]).0, "peer.link", "{bad}");
        assert_eq!(refusal(&[("peer.beacon", bad)]).0, "peer.beacon", "{bad}");
    }
    assert_eq!(refusal(&[("peer.link", "\"b:65535\"")]).0, "peer.link");
    assert_eq!(refusal(&[("peer.c2s", "0")]).0, "peer.c2s");
}

#[test]
fn a_peer_without_a_link_is_refused() {
    let text = pair(&[]).replace("[link]", "[store]").replace("[store]\n[limits]", "[limits]");
    let text = text.split("[store]").next().unwrap().to_owned();
    let error = load(&text).unwrap_err();
    assert_eq!(error.faults()[0].key, "peer");
    assert!(error.to_string().contains("single node"), "{error}");
}

#[test]
fn secrets_that_cannot_be_used_are_refused() {
    assert!(refusal(&[("link.secret", "\"0123456789abcdef01234567\"")]).1.contains("24 hexadecimal digits"));
    assert!(refusal(&[("link.secret", "\"no-such-file\"")]).1.contains("cannot be read"));

    let dir = tempfile::tempdir().unwrap();
    let (path, secret) = (dir.path().join("tandem.toml"), dir.path().join("secret"));
    fs::write(&path, pair(&[("link.secret", "\"secret\"")])).unwrap();
    fs::write(&secret, "short\n").unwrap();
    mode(&secret, 0o600);
    assert!(Config::load(&path).unwrap_err().to_string().contains("64 hexadecimal digits"));
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let from_file = Config::load(&path).unwrap().link.unwrap().secret;
    assert_eq!(from_file, Secret::parse(SECRET).unwrap());
    mode(&secret, 0o644);
    let why = Config::load(&path).unwrap_err().to_string();
    assert!(why.contains("chmod 600"), "{why}");
}

#[test]
fn the_secret_is_never_shown() {
    let config = load(&pair(&[])).unwrap();
    assert!(!format!("{config:?}").contains("Secret([") && format!("{config:?}").contains("Secret(..)"));
    let secret = config.link.unwrap().secret;
    assert_ne!(secret.derive("beacon"), secret.derive("vouch"));
    assert_ne!(secret.cluster_id(), Secret::parse(&SECRET.replace("00", "ff")).unwrap().cluster_id());
}

#[test]
fn words_outside_a_list_are_refused() {
    for (key, good) in [
        ("link.commit", "peer-and-disk"),
        ("link.policy", "strict"),
        ("srm.user_assignment_mode", "active-standby"),
        ("store.engine", "sled"),
    ] {
        let (at, why) = refusal(&[(key, "\"nonsense\"")]);
        assert!(at == key && why.contains(good), "{at}: {why}");
        assert!(load(&pair(&[(key, &format!("\"{good}\""))])).is_ok());
    }
}

#[test]
fn srm_ranges_are_checked() {
    for (name, low, high) in [
        ("critical_service_delay", "9s", "601s"),
        ("automatic_fallback_after", "0s", "25h"),
        ("force_failover_clients", "0", "1001"),
        ("automatic_failovers_per_hour", "0", "61"),
    ] {
        for value in [low, high] {
            let key = format!("srm.{name}");
            let value = if value.ends_with(['s', 'h']) { format!("{value:?}") } else { value.to_owned() };
            let (at, why) = refusal(&[(&key, &value)]);
            assert!(at == key && why.contains("is not within"), "{at}: {why}");
        }
    }
    assert_eq!(refusal(&[("srm.keep_alive_interval", "\"900ms\"")]).0, "srm.keep_alive_interval");
    let (at, why) = refusal(&[("srm.client_re_login_upper_limit", "\"7201s\"")]);
    assert!(at == "srm.client_re_login_upper_limit" && why.contains("is not within"), "{at}: {why}");
}

#[test]
fn srm_combinations_are_checked() {
    let (key, why) = refusal(&[("srm.keep_alive_timeout", "\"59s\"")]);
    assert!(key == "srm.keep_alive_timeout" && why.contains("4 times") && why.contains("60s"), "{why}");
    let quick = [("srm.keep_alive_interval", "\"1s\""), ("srm.keep_alive_timeout", "\"6s\"")];
    assert!(refusal(&quick).1.contains("twice the lease"));
    assert!(load(&pair(&[quick[0], ("srm.keep_alive_timeout", "\"6100ms\"")])).is_ok());
    let (key, why) = refusal(&[("srm.initialization_keep_alive_timeout", "\"59s\"")]);
    assert!(
        key == "srm.initialization_keep_alive_timeout" && why.contains("less than keep_alive_timeout"),
        "{why}"
    );
    let (key, why) = refusal(&[("srm.client_re_login_lower_limit", "\"538s\"")]);
    assert!(key == "srm.client_re_login_lower_limit" && why.contains("more than"), "{why}");
    for bad in ["\"03:00\"", "\"03:00-24:00\"", "\"3-6\"", "\"03:00-03:00\""] {
        assert_eq!(refusal(&[("srm.scheduled_fallback_window", bad)]).0, "srm.scheduled_fallback_window");
    }
}

#[test]
fn limits_are_checked() {
    for (name, value) in [
        ("unauthenticated_per_address", "0"),
        ("unauthenticated_per_address", "2001"),
        ("login_timeout", "\"0s\""),
        ("login_timeout", "\"11min\""),
        ("tcp_timeout", "\"0s\""),
        ("tcp_timeout", "\"2h\""),
        ("queued_bytes", "1000"),
        ("credits", "0"),
        ("stanza_bytes", "9999"),
        ("stanza_bytes", "262145"),
        ("connections_per_account", "3"),
        ("before_login_bytes", "4095"),
        ("before_login_bytes", "32769"),
        ("before_login_elements", "15"),
        ("bytes_per_second", "999"),
        ("stanzas_per_second", "0"),
        ("connections_per_minute", "9"),
        ("failed_logins_per_minute", "0"),
        ("sessions_per_account", "0"),
        ("session_stanzas", "99"),
        ("session_bytes", "262143"),
        ("offline_messages", "1000001"),
        ("offline_bytes", "1073741825"),
        ("roster_items", "9"),
        ("directed_presences", "0"),
        ("resume_timeout", "\"9s\""),
        ("resume_timeout", "\"25h\""),
    ] {
        let key = format!("limits.{name}");
        assert_eq!(refusal(&[(&key, value)]).0, key, "{value}");
    }
    assert_eq!(refusal(&[("limits.unauthenticated", "0")]).0, "limits.unauthenticated");
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let text = pair(&[("node.name", "\"\""), ("c2s.mechanisms", "[]"), ("srm.keep_alive_timeout", "\"1s\"")]);
    let keys: Vec<String> = load(&text).unwrap_err().faults().iter().map(|fault| fault.key.clone()).collect();
    assert_eq!(keys, ["node.name", "c2s.mechanisms", "srm.keep_alive_timeout"]);
}

#[test]
fn a_window_may_span_midnight() {
    let window = Window::try_from("23:30-01:00".to_owned()).unwrap();
    assert!(
        window.contains(23 * 60 + 30) && window.contains(0) && !window.contains(60) && !window.contains(720)
    );
    let window = Window::try_from("03:00-06:00".to_owned()).unwrap();
    assert!(window.contains(180) && window.contains(359) && !window.contains(360) && !window.contains(0));
}

#[test]
fn the_hash_is_of_the_clusterwide_settings() {
    let a = load(&pair(&[])).unwrap();
    let b = load(&pair(&[
        ("node.name", "\"b\""),
        ("peer.name", "\"a\""),
        ("peer.host", "\"a.example\""),
        ("c2s.starttls", "\"[::]:15222\""),
        ("link.listen", "\"[::]:23001\""),
        ("srm.client_re_login_upper_limit", "\"600s\""),
        ("limits.credits", "64"),
    ]));
    let b = b.unwrap();
    assert_eq!((a.index(), b.index()), (0, 1));
    assert_eq!(a.hash(), b.hash());
    for edit in [
        ("link.commit", "\"peer-and-disk\""),
        ("srm.critical_service_delay", "\"91s\""),
        ("node.domains", "[\"other.example\"]"),
        ("limits.resume_timeout", "\"301s\""),
    ] {
        assert_ne!(load(&pair(&[edit])).unwrap().hash(), a.hash(), "{edit:?}");
    }
}

/// Without its first default a new setting would be a difference of two versions while nobody has set it, and no node would fail
/// over by itself during an upgrade. One whose default has changed keeps its first one, and is left out here.
#[test]
fn a_setting_at_its_default_counts_for_nothing_in_the_hash() {
    for (key, value) in load(&pair(&[])).unwrap().clusterwide() {
        match first_default(key) {
            Some(first) => assert_eq!(value, first, "{key}"),
            None => assert!(["node names", "node.domains"].contains(&key), "{key} has no first default"),
        }
    }
}

#[test]
fn what_deserves_a_second_look_is_a_warning() {
    let warning = |edits: &[(&str, &str)]| load(&pair(edits)).unwrap().warnings().join("\n");
    assert!(warning(&[("admin.listen", "\"0.0.0.0:20075\"")]).contains("without TLS"));
    assert!(warning(&[("srm.client_re_login_lower_limit", "\"1s\"")]).contains("does not follow"));
    // Who has no standby does not wait for these limits (see docs/dual-connection.md).
    let words = warning(&[("srm.client_re_login_lower_limit", "\"1s\"")]);
    assert!(words.contains("standby streams are made anew"), "{words}");
    // Computed limits begin at 10 s, whatever is set.
    let computed = ("srm.client_re_login_limits", "\"computed\"");
    assert!(warning(&[computed]).contains("from 10s on, before critical_service_delay (90s)"));
    let both = warning(&[computed, ("srm.client_re_login_lower_limit", "\"1s\"")]);
    assert!(both.contains("from 1s on") && !both.contains("does not follow"), "{both}");
    assert_eq!(warning(&[computed, ("srm.critical_service_delay", "\"10s\"")]), "");
    assert!(warning(&[("srm.disable_automatics", "true")]).contains("operator"));
}

#[test]
fn the_named_file_is_taken_and_a_missing_one_is_told() {
    assert_eq!(find(Some(Path::new("x.toml"))).unwrap(), Path::new("x.toml"));
    let error = Config::load(Path::new("no/such.toml")).unwrap_err().to_string();
    assert!(error.starts_with("no/such.toml: cannot be read"), "{error}");
}

#[test]
fn the_admin_part_is_read_from_a_damaged_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tandem.toml");
    fs::write(&path, pair(&[("node.name", "\"\""), ("admin.listen", "\"127.0.0.1:1234\"")])).unwrap();
    let access = admin_access(&path).unwrap();
    assert_eq!(access.address.port(), 1234);
    assert_eq!(access.token_file, dir.path().join("admin.token"));
}

#[test]
fn tokens_are_read_from_private_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    assert!(read_token(&path).unwrap_err().contains("cannot be read"));
    fs::write(&path, "0123456789abcdef\n").unwrap();
    mode(&path, 0o604);
    assert!(read_token(&path).unwrap_err().contains("chmod 600"));
    mode(&path, 0o600);
    assert_eq!(read_token(&path).unwrap(), "0123456789abcdef");
    for bad in ["", "short", "0123456789 abcdef"] {
        fs::write(&path, bad).unwrap();
        assert!(read_token(&path).unwrap_err().contains("does not hold a token"));
    }
}

fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_may_change_at_once_does_and_the_rest_waits() {
    let before = load(&pair(&[])).unwrap();
    let text =
        pair(&[("limits.credits", "7"), ("store.engine", "\"redb\""), ("srm.keep_alive_timeout", "\"61s\"")]);
    let (followed, change) = before.follow(load(&text).unwrap());
    assert_eq!(change.taken, ["limits.credits", "srm.keep_alive_timeout"]);
    assert_eq!(change.restart, ["store.engine"]);
    assert_eq!((followed.limits.credits, followed.store.engine), (7, Engine::Sled));
    // What waits is still told the next time, and what was taken up is not.
    let (_, change) = followed.follow(load(&text).unwrap());
    assert!(change.taken.is_empty());
    assert_eq!(change.restart, ["store.engine"]);
}

/// `TANDEM_WRITE_DOCS=1` writes the page anew.
#[test]
fn the_reference_is_what_the_comments_beside_the_settings_say() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    if std::env::var_os("TANDEM_WRITE_DOCS").is_some() {
        fs::write(&page, reference()).unwrap();
    }
    let written = fs::read_to_string(&page).unwrap_or_default();
    assert!(written == reference(), "write it anew: TANDEM_WRITE_DOCS=1 cargo test -p srm reference");
    for section in ["node", "peer", "c2s", "link", "srm", "admin", "store", "limits"] {
        assert!(written.contains(&format!("## `[{section}]`")), "{section}");
    }
    assert!(written.contains("## `[[notify]]`\n\nWho is told"));
    assert!(
        written.lines().filter(|line| line.starts_with("| `")).all(|line| line.split(" | ").count() == 3)
    );
}

#[test]
fn one_setting_is_changed_and_all_else_stays_as_it_was_written() {
    use edit::{change, is_clusterwide};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tandem.toml");
    let text =
        pair(&[("srm.keep_alive_timeout", "\"70s\" # long enough")]).replace("[srm]", "# of ours\n[srm]");
    fs::write(&path, &text).unwrap();
    let set = |key: &str, value: Option<&str>| change(&path, key, value);

    let done = set("srm.keep_alive_timeout", Some("90s")).unwrap();
    assert_eq!(done.before.as_deref(), Some("\"70s\""));
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "not yet");
    done.write(&path).unwrap();
    let now = fs::read_to_string(&path).unwrap();
    assert_eq!(now, text.replace("\"70s\"", "\"90s\""));
    assert_eq!(Config::load(&path).unwrap().srm.keep_alive_timeout, Duration::from_secs(90));

    let done = set("srm.enable_automatic_fallback", Some("true")).unwrap();
    assert_eq!(done.before, None);
    done.write(&path).unwrap();
    assert!(Config::load(&path).unwrap().srm.enable_automatic_fallback);
    set("srm.enable_automatic_fallback", None).unwrap().write(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), now);
    // Sections that are not there yet, numbers, lists, and text that looks like nothing else.
    for (key, value) in [
        ("store.checkpoint_frames", "500"),
        ("c2s.mechanisms", "[\"SCRAM-SHA-256\"]"),
        ("srm.scheduled_fallback_window", "22:00-02:30"),
        ("srm.user_assignment_mode", "active-standby"),
    ] {
        set(key, Some(value)).unwrap().write(&path).unwrap();
    }
    let config = Config::load(&path).unwrap();
    assert_eq!(
        (config.store.checkpoint_frames, config.srm.scheduled_fallback_window.from_min),
        (500, 22 * 60)
    );

    let refused = |key, value| {
        let unfit = set(key, Some(value)).unwrap_err();
        format!("{} | {}", unfit.problem, unfit.hint)
    };
    let before = fs::read_to_string(&path).unwrap();
    let told = refused("srm.keep_alive_interval", "100s");
    assert!(told.starts_with("srm.keep_alive_interval: 100s is not within 1s to 60s"), "{told}");
    let told = refused("srm.keep_alive_timeout", "20s");
    assert!(told.contains("keep_alive_interval"), "{told}");
    assert!(refused("srm.keep_alive_timeout", "soon").contains("keep_alive_timeout"));
    assert!(refused("srm.keepalive", "1s").starts_with("there is no setting srm.keepalive"));
    assert!(refused("link.secret", "00").contains("tandem renew secret"));
    assert!(refused("notify.1.to", "x").contains("edit the file"));
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    let clusterwide = |key| is_clusterwide(key).unwrap();
    assert!(clusterwide("srm.keep_alive_timeout") && !clusterwide("srm.client_re_login_upper_limit"));
}

#[test]
fn settings_are_listed_with_their_defaults() {
    let config = load(&pair(&[("srm.keep_alive_timeout", "\"70s\"")])).unwrap();
    let list = config.list();
    let of = |key: &str| list.iter().find(|setting| setting.key == key).unwrap();
    let timeout = of("srm.keep_alive_timeout");
    assert_eq!((timeout.value.as_str(), timeout.default.as_deref()), ("\"1m 10s\"", Some("\"1m\"")));
    assert!(timeout.clusterwide && !timeout.restart);
    let engine = of("store.engine");
    assert_eq!(engine.default.as_ref(), Some(&engine.value));
    assert!(engine.restart && !engine.clusterwide);
    assert!(list.iter().all(|setting| !setting.key.contains("secret")), "{list:?}");
    // Whatever must be equal by the hash says so in its comment, and nothing else does.
    let hashed: std::collections::BTreeSet<&str> =
        config.clusterwide().into_iter().map(|(key, _)| key).filter(|key| key.contains('.')).collect();
    let told =
        list.iter().filter(|setting| setting.clusterwide).map(|setting| setting.key.as_str()).collect();
    assert_eq!(hashed, told);
}
