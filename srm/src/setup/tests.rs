//! What is made can be loaded, fits together, and is kept from others.

use std::os::unix::fs::PermissionsExt;

use xmpp_core::tls;

use super::*;

#[test]
fn a_pair_is_made_whole() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::local_pair("im.example", dir.path()).unwrap();
    let plan = plan.set("srm.client_re_login_lower_limit", "1s").set("srm.client_re_login_upper_limit", "3s");
    let made = plan.set("link.commit", "peer-and-disk").make().unwrap();
    let configs: Vec<Config> = made.nodes.iter().map(|node| Config::load(&node.config).unwrap()).collect();
    let [a, b] = configs.as_slice() else { panic!("two nodes") };

    assert_eq!(a.hash(), b.hash());
    assert_eq!((a.members(), a.index(), b.index()), (vec!["a", "b"], 0, 1));
    assert_eq!(a.srm.client_re_login_upper_limit.as_secs(), 3);
    assert_eq!(a.link.as_ref().unwrap().commit, crate::config::Commit::PeerAndDisk);
    let ((b_seen, a_link), (a_seen, b_link)) = (a.pair().unwrap(), b.pair().unwrap());
    assert_eq!(a_link.secret, b_link.secret);
    assert_eq!(b_seen.link, b_link.listen.to_string());
    assert_eq!(b_seen.life(), b_link.life().to_string());
    assert_eq!((b_seen.c2s, a_seen.c2s), (b.c2s.direct.port(), a.c2s.direct.port()));

    let token = |config: &Config| crate::config::read_token(&config.admin.token_file).unwrap();
    assert_ne!(token(a), token(b));
    for private in
        ["ca/ca.key", "a/c2s.key", "a/link.key", "a/secret", "a/admin.token", "b/link.key", "b/secret"]
    {
        let mode = fs::metadata(dir.path().join(private)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
}

#[test]
fn a_single_node_has_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let made = Plan::local_single("im.example", dir.path()).unwrap().make().unwrap();
    let config = Config::load(&made.nodes[0].config).unwrap();
    assert!(config.pair().is_none());
    assert!(!dir.path().join("a/secret").exists());
}

#[test]
fn the_ends_of_the_link_believe_each_other_and_no_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    Plan::local_pair("im.example", dir.path()).unwrap().make().unwrap();
    let identity = |node: &str, kind: &str| {
        let file = |end: &str| dir.path().join(node).join(format!("{kind}.{end}"));
        tls::Identity::load(&file("pem"), &file("key")).unwrap()
    };
    let authority = tls::Authority::load(&dir.path().join("b/ca.pem")).unwrap();
    let server = tls::link_server(&identity("b", "link"), &authority).unwrap();
    let dial = |identity: &tls::Identity, name: &'static str| {
        let client = tls::link_client(identity, &authority).unwrap();
        handshake(client, std::sync::Arc::clone(&server), name)
    };
    assert!(dial(&identity("a", "link"), "b").is_ok());
    assert!(dial(&identity("a", "link"), "a").is_err(), "not the node that was dialled");
    assert!(dial(&identity("a", "c2s"), "b").is_err(), "a certificate for clients opens no link");
    // Who only looks has seen the other's certificate when it is refused for having none.
    let look = tls::link_look(&authority).unwrap();
    assert!(handshake(look, std::sync::Arc::clone(&server), "b").is_err());
}

#[test]
fn clients_believe_the_certificate_under_every_name() {
    let dir = tempfile::tempdir().unwrap();
    let made = Plan::local_pair("im.example", dir.path()).unwrap().make().unwrap();
    let identity = tls::Identity::load(&dir.path().join("a/c2s.pem"), &dir.path().join("a/c2s.key")).unwrap();
    let server = tls::c2s_server(&identity, None).unwrap().config;
    let client = tls::c2s_client(&tls::Authority::load(&made.ca).unwrap()).unwrap();
    for name in ["im.example", "a", "b", "localhost", "127.0.0.1", "::1"] {
        let done = handshake(std::sync::Arc::clone(&client), std::sync::Arc::clone(&server), name);
        assert!(done.is_ok(), "{name}: {done:?}");
    }
}

