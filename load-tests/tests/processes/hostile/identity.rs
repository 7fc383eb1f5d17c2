//! Who is who: identities, channel binding, and what a server gives away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use load_tests::siege::{Attacker, HEADER, MALLORY, Siege, payload};
use srm::demo::pair::PASSWORD;
use xmpp_core::sasl::{ClientBinding, ScramClient, ScramHash, downgrade_check};

const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";

/// Nobody becomes somebody else, by authzid, NULs, an address in the header, or at binding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_identity() {
    let siege = Siege::begin(1, &[("c2s.plain", "true")]).await;
    for authzid in
        ["u0", "u0@demo.example", "mallory@other.example", "mallory@demo.example/x", "u0@demo.example\0"]
    {
        let mut one = siege.open(0).await;
        let said = one.auth("PLAIN", format!("{authzid}\0{MALLORY}\0{PASSWORD}").as_bytes()).await;
        assert!(said.contains("<failure"), "{authzid:?}: {said}");
        if !authzid.contains('\0') {
            let said = one.auth("SCRAM-SHA-1", format!("n,a={authzid},n={MALLORY},r=abc").as_bytes()).await;
            assert!(said.contains("<invalid-authzid/>"), "{authzid}: {said}");
        }
    }
    for trick in [
        format!("{MALLORY}\0{PASSWORD}"),
        format!("\0{MALLORY}\0{PASSWORD}\0u0"),
        format!("\0u0\0{MALLORY}\0{PASSWORD}"),
        format!("\0{MALLORY}\u{0}\u{0}{PASSWORD}"),
        format!("\0u0@demo.example/{MALLORY}\0{PASSWORD}x"),
        format!("\0{MALLORY}@demo.example\0{PASSWORD}"),
    ] {
        let said = siege.open(0).await.auth("PLAIN", trick.as_bytes()).await;
        assert!(said.contains("<failure"), "{trick:?}: {said}");
    }
    // The own address as authzid is fine, and the session is that of the name that was proved.
    let mut one = siege.open(0).await;
    let own = format!("{MALLORY}@demo.example\0{MALLORY}\0{PASSWORD}");
    assert!(one.auth("PLAIN", own.as_bytes()).await.starts_with("<success"));
    one.say(&format!("{HEADER}{BIND}")).await;
    assert!(one.until("</iq>").await.contains("<jid>mallory@demo.example/"));
    // Somebody else's address in the header after the login.
    let mut one = siege.open(0).await;
    one.scram_in().await;
    one.dies_of(HEADER.replace("to=", "from='u0@demo.example' to=").as_bytes(), "invalid-from").await;
    siege.end().await;
}

