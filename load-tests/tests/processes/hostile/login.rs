//! Before the login: what a stranger may cost.

use std::time::{Duration, Instant};

use load_tests::siege::{Attacker, HEADER, LIMIT, MALLORY, Siege};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use srm::demo::pair::PASSWORD;
use xmpp_core::sasl::{ClientBinding, ScramHash};

const AUTH: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>";

/// 8 KiB and 32 elements, 30 s that nothing extends (2 s here), so many connections from one address (8 here).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_before_the_login() {
    let settings = [("limits.login_timeout", "2s"), ("limits.unauthenticated_per_address", "8")];
    let siege = Siege::begin(1, &settings).await;
    let before = siege.rss(0);
    for attack in [
        format!("{AUTH}{}", "A".repeat(9_000)),
        format!("{AUTH}{}</auth>", "<a/>".repeat(32)),
        format!("{AUTH}{}", "<a>".repeat(9)),
        format!("<auth {}", "a".repeat(9_000)),
    ] {
        siege.open(0).await.dies_of(attack.as_bytes(), "policy-violation").await;
    }
    let header = format!("{} a='{}'>", HEADER.trim_end_matches('>'), "A".repeat(9_000));
    Attacker::clear(siege.starttls(0)).await.dies_of(header.as_bytes(), "policy-violation").await;
    // White space and good stanzas are no way around: all that is read before the login is limited.
    siege.open(0).await.dies_of(&[b' '; 70_000], "policy-violation").await;

    // Dripping keeps nobody in, with TLS or without, nor does saying nothing at all.
    let begun = Instant::now();
    let silent = Attacker::clear(siege.direct(0)).await;
    let (mut clear, mut secure) = (Attacker::clear(siege.starttls(0)).await, siege.open(0).await);
    clear.say(HEADER).await;
    while secure.say(" ").await && clear.say(" ").await {
        assert!(begun.elapsed() < LIMIT, "a drip keeps the connection open");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for mut one in [clear, secure, silent] {
        one.end().await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(2));

    // As many as are allowed, and one more.
    let mut crowd = Vec::new();
    for _ in 0..8 {
        let mut one = Attacker::clear(siege.starttls(0)).await;
        one.say(HEADER).await;
        one.until("</stream:features>").await;
        crowd.push(one);
    }
    let mut one_more = Attacker::clear(siege.starttls(0)).await;
    assert_eq!(one_more.end().await, "", "closed unread");
    drop(crowd.pop());
    // There is room again: the server notices by itself.
    let begun = Instant::now();
    loop {
        let mut next = Attacker::clear(siege.starttls(0)).await;
        next.say(HEADER).await;
        if next.end_or("</stream:features>").await {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "no room is made");
    }
    let grown = siege.rss(0).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    siege.end().await;
}

/// Too many connections in a minute from one address are closed unread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_connections_per_minute() {
    let siege = Siege::begin(1, &[("limits.connections_per_minute", "40")]).await;
    let mut refused = 0;
    for _ in 0..60 {
        let mut one = Attacker::clear(siege.starttls(0)).await;
        one.say(HEADER).await;
        refused += usize::from(!one.end_or("</stream:features>").await);
    }
    // The bystanders took a few of them.
    assert!((20..45).contains(&refused), "{refused} of 60 refused");
    siege.end().await;
}

/// Guessing is slow for an address, whatever the account; nobody's account is locked, and a good password is told
/// to come later, not that it is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_failed_logins_per_minute() {
    let siege = Siege::begin(1, &[("limits.failed_logins_per_minute", "10")]).await;
    let mut told = [0, 0];
    for guess in 0..20 {
        let mut one = siege.open(0).await;
        let user = if guess % 2 == 0 { MALLORY } else { "nobody" };
        let last = one.scram(ScramHash::Sha1, ClientBinding::Unsupported, user, "guess").await;
        told[usize::from(last.contains("<temporary-auth-failure/>"))] += 1;
        assert!(last.contains("<temporary-auth-failure/>") || last.contains("<not-authorized/>"), "{last}");
    }
    assert!(told[0] >= 10 && told[1] >= 8, "{told:?}");
    let begun = Instant::now();
    loop {
        let mut one = siege.open(0).await;
        let last = one.scram(ScramHash::Sha1, ClientBinding::Unsupported, MALLORY, PASSWORD).await;
        if last.starts_with("<success") {
            break;
        }
        assert!(last.contains("<temporary-auth-failure/>"), "a good password is never called wrong: {last}");
        assert!(begun.elapsed() < LIMIT, "the address stays shut out");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    siege.end().await;
}