/// A node's link as its files say.
fn link_of(dir: &Path, node: &str) -> (tls::Identity, tls::Authority) {
    let file = |name: &str| dir.join(node).join(name);
    let identity = tls::Identity::load(&file("link.pem"), &file("link.key")).unwrap();
    (identity, tls::Authority::load(&file("ca.pem")).unwrap())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let there = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &there) } else { _ = fs::copy(&path, &there).unwrap() }
    }
}

#[test]
fn an_authority_is_replaced_in_three_steps_and_the_nodes_believe_each_other_at_each() {
    let (dir, before) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Plan::local_pair("im.example", dir.path()).unwrap().make().unwrap();
    let first = fs::read_to_string(dir.path().join("ca/ca.pem")).unwrap();
    for step in 1..=3 {
        let kept = before.path().join(step.to_string());
        copy(dir.path(), &kept);
        assert_eq!(renew::authority(dir.path()).unwrap().step, (step, 3));
        // One of the two has taken the step up, the other has not yet.
        for (a, b) in [(dir.path(), kept.as_path()), (kept.as_path(), dir.path())] {
            for (dials, accepts, name) in [("a", "b", "b"), ("b", "a", "a")] {
                let ((identity, authority), (other, its_authority)) =
                    (link_of(a, dials), link_of(b, accepts));
                let client = tls::link_client(&identity, &authority).unwrap();
                let server = tls::link_server(&other, &its_authority).unwrap();
                let done = handshake(client, server, name);
                assert!(done.is_ok(), "step {step}: {dials} dials {accepts}: {done:?}");
            }
        }
        for node in ["a", "b"] {
            Config::load(&dir.path().join(node).join("tandem.toml")).unwrap().check_files().unwrap();
        }
    }
    let last = fs::read_to_string(dir.path().join("ca/ca.pem")).unwrap();
    assert!(!last.contains(first.trim()) && certs::certificates(&last).len() == 1);
    assert!(!dir.path().join("ca/next.key").exists());
    // And once more: what is there now is what is replaced.
    assert_eq!(renew::authority(dir.path()).unwrap().step, (1, 3));
    let mode = fs::metadata(dir.path().join("ca/next.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_secret_is_replaced_in_three_steps_and_the_cluster_stays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    Plan::local_pair("im.example", dir.path()).unwrap().make().unwrap();
    let secret = || {
        let config = Config::load(&dir.path().join("b/tandem.toml")).unwrap();
        config.link.unwrap().secret
    };
    let first = secret();
    let mut seen = vec![first.derive_all("test")];
    for step in 1..=3 {
        assert_eq!(renew::secret(dir.path()).unwrap().step, (step, 3));
        let (now, before) = (secret().derive_all("test"), seen.last().unwrap());
        assert!(now.contains(&before[0]) && before.contains(&now[0]), "step {step}");
        assert_eq!(secret().cluster_id(), first.cluster_id());
        seen.push(now);
    }
    assert!(seen[3].len() == 1 && seen[3] != seen[0]);
}

#[test]
fn new_certificates_bear_the_same_names_and_foreign_ones_are_left_alone() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Plan::local_pair("im.example", dir.path()).unwrap().make().unwrap();
    Plan::local_pair("im.example", other.path()).unwrap().make().unwrap();
    let file = |name: &str| dir.path().join(name);
    for name in ["c2s.pem", "c2s.key"] {
        fs::copy(other.path().join("b").join(name), file("b").join(name)).unwrap();
    }
    let read = |name: &str| fs::read_to_string(file(name)).unwrap();
    let (old, foreign) = (read("a/c2s.pem"), read("b/c2s.pem"));
    let done = renew::certificates(dir.path(), &renew::Names::default()).unwrap();
    assert!(!done.goes_on() && done.kept.len() == 1 && done.kept[0].contains("b/c2s.pem"), "{:?}", done.kept);
    assert_eq!(read("b/c2s.pem"), foreign);
    assert_ne!(read("a/c2s.pem"), old);
    assert_eq!(certs::names(&read("a/c2s.pem")), certs::names(&old));
    for node in ["a", "b"] {
        Config::load(&file(node).join("tandem.toml")).unwrap().check_files().unwrap();
    }
    // Without the authority's key there is nothing to sign with, and nothing is touched.
    fs::remove_file(file("ca/ca.key")).unwrap();
    let before = read("a/link.pem");
    let error = renew::certificates(dir.path(), &renew::Names::default()).unwrap_err().to_string();
    assert!(error.contains("ca/ca.key cannot be read"), "{error}");
    assert_eq!(read("a/link.pem"), before);
}

#[test]
fn a_node_gets_another_address_in_two_steps_between_which_certificates_stand_for_both() {
    let dir = tempfile::tempdir().unwrap();
    Plan::local_pair("im.example", dir.path()).unwrap().make().unwrap();
    let file = |name: &str| dir.path().join(name);
    let names = || certs::names(&fs::read_to_string(file("b/c2s.pem")).unwrap());
    let before = names();
    // The first is the domain, for which it always stands.
    let (rest, old) = (&before[..before.len() - 1], before[before.len() - 1].clone());
    let new = "c.example.org".to_owned();
    let change = |add: &[&String], drop: &[&String]| {
        let all = |names: &[&String]| names.iter().map(|name| (*name).clone()).collect();
        renew::certificates(dir.path(), &renew::Names { add: all(add), drop: all(drop) })
    };
    change(&[&new], &[]).unwrap();
    assert_eq!(names(), [&before[..], std::slice::from_ref(&new)].concat());
    change(&[&new], &[&old]).unwrap();
    assert_eq!(names(), [rest, std::slice::from_ref(&new)].concat());
    let error = change(&[], &[&old]).unwrap_err().to_string();
    assert!(error.contains(&format!("the certificate does not name {old}; it names ")), "{error}");
    assert_eq!(names(), [rest, std::slice::from_ref(&new)].concat());
    for node in ["a", "b"] {
        Config::load(&file(node).join("tandem.toml")).unwrap().check_files().unwrap();
    }
}

#[test]
fn what_is_added_to_the_trusted_authorities_stays() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Plan::local_pair("im.example", dir.path()).unwrap().make().unwrap();
    Plan::local_pair("im.example", other.path()).unwrap().make().unwrap();
    let added = fs::read_to_string(other.path().join("ca/ca.pem")).unwrap();
    let file = dir.path().join("a/ca.pem");
    fs::write(&file, format!("{}{added}", fs::read_to_string(&file).unwrap())).unwrap();
    for _ in 0..3 {
        renew::authority(dir.path()).unwrap();
        assert!(fs::read_to_string(&file).unwrap().contains(added.trim()));
    }
    assert_eq!(certs::certificates(&fs::read_to_string(&file).unwrap()).len(), 2);
}