/// -PLUS and its types of binding; every flag where it lies is refused; PLAIN is off by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_channel_binding() {
    let siege = Siege::begin(1, &[]).await;
    let mut one = Attacker::secure(siege.direct(0), siege.tls()).await;
    one.say(HEADER).await;
    let features = one.until("</stream:features>").await;
    let offered = |name: &str| features.contains(&format!("<mechanism>{name}</mechanism>"));
    for hash in ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"] {
        assert!(offered(hash) && offered(&format!("{hash}-PLUS")), "{features}");
    }
    assert!(features.contains("<channel-binding type='tls-exporter'/>") && !offered("PLAIN"), "{features}");
    assert!(one.auth("PLAIN", b"\0mallory\0x").await.contains("<invalid-mechanism/>"));
    for hash in ScramHash::ALL {
        let mut one = siege.open(0).await;
        let bound = ClientBinding::Exporter(one.exporter());
        let last = one.scram(hash, bound, MALLORY, PASSWORD).await;
        assert!(last.starts_with("<success"), "{last}");
        let mut one = siege.open(0).await;
        let bound = ClientBinding::EndPoint(one.end_point());
        let last = one.scram(hash, bound, MALLORY, PASSWORD).await;
        assert!(last.starts_with("<success"), "{last}");
    }
    // Another certificate than the one that was shown.
    let other = ClientBinding::EndPoint(vec![7; 32].into());
    let last = siege.open(0).await.scram(ScramHash::Sha256, other, MALLORY, PASSWORD).await;
    assert!(last.contains("<not-authorized/>"), "{last}");
    // What was offered is told again inside the exchange, where nobody between can change it (XEP-0474).
    let all = |open: &str, close: &str| {
        let parts = features.split(open).skip(1);
        parts.map(|part| part.split_once(close).expect("an end").0.to_owned()).collect::<Vec<_>>()
    };
    let (names, types) = (all("<mechanism>", "<"), all("<channel-binding type='", "'"));
    assert_eq!(types, ["tls-exporter", "tls-server-end-point"]);
    for hash in ScramHash::ALL {
        let seen = downgrade_check(hash, names.iter().map(String::as_str), types.iter().map(String::as_str));
        let challenge = siege.open(0).await.challenge_for(hash, MALLORY).await;
        assert!(challenge.ends_with(&format!(",h={seen}")), "{challenge}");
    }
    // Somebody between has a connection of its own to the server, and passes on what the client says on the other.
    let (mut between, to_client) = (siege.open(0).await, siege.open(0).await);
    let deceived = ClientBinding::Exporter(to_client.exporter());
    let last = between.scram(ScramHash::Sha256, deceived, MALLORY, PASSWORD).await;
    assert!(last.contains("<not-authorized/>"), "{last}");
    for (mechanism, flag) in [
        ("SCRAM-SHA-256", "y"),
        ("SCRAM-SHA-256", "p=tls-exporter"),
        ("SCRAM-SHA-256-PLUS", "n"),
        ("SCRAM-SHA-256-PLUS", "y"),
        ("SCRAM-SHA-256-PLUS", "p=tls-unique"),
        ("SCRAM-SHA-256", "p=tls-server-end-point"),
    ] {
        let first = format!("{flag},,n={MALLORY},r=abcdefgh");
        let said = siege.open(0).await.auth(mechanism, first.as_bytes()).await;
        assert!(said.contains("<not-authorized/>"), "{mechanism} {flag}: {said}");
    }
    // The flag is part of what is proved: it cannot be changed on the way.
    let mut one = siege.open(0).await;
    let mut scram =
        ScramClient::new(ScramHash::Sha256, ClientBinding::NotOffered, MALLORY, PASSWORD, [1; 18]).unwrap();
    let first = String::from_utf8(scram.first()).unwrap().replacen('y', "n", 1);
    let challenge = one.auth("SCRAM-SHA-256", first.as_bytes()).await;
    let response = scram.respond(&payload(&challenge)).unwrap();
    assert!(one.response(&response).await.contains("<not-authorized/>"));
    // Below TLS 1.3 there is no binding to offer.
    let mut old = Attacker::secure(siege.direct(0), siege.tls12()).await;
    old.say(HEADER).await;
    let features = old.until("</stream:features>").await;
    assert!(features.contains("SCRAM-SHA-256</mechanism>"), "{features}");
    assert!(!features.contains("-PLUS") && !features.contains("channel-binding"), "{features}");
    let last = old.scram(ScramHash::Sha256, ClientBinding::NotOffered, MALLORY, PASSWORD).await;
    assert!(last.starts_with("<success"), "{last}");
    siege.end().await;
}

/// Stream ids, nonces, SM-IDs and resources: long, never twice, and without a bit that can be foretold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_random_numbers() {
    let siege = Siege::begin(1, &[]).await;
    let between = |text: &str, from: &str, to: &str| {
        let rest = text.split_once(from).unwrap_or_else(|| panic!("no {from} in {text}")).1;
        rest.split_once(to).expect("an end").0.to_owned()
    };
    let mut seen: [Vec<String>; 4] = Default::default();
    for _ in 0..128 {
        let mut one = Attacker::secure(siege.direct(0), siege.tls()).await;
        one.say(HEADER).await;
        seen[0].push(between(&one.until("</stream:features>").await, " id='", "'"));
        let challenge = one.challenge_for(ScramHash::Sha1, "nobody").await;
        seen[1].push(between(&challenge, "r=abcdefghijklmnop", ","));
        one.say("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
        one.until("</failure>").await;
        one.scram_in().await;
        one.say(&format!("{HEADER}{BIND}<enable xmlns='urn:xmpp:sm:3' resume='true'/>")).await;
        let said = one.until("<enabled ").await + &one.until(">").await;
        seen[2].push(between(&said, "<jid>mallory@demo.example/", "<"));
        seen[3].push(between(said.rsplit_once("<enabled").unwrap().1, " id='", "'"));
        one.say("</stream:stream>").await;
    }
    for (kind, least, values) in [
        ("stream id", 22, &seen[0]),
        ("nonce", 22, &seen[1]),
        ("resource", 12, &seen[2]),
        ("SM-ID", 22, &seen[3]),
    ] {
        assert_eq!(values.iter().collect::<BTreeSet<_>>().len(), values.len(), "a {kind} came twice");
        assert!(values.iter().all(|value| value.len() >= least), "a {kind} is short: {values:?}");
        // No character position is always the same: 128 draws of a random one have many values.
        for at in 0..least {
            let kinds = values.iter().map(|value| value.as_bytes()[at]).collect::<BTreeSet<_>>();
            assert!(kinds.len() >= 8, "character {at} of a {kind} takes {} values only", kinds.len());
        }
    }
    siege.end().await;
}