/// TLS, then SASL, then binding (XEP-0170); nothing out of its turn, and nothing in the clear survives STARTTLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_feature_order() {
    let siege = Siege::begin(1, &[]).await;
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    let early = [
        bind,
        "<message to='u0@demo.example'><body>early</body></message>",
        "<presence/>",
        "<resume xmlns='urn:xmpp:sm:3' previd='00' h='0'/>",
        "<enable xmlns='urn:xmpp:sm:3'/>",
        "<standby xmlns='urn:tandem:dual:0' sm-id='00'/>",
        "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AAAA</response>",
    ];
    for attack in early {
        siege.open(0).await.dies_of(attack.as_bytes(), "not-authorized").await;
        let mut clear = Attacker::clear(siege.starttls(0)).await;
        clear.say(HEADER).await;
        assert!(!clear.until("</stream:features>").await.contains("mechanism"));
        clear.dies_of(attack.as_bytes(), "not-authorized").await;
    }
    let mut clear = Attacker::clear(siege.starttls(0)).await;
    clear.say(&format!("{HEADER}{AUTH}biwsbj1hLHI9YWJj</auth>")).await;
    clear.until("<encryption-required/>").await;
    // What came in the clear behind <starttls/> is gone: none of it is answered inside TLS.
    let mut clear = Attacker::clear(siege.starttls(0)).await;
    clear.say(HEADER).await;
    clear.until("</stream:features>").await;
    clear
        .say(&format!(
            "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{HEADER}<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' \
             mechanism='SCRAM-SHA-1'>biwsbj1pbmplY3RlZCxyPWFiYw==</auth>"
        ))
        .await;
    clear.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
    // The injected bytes are still in the socket where they were not read together with <starttls/>: then they are
    // no handshake, and the connection ends. Either way they mean nothing.
    if let Some(mut secure) = clear.try_upgrade(siege.tls()).await {
        secure.say(HEADER).await;
        let said = secure.until("</stream:features>").await;
        assert_eq!(said.matches("<stream:stream ").count(), 1, "{said}");
        assert!(!said.contains("challenge") && !said.contains("injected"), "{said}");
    }
    // After the login: a second login, another header, a stanza before binding.
    for attack in
        [&format!("{AUTH}biws</auth>"), "<presence/>", "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"]
    {
        siege.logged_in(0).await.dies_of(attack.as_bytes(), "not-authorized").await;
    }
    let again = siege.logged_in(0).await.end_of(HEADER.as_bytes()).await;
    assert!(again.contains("<stream:error>"), "{again}");
    siege.end().await;
}

/// Malformed logins never take anything down: thousands of them, near misses and noise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s32_login_path_crash() {
    let siege =
        Siege::begin(1, &[("c2s.plain", "true"), ("limits.failed_logins_per_minute", "100000")]).await;
    let pid = siege.rig.pair.pid(0);
    let before = siege.rss(0);
    let mut rng = StdRng::seed_from_u64(32);
    let mechanisms =
        ["SCRAM-SHA-512-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "ANONYMOUS", ""];
    let firsts: [&[u8]; 10] = [
        b"",
        b"n,,n=mallory,r=abc",
        b"y,,n=mallory,r=abc",
        b"p=tls-exporter,,n=mallory,r=abc",
        b"p=tls-unique,,n=mallory,r=abc",
        b"n,a=,n=,r=",
        b"\0mallory\0wrong",
        b"\0\0\0\0",
        b"n,,n==2C=3D,r=%00",
        b"n,,n=\xff\xfe,r=\xc0",
    ];
    for _ in 0..400 {
        let mut one = siege.open(0).await;
        // Three failures end the stream.
        for _ in 0..4 {
            let mut first = firsts[rng.random_range(0..firsts.len())].to_vec();
            for _ in 0..rng.random_range(0..3) {
                let at = rng.random_range(0..=first.len());
                first.insert(at, rng.random());
            }
            let mechanism = mechanisms[rng.random_range(0..mechanisms.len())];
            let Some(answer) = one.try_auth(mechanism, &first).await else { break };
            if answer.starts_with("<challenge") {
                let mut noise = vec![0; rng.random_range(0..200)];
                rng.fill_bytes(&mut noise);
                if rng.random() {
                    noise.splice(0..0, *b"c=biws,r=abc,p=");
                }
                if one.try_response(&noise).await.is_none() {
                    break;
                }
            } else {
                assert!(answer.starts_with("<failure"), "{answer}");
            }
        }
    }
    assert_eq!(siege.rig.pair.pid(0), pid);
    siege.logged_in(0).await;
    let grown = siege.rss(0).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    siege.end().await;
}

/// A node that was started alone does not know what the other has changed since: a password that does not fit is told to
/// come later, known account or not. One that fits gets in, and waits there for the node to find its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s17_a_password_is_not_called_wrong_by_a_node_that_may_have_missed_it() {
    let mut siege = Siege::begin(2, &[("link.policy", "strict")]).await;
    for node in 0..2 {
        siege.rig.kill(node);
    }
    siege.rig.pair.start(1).unwrap();
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(siege.direct(1)).await.is_err() {
        assert!(begun.elapsed() < LIMIT, "the node does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (user, password, wanted) in [
        (MALLORY, "changed elsewhere", "<temporary-auth-failure/>"),
        ("added-elsewhere", PASSWORD, "<temporary-auth-failure/>"),
        (MALLORY, PASSWORD, "<success "),
    ] {
        let mut one = siege.open(1).await;
        let last = one.scram(ScramHash::Sha256, ClientBinding::Unsupported, user, password).await;
        assert!(last.contains(wanted), "{user}: {last}");
    }
    siege.rig.pair.start(0).unwrap();
    siege.rig.until_paired(LIMIT);
    siege.rig.clients_go_on(LIMIT).await;
    // Now it knows; that is looked at a few times a second.
    let begun = Instant::now();
    loop {
        let mut one = siege.open(1).await;
        let last = one.scram(ScramHash::Sha256, ClientBinding::Unsupported, MALLORY, "wrong").await;
        if last.contains("<not-authorized/>") {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{last}");
    }
    siege.rig.settle().await;
}
