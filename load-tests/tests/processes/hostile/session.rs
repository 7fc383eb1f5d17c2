//! After the login: stream management, standby streams, and too many of anything.

use std::time::{Duration, Instant};

use load_tests::siege::{Attacker, LIMIT, MALLORY, Siege, VICTIM};
use srm::demo::pair::DOMAIN;

const SM: &str = "urn:xmpp:sm:3";

/// The SM-ID in `<enabled/>`.
fn sm_id(enabled: &str) -> String {
    let rest = enabled.split_once(" id='").expect("an id").1;
    rest.split_once('\'').expect("an end").0.to_owned()
}

async fn enabled(session: &mut Attacker) -> String {
    session.say(&format!("<enable xmlns='{SM}' resume='true'/>")).await;
    session.until("<enabled ").await;
    sm_id(&format!("<enabled {}", session.until(">").await))
}

/// Counts that cannot be, and sessions of others. Whether an SM-ID exists is nobody's to learn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s29_stream_management() {
    let siege = Siege::begin(1, &[]).await;
    for h in ["1", "1000000"] {
        let mut one = siege.session("x").await;
        enabled(&mut one).await;
        let said = one.dies_of(format!("<a xmlns='{SM}' h='{h}'/>").as_bytes(), "undefined-condition").await;
        assert!(
            said.contains(&format!("<handled-count-too-high xmlns='{SM}' h='{h}' send-count='0'/>")),
            "{said}"
        );
    }
    // One less than nothing, since counters wrap.
    let mut one = siege.session("x").await;
    enabled(&mut one).await;
    one.dies_of(format!("<a xmlns='{SM}' h='4294967295'/>").as_bytes(), "undefined-condition").await;
    // Backwards, after two stanzas were acknowledged.
    let mut one = siege.session("x").await;
    enabled(&mut one).await;
    for n in 0..2 {
        one.say(&format!("<iq type='get' id='p{n}'><ping xmlns='urn:xmpp:ping'/></iq>")).await;
        one.until(&format!("id='p{n}'")).await;
    }
    one.say(&format!("<a xmlns='{SM}' h='2'/>")).await;
    one.dies_of(format!("<a xmlns='{SM}' h='1'/>").as_bytes(), "undefined-condition").await;
    // Twice, and numbers that are none.
    let mut one = siege.session("x").await;
    enabled(&mut one).await;
    one.say(&format!("<enable xmlns='{SM}' resume='true'/>")).await;
    one.until("<unexpected-request ").await;
    for bad in ["-1", "4294967296", "x", "", " "] {
        let said = siege.session("x").await.end_or_answer(&format!("<a xmlns='{SM}' h='{bad}'/>")).await;
        assert!(said.contains("error") || said.contains("<failed "), "{bad:?}: {said}");
    }
    // Another's session, one that never was, and what is no SM-ID: one answer, and the session goes on.
    let mut victim = siege.session_of("victim", "x").await;
    let foreign = enabled(&mut victim).await;
    let mut answers = std::collections::BTreeSet::new();
    for previd in [foreign.as_str(), "00000000000000000000000000000000", "", "x", &"f".repeat(5_000)] {
        let mut one = siege.logged_in(0).await;
        one.say(&format!("<resume xmlns='{SM}' previd='{previd}' h='0'/>")).await;
        answers.insert(one.until("</failed>").await);
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.contains("<item-not-found ")), "{answers:?}");
    victim.say("<iq type='get' id='alive'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    victim.until("id='alive'").await;
    siege.end().await;
}