#[test]
fn a_new_file_explains_every_setting_and_its_defaults_are_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let made = Plan::local_pair("im.example", dir.path()).unwrap().make().unwrap();
    let text = fs::read_to_string(&made.nodes[0].config).unwrap();
    // With every default written out, the file means the same.
    let spelled: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains([' ', '`'])) => rest,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(spelled.lines().count() == text.lines().count() && spelled != text);
    let written = Config::load(&made.nodes[0].config).unwrap();
    fs::write(&made.nodes[0].config, spelled).unwrap();
    let (_, change) = written.follow(Config::load(&made.nodes[0].config).unwrap());
    assert_eq!(change, crate::config::Change::default());
}

#[test]
fn nothing_that_is_there_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::local_pair("im.example", dir.path()).unwrap();
    plan.make().unwrap();
    let before = fs::read(dir.path().join("ca/ca.pem")).unwrap();
    assert!(matches!(plan.make(), Err(SetupError::Exists(_))));
    assert_eq!(fs::read(dir.path().join("ca/ca.pem")).unwrap(), before);
}

#[test]
fn an_override_that_breaks_a_rule_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::local_pair("im.example", dir.path()).unwrap().set("srm.keep_alive_timeout", "5s");
    let error = plan.make().unwrap_err().to_string();
    assert!(error.contains("srm.keep_alive_timeout") && error.contains("twice the lease"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left half made");
    let error =
        Plan::local("im.example", dir.path(), &["../a", "b"]).unwrap().make().unwrap_err().to_string();
    assert!(error.contains("node.name") && !dir.path().join("../a").exists(), "{error}");
}

#[test]
fn nodes_on_machines_of_their_own_take_the_standard_ports() {
    let dir = tempfile::tempdir().unwrap();
    let nodes =
        [("a", "a.example"), ("b", "2001:db8::7")].map(|(name, host)| (name.to_owned(), host.to_owned()));
    let made = Plan::remote("im.example", dir.path(), &nodes).make().unwrap();
    let text = fs::read_to_string(&made.nodes[0].config).unwrap();
    let config = Config::load(&made.nodes[0].config).unwrap();
    assert_eq!(config.peer.unwrap().link, "[2001:db8::7]:22001", "{text}");
    assert_eq!(config.c2s.direct, "[::]:5223".parse().unwrap());
}

#[test]
fn two_pairs_of_one_process_get_different_ports() {
    let (one, two) = (free_ports(2).unwrap(), free_ports(2).unwrap());
    assert_ne!(one, two);
    let all =
        one.iter().flat_map(|ports| [ports.starttls, ports.direct, ports.link, ports.life(), ports.admin]);
    let all: Vec<u16> = all.collect();
    assert!(all.iter().all(|port| *port < 32_768));
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 10);
}