/// An account that does not exist answers like one that does: same mechanisms, same shape, same words, same time, always
/// the same, on both nodes, and after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s17_user_enumeration() {
    let settings = [("c2s.plain", "true"), ("limits.failed_logins_per_minute", "100000")];
    let siege = Siege::begin_alone(2, &settings).await;
    let salt_and_rounds = |challenge: &str| {
        let rest = challenge.split_once(",s=").expect("a salt").1;
        rest.split_once(",h=").expect("what was offered").0.to_owned()
    };
    for hash in ScramHash::ALL {
        let mut all = BTreeSet::new();
        for node in [0, 1, 0] {
            let mut one = siege.open(node).await;
            let real = salt_and_rounds(&one.challenge_for(hash, MALLORY).await);
            let mut one = siege.open(node).await;
            let made_up = salt_and_rounds(&one.challenge_for(hash, "nobody").await);
            assert_eq!(made_up.len(), real.len());
            assert_eq!(made_up.split_once(",i=").unwrap().1, real.split_once(",i=").unwrap().1);
            all.insert((real, made_up));
        }
        assert_eq!(all.len(), 1, "the same on both nodes and each time: {all:?}");
    }
    // One salt for all hashes, as a real account has.
    let mut salts = BTreeSet::new();
    for hash in ScramHash::ALL {
        salts.insert(salt_and_rounds(&siege.open(0).await.challenge_for(hash, "nobody").await));
    }
    assert_eq!(salts.len(), 1, "{salts:?}");
    let mut words = BTreeSet::new();
    for user in [MALLORY, "nobody"] {
        let mut one = siege.open(0).await;
        words.insert(one.scram(ScramHash::Sha512, ClientBinding::Unsupported, user, "wrong").await);
        words.insert(one.auth("PLAIN", format!("\0{user}\0wrong").as_bytes()).await);
    }
    assert_eq!(words.len(), 1, "{words:?}");
    // The slow rounds of PLAIN are done for both: without them one would answer in a tenth of the time.
    let mut times: [Vec<Duration>; 2] = Default::default();
    for _ in 0..40 {
        for (user, times) in [MALLORY, "nobody"].into_iter().zip(&mut times) {
            let mut one = siege.open(0).await;
            let first = format!("\0{user}\0wrong");
            let begun = Instant::now();
            one.auth("PLAIN", first.as_bytes()).await;
            times.push(begun.elapsed());
        }
    }
    let [real, made_up] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 4].as_secs_f64()
    });
    assert!(made_up > real * 0.6 && real > made_up * 0.6, "{real} s and {made_up} s");
    siege.end().await;
}

/// Whatever a client claims, its stanzas come from its own full JID.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s18_from() {
    let siege = Siege::begin(1, &[]).await;
    let mut receiver = siege.session("receiver").await;
    let mut sender = siege.session("sender").await;
    let to = format!("to='{MALLORY}@demo.example/receiver'");
    for (n, claim) in [
        "from='u0@demo.example/sim'",
        "from=\"u0@demo.example\"",
        "from='demo.example'",
        "from=''",
        "from='not a jid@'",
        "xmlns:x='jabber:client' x:from='u0@demo.example'",
        "from='&#117;0@demo.example'",
    ]
    .into_iter()
    .enumerate()
    {
        sender.say(&format!("<message {claim} {to} id='m{n}'><body>x</body></message>")).await;
        sender.say(&format!("<message {to} id='end{n}'><body>x</body></message>")).await;
        let got = receiver.until(&format!("id='end{n}'")).await + &receiver.until("</message>").await;
        for stanza in got.split_inclusive("</message>").filter(|text| text.contains("<body>")) {
            assert_eq!(stanza.matches(" from='").count(), 1, "{stanza}");
            assert!(stanza.contains(" from='mallory@demo.example/sender'"), "{claim}: {stanza}");
        }
    }
    siege.end().await;
}