/// Standby streams: for one's own sessions only, one for each, for nothing but waiting, and not for free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s30_standby_abuse() {
    let siege = Siege::begin(2, &[("limits.connections_per_account", "40")]).await;
    let dual = "urn:tandem:dual:0";
    let mut main = siege.session("main").await;
    let own = enabled(&mut main).await;
    let mut victim = siege.session_of("victim", "x").await;
    let foreign = enabled(&mut victim).await;
    let mut answers = std::collections::BTreeSet::new();
    for id in [foreign.as_str(), "00000000000000000000000000000000", "x"] {
        let mut one = siege.logged_in(1).await;
        one.say(&format!("<standby xmlns='{dual}' sm-id='{id}'/>")).await;
        answers.insert(one.until("</failed>").await);
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    // Each new one takes the place of the one before.
    let mut before: Option<Attacker> = None;
    for _ in 0..10 {
        let mut one = siege.logged_in(1).await;
        one.say(&format!("<standby xmlns='{dual}' sm-id='{own}'/>")).await;
        one.until("<parked ").await;
        if let Some(mut before) = before.replace(one) {
            assert!(before.end().await.contains("<conflict "));
        }
    }
    for attack in ["<presence/>", "<message to='u0@demo.example'/>", "<iq type='set' id='1'/>"] {
        let mut one = siege.logged_in(1).await;
        one.say(&format!("<standby xmlns='{dual}' sm-id='{own}'/>")).await;
        one.until("<parked ").await;
        one.dies_of(attack.as_bytes(), "not-authorized").await;
    }
    // 13 so far. More than a client ever needs in a minute are refused, and what is parked stays.
    let mut parked = None;
    for n in 14.. {
        assert!(n < 40, "parked as often as it likes");
        let mut one = siege.logged_in(1).await;
        one.say(&format!("<standby xmlns='{dual}' sm-id='{own}'/>")).await;
        if one.until(">").await.starts_with("<failed") {
            one.until("<resource-constraint").await;
            assert_eq!(n, 31);
            break;
        }
        parked = Some(one);
    }
    let mut parked = parked.expect("some were let in");
    parked.say(&format!("<lost xmlns='{dual}'/>")).await;
    parked.until("<stay ").await;
    // Streams that log in and do nothing: so many for an account, and cheap.
    let resting = siege.rss(1);
    let (mut crowd, begun) = (Vec::new(), Instant::now());
    let last = loop {
        let mut one = siege.open(1).await;
        one.scram_in().await;
        one.say(load_tests::siege::HEADER).await;
        one.until("</stream:features>").await;
        one.say(&format!("<standby xmlns='{dual}' sm-id='x'/>")).await;
        if !one.end_or("</failed>").await {
            break one.end().await;
        }
        crowd.push(one);
        assert!(crowd.len() <= 40 && begun.elapsed() < 3 * LIMIT, "no end of streams for one account");
    };
    assert!(last.contains("<policy-violation "), "{last}");
    let each = siege.rss(1).saturating_sub(resting) / crowd.len() as u64;
    assert!(each < 64 << 10, "{each} bytes for each of {} idle streams", crowd.len());
    siege.end().await;
}

/// So many sessions of one account, and no more, those included that wait to be resumed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s8_sessions_per_account() {
    let siege = Siege::begin(1, &[("limits.sessions_per_account", "5")]).await;
    let mut open = Vec::new();
    for n in 0..5 {
        let mut one = siege.session(&format!("r{n}")).await;
        enabled(&mut one).await;
        // Some are gone without a word: they can be resumed, so they count.
        if n % 2 == 0 {
            open.push(one);
        }
    }
    for n in 5..8 {
        let mut one = siege.logged_in(0).await;
        one.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
        let said = one.until("</iq>").await;
        assert!(said.contains("<resource-constraint "), "{n}: {said}");
    }
    // The same resource again takes the place of its session, and who ends a session makes room.
    siege.session("r0").await.say("</stream:stream>").await;
    let begun = Instant::now();
    loop {
        let mut one = siege.logged_in(0).await;
        one.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
        if one.until("</iq>").await.contains("<jid>") {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "no room is made");
    }
    siege.end().await;
}