#[test]
fn a_taken_port_means_the_next_thousand() {
    let ports = free_ports(2).unwrap();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", ports[1].admin)).unwrap();
    for _ in 0..20 {
        assert_ne!(free_ports(2).unwrap(), ports);
    }
}

/// A handshake in memory.
fn handshake(
    client: std::sync::Arc<rustls::ClientConfig>,
    server: std::sync::Arc<rustls::ServerConfig>,
    name: &'static str,
) -> Result<(), rustls::Error> {
    let mut client = rustls::ClientConnection::new(client, name.try_into().unwrap())?;
    let mut server = rustls::ServerConnection::new(server)?;
    for _ in 0..4 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

#[test]
fn a_pair_with_a_witness_asks_it() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::local_pair("im.example", dir.path()).unwrap().local_witness().unwrap();
    let made = plan.make().unwrap();
    let witness = config::WitnessConfig::load(made.witness.as_deref().unwrap()).unwrap();
    assert_eq!(witness.nodes, ["a", "b"]);
    for node in &made.nodes {
        let config = Config::load(&node.config).unwrap();
        assert_eq!(config.link.as_ref().unwrap().policy, config::Policy::Witness);
        assert_eq!(config.witness.as_ref().unwrap().address, witness.listen.to_string());
    }
    // Its certificate is renewed with the others.
    let before = fs::read(dir.path().join("witness/link.pem")).unwrap();
    renew::certificates(dir.path(), &renew::Names::default()).unwrap();
    assert_ne!(fs::read(dir.path().join("witness/link.pem")).unwrap(), before);
    config::WitnessConfig::load(made.witness.as_deref().unwrap()).unwrap();
}

#[test]
fn a_pair_that_exists_gets_a_witness_once_and_nothing_is_left_of_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let made = Plan::local_pair("im.example", dir.path()).unwrap().make().unwrap();
    let first = &made.nodes[0].config;
    let before = fs::read_to_string(first).unwrap();
    // The second node's file takes no setting: the first is as it was, and there is no witness.
    let second = &made.nodes[1].config;
    let sound = fs::read_to_string(second).unwrap();
    fs::write(second, sound.replace("[link]", "[link]\npolicy = \"strict\"\npolicy = \"strict\"")).unwrap();
    extend::witness(dir.path(), "127.0.0.1", 5391).unwrap_err();
    assert_eq!(fs::read_to_string(first).unwrap(), before);
    assert!(!dir.path().join("witness").exists());
    fs::write(second, &sound).unwrap();

    let error = extend::witness(dir.path(), "w. example", 5391).unwrap_err().to_string();
    assert!(error.contains("no host name"), "{error}");

    let done = extend::witness(dir.path(), "::1", 5391).unwrap();
    let witness = config::WitnessConfig::load(&done.witness).unwrap();
    assert_eq!((witness.nodes, witness.listen.port()), (["a".to_owned(), "b".to_owned()], 5391));
    for node in &made.nodes {
        let config = config::Config::load(&node.config).unwrap();
        config.check_files().unwrap();
        assert_eq!(config.pair().unwrap().1.policy, config::Policy::Witness);
        assert_eq!(config.witness.as_ref().unwrap().address, "[::1]:5391");
    }
    let error = extend::witness(dir.path(), "::1", 5391).unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");
    // Where the nodes keep their data, a service of the same name may write.
    let packaged = tempfile::tempdir().unwrap();
    let plan = Plan::local_pair("im.example", packaged.path()).unwrap();
    plan.set("node.data", "/var/lib/tandem").make().unwrap();
    let done = extend::witness(packaged.path(), "::1", 5391).unwrap();
    assert_eq!(config::WitnessConfig::load(&done.witness).unwrap().data, Path::new("/var/lib/tandem"));
    let single = tempfile::tempdir().unwrap();
    Plan::local_single("im.example", single.path()).unwrap().make().unwrap();
    let error = extend::witness(single.path(), "::1", 5391).unwrap_err().to_string();
    assert!(error.contains("only a pair"), "{error}");
}