/// A session whose client reads and acknowledges nothing holds so much and no more: memory stays bounded, what it was sent
/// goes offline or back, and its own is the only stream that ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s28_queue_of_a_session() {
    let settings = [
        ("limits.session_stanzas", "200"),
        ("limits.offline_messages", "100"),
        ("limits.stanzas_per_second", "100000"),
        ("limits.bytes_per_second", "100000000"),
    ];
    let siege = Siege::begin(1, &settings).await;
    let before = siege.rss(0);
    let mut hoarder = siege.session("hoarder").await;
    enabled(&mut hoarder).await;
    let hoarder = tokio::spawn(async move { hoarder.end().await });
    let mut flooder = siege.session_of("victim", "x").await;
    let body = "b".repeat(1_000);
    for n in 0..20_000 {
        let message = format!(
            "<message to='{MALLORY}@demo.example/hoarder' type='chat' id='m{n}'><body>{body}</body></message>"
        );
        assert!(flooder.say(&message).await, "the sender goes on");
    }
    flooder.say("<iq type='get' id='after'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    flooder.until("id='after'").await;
    let last = hoarder.await.expect("it reads to the end");
    assert!(
        last.contains("<resource-constraint ") && last.matches("<message ").count() <= 201,
        "{}",
        last.len()
    );
    let grown = siege.rss(0).saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes more after 20 MB of messages");
    siege.end().await;
}

/// A client that sends as fast as it can is read at its rate, and no faster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_stanzas_per_second() {
    let siege = Siege::begin(1, &[("limits.stanzas_per_second", "50")]).await;
    let mut one = siege.session("x").await;
    // Two seconds' worth at once, the rest at 50 a second; the session took one already.
    let begun = Instant::now();
    let ping = |n: usize| format!("<iq type='get' id='p{n}'><ping xmlns='urn:xmpp:ping'/></iq>");
    one.say(&(0..250).map(ping).collect::<String>()).await;
    one.until("id='p249'").await;
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(2_700), "250 stanzas in {took:?}");
    assert!(took < Duration::from_secs(10), "250 stanzas in {took:?}");
    siege.end().await;
}

/// Likewise its bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_bytes_per_second() {
    let siege = Siege::begin(1, &[("limits.bytes_per_second", "50000")]).await;
    let mut one = siege.session("x").await;
    let begun = Instant::now();
    let body = "b".repeat(50_000);
    for n in 0..5 {
        one.say(&format!("<message to='{MALLORY}@demo.example/x' id='m{n}'><body>{body}</body></message>"))
            .await;
    }
    one.until("id='m4'").await;
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(2_500), "250,000 bytes in {took:?}");
    assert!(took < Duration::from_secs(15), "250,000 bytes in {took:?}");
    siege.end().await;
}

/// A reset in the middle of a stanza, wherever: what had come of it counts for nothing, and it is there once when it is sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stanza_that_a_reset_cuts_is_not_handled_and_comes_once() {
    let siege = Siege::begin(1, &[]).await;
    let mut victim = siege.session_of(VICTIM, "x").await;
    let mut one = siege.session("y").await;
    let id = enabled(&mut one).await;
    let to = format!("{VICTIM}@{DOMAIN}/x");
    let stanza =
        |n: usize| format!("<message to='{to}' type='chat' id='m{n}'><body>number {n}</body></message>");
    let length = stanza(0).len();
    for (n, cut) in [1, 9, 20, length / 2, length - 12, length - 1].into_iter().enumerate() {
        let whole = stanza(n);
        assert!(one.say(&whole[..cut]).await);
        one.reset();
        one = siege.logged_in(0).await;
        one.say(&format!("<resume xmlns='{SM}' previd='{id}' h='0'/>")).await;
        one.until("<resumed ").await;
        let resumed = one.until(">").await;
        assert!(resumed.contains(&format!("h='{n}'")), "cut at {cut}: {resumed}");
        one.say(&format!("{whole}<r xmlns='{SM}'/>")).await;
        one.until("<a ").await;
        let handled = one.until(">").await;
        assert!(handled.contains(&format!("h='{}'", n + 1)), "cut at {cut}: {handled}");
        let shown = victim.until("</body>").await;
        assert!(shown.ends_with(&format!("<body>number {n}</body>")), "cut at {cut}: {shown}");
        assert_eq!(shown.matches("<body>").count(), 1, "cut at {cut}: {shown}");
    }
    victim.say("<iq type='get' id='alive'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    let rest = victim.until("id='alive'").await;
    assert!(!rest.contains("<message"), "{rest}");
    siege.end().await;
}