#[test]
fn a_single_node_gets_a_peer_once_and_nothing_is_left_of_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::local_single("im.example", dir.path()).unwrap().set("srm.force_failover_clients", 7);
    let made = plan.make().unwrap();
    let (old, link) = (&made.nodes[0], SocketAddr::from(([127, 0, 0, 1], 5_401)));
    let ports = Ports { starttls: 5_402, direct: 5_403, link: 5_404, admin: 5_406 };
    let new = |name: &str| NodePlan { name: name.into(), host: "b.example".into(), listen: link.ip(), ports };
    let state = || {
        let files = ["tandem.toml", "c2s.pem", "c2s.key"]
            .map(|name| fs::read(dir.path().join("a").join(name)).unwrap());
        let names = fs::read_dir(dir.path().join("a")).unwrap().chain(fs::read_dir(dir.path()).unwrap());
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        (files, names)
    };
    let before = state();
    for (name, wanted) in
        [("A", "not behind a in the alphabet"), ("b c", "letters and digits"), ("ca", "is there already")]
    {
        let error = grow::pair(dir.path(), "a.example", link, &new(name)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{name}: {error}");
    }
    // What both files would say is refused: the first is as it was.
    let twice = NodePlan { ports: Ports { admin: ports.direct, ..ports }, ..new("b") };
    grow::pair(dir.path(), "a.example", link, &twice).unwrap_err();
    assert_eq!(state(), before);

    let done = grow::pair(dir.path(), "a.example", link, &new("b")).unwrap();
    assert_eq!((done.old, done.foreign), (old.config.clone(), None));
    let [a, b] = [&old.config, &done.new].map(|file| config::Config::load(file).unwrap());
    assert_eq!((a.index(), b.index()), (0, 1));
    let peer =
        |config: &config::Config| config.pair().map(|(peer, link)| (peer.clone(), link.secret.cluster_id()));
    let ((to_b, cluster), (to_a, same)) = (peer(&a).unwrap(), peer(&b).unwrap());
    assert_eq!((to_b.host.as_str(), to_a.host.as_str()), ("b.example", "a.example"));
    assert!(cluster == same && cluster != 0);
    assert_eq!(b.srm.force_failover_clients, 7, "what was set holds for both");
    for config in [&old.config, &dir.path().join("b/tandem.toml")] {
        let text = fs::read_to_string(config).unwrap();
        let (above, below) = text.split_once("[peer]").unwrap();
        assert!(above.contains("# unauthenticated = ") && !below.contains("# unauthenticated"), "{text}");
    }
    let names = certs::names(&fs::read_to_string(dir.path().join("b/c2s.pem")).unwrap());
    assert!(
        ["a.example", "b.example", "im.example"].iter().all(|name| names.contains(&(*name).to_owned())),
        "{names:?}"
    );
    let mode = fs::metadata(dir.path().join("b/secret")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let error = grow::pair(dir.path(), "a.example", link, &new("c")).unwrap_err().to_string();
    assert!(error.contains("has its second one already"), "{error}");
}

#[test]
fn a_certificate_of_another_authority_stays_when_a_node_gets_a_peer() {
    let dir = tempfile::tempdir().unwrap();
    Plan::local_single("im.example", dir.path()).unwrap().make().unwrap();
    let other = certs::Authority::make().unwrap().c2s(&["im.example".to_owned()]).unwrap();
    let file = dir.path().join("a/c2s.pem");
    fs::write(&file, &other.chain).unwrap();
    fs::write(dir.path().join("a/c2s.key"), &other.key).unwrap();
    let ports = Ports { starttls: 5_412, direct: 5_413, link: 5_414, admin: 5_416 };
    let listen = IpAddr::from([127, 0, 0, 1]);
    let new = NodePlan { name: "b".into(), host: "b.example".into(), listen, ports };
    let done = grow::pair(dir.path(), "a.example", (listen, 5_411).into(), &new).unwrap();
    assert_eq!(done.foreign.as_deref(), Some(&*file));
    for node in ["a", "b"] {
        assert_eq!(fs::read_to_string(dir.path().join(node).join("c2s.pem")).unwrap(), other.chain);
    }
}

/// A node in its own place, apart from the directory in which its pair is made.
#[test]
fn a_node_gets_its_peer_and_loses_it_and_keeps_everything_else() {
    let dir = tempfile::tempdir().unwrap();
    let place = tempfile::tempdir().unwrap();
    Plan::local_single("im.example", dir.path()).unwrap().make().unwrap();
    let file = place.path().join("tandem.toml");
    for name in ["tandem.toml", "c2s.pem", "c2s.key", "admin.token"] {
        fs::copy(dir.path().join("a").join(name), place.path().join(name)).unwrap();
    }
    let own =
        fs::read_to_string(&file).unwrap().replace("[srm]", "# Mine.\n[srm]\nkeep_alive_timeout = \"90s\"");
    fs::write(&file, &own).unwrap();
    let refused = |at: &Path| join::with_peer(at, dir.path()).unwrap_err().to_string();
    assert!(refused(&file).contains("it names no other node; make it first: `tandem extend pair a=HOST"));

    let ports = Ports { starttls: 5_432, direct: 5_433, link: 5_434, admin: 5_436 };
    let listen = IpAddr::from([127, 0, 0, 1]);
    let new = NodePlan { name: "b".into(), host: "b.example".into(), listen, ports };
    grow::pair(dir.path(), "a.example", (listen, 5_431).into(), &new).unwrap();
    let change = join::with_peer(&file, dir.path()).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), own, "nothing is written before it is said");
    assert_eq!(change.differences(), ["srm.keep_alive_timeout is 90s at a and 60s at b"]);
    change.write().unwrap();
    let written = fs::read_to_string(&file).unwrap();
    assert!(written.contains("# Mine.\n[srm]\nkeep_alive_timeout = \"90s\""), "{written}");
    let config = Config::load(&file).unwrap();
    config.check_files().unwrap();
    assert_eq!(config.hash(), change.config.hash());
    assert_eq!(config.peer.map(|peer| peer.name), Some("b".to_owned()));
    let mode = |name: &str| fs::metadata(place.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("link.key"), mode("secret"), mode("c2s.key")), (0o600, 0o600, 0o600));
    let clients = |of: &Path| fs::read_to_string(of.join("c2s.pem")).unwrap();
    assert_eq!(clients(place.path()), clients(&dir.path().join("b")), "both show one certificate");
    // Whoever was interrupted behind this does it again.
    join::with_peer(&file, dir.path()).unwrap().write().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), written);

    join::without_peer(&file).unwrap().write().unwrap();
    let config = Config::load(&file).unwrap();
    assert!(config.pair().is_none() && config.srm.keep_alive_timeout.as_secs() == 90);
    assert!(place.path().join("secret").exists(), "it may get a peer again");
    join::with_peer(&file, dir.path()).unwrap().write().unwrap();
    assert!(Config::load(&file).unwrap().pair().is_some());

    let other = fs::read_to_string(&file).unwrap().replace("im.example", "other.example");
    fs::write(&file, other).unwrap();
    assert!(refused(&file).contains("it is for the domain other.example"));
}

/// Whichever of the two the operator has from elsewhere: what clients are shown at the node is what they were shown before.
#[test]
fn a_certificate_from_elsewhere_stays_when_a_node_in_its_own_place_gets_its_peer() {
    for made_too in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let place = tempfile::tempdir().unwrap();
        Plan::local_single("im.example", dir.path()).unwrap().make().unwrap();
        for name in ["tandem.toml", "c2s.pem", "c2s.key", "admin.token"] {
            fs::copy(dir.path().join("a").join(name), place.path().join(name)).unwrap();
        }
        let ours = fs::read_to_string(place.path().join("c2s.pem")).unwrap();
        let other = certs::Authority::make().unwrap().c2s(&["im.example".to_owned()]).unwrap();
        let foreign = if made_too { dir.path().join("a") } else { place.path().to_owned() };
        fs::write(foreign.join("c2s.pem"), &other.chain).unwrap();
        fs::write(foreign.join("c2s.key"), &other.key).unwrap();
        let kept = ["c2s.pem", "c2s.key"].map(|name| fs::read_to_string(place.path().join(name)).unwrap());

        let ports = Ports { starttls: 5_442, direct: 5_443, link: 5_444, admin: 5_446 };
        let listen = IpAddr::from([127, 0, 0, 1]);
        let new = NodePlan { name: "b".into(), host: "b.example".into(), listen, ports };
        grow::pair(dir.path(), "a.example", (listen, 5_441).into(), &new).unwrap();
        let made = fs::read_to_string(dir.path().join("a/c2s.pem")).unwrap();
        assert!(made != kept[0] && ours != other.chain, "it is made anew, and must not come here");
        let file = place.path().join("tandem.toml");
        join::with_peer(&file, dir.path()).unwrap().write().unwrap();
        assert!(Config::load(&file).unwrap().pair().is_some() && place.path().join("link.pem").exists());
        let now = ["c2s.pem", "c2s.key"].map(|name| fs::read_to_string(place.path().join(name)).unwrap());
        assert!(now == kept, "{made_too}: another certificate than before");
    }
}
