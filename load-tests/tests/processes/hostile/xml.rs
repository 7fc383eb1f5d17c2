//! What is no XML, or more than XMPP allows.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use load_tests::siege::{HEADER, LIMIT, MALLORY, Siege};

/// Attacks that must end the stream with this error, whether they come before or after the login.
const RESTRICTED: &[&str] = &[
    "<message><!-- a comment --></message>",
    "<!-- between stanzas -->",
    "<message><?php evil() ?></message>",
    "<?xml-stylesheet href='http://evil.example/'?>",
    "<!DOCTYPE message SYSTEM 'http://evil.example/x.dtd'>",
    "<!DOCTYPE m [<!ENTITY x 'y'>]><message>&x;</message>",
    "<message><!DOCTYPE m></message>",
    "<message><body>&evil;</body></message>",
    "<message to='&evil;'/>",
    "<message><body>&nbsp;</body></message>",
];

/// RFC 6120 11.1, also in pieces of one byte and in the middle of a header.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_restricted_xml() {
    let siege = Siege::begin(1, &[]).await;
    for attack in RESTRICTED {
        siege.open(0).await.dies_of(attack.as_bytes(), "restricted-xml").await;
        siege.session("x").await.dies_of(attack.as_bytes(), "restricted-xml").await;
    }
    let mut slow = siege.session("x").await;
    for byte in RESTRICTED[0].as_bytes() {
        slow.send(&[*byte]).await;
    }
    assert!(slow.end().await.contains("<restricted-xml "));
    // Before the header there is no stream, so one is opened for the error.
    for first in ["<!DOCTYPE stream:stream>", "<!-- hello -->", "<?xml version='1.0'?><!DOCTYPE x []>"] {
        let mut clear = load_tests::siege::Attacker::clear(siege.starttls(0)).await;
        let said = clear.dies_of(first.as_bytes(), "restricted-xml").await;
        assert!(said.contains("<stream:stream "), "{said}");
    }
    // Nothing of it reached anybody: the stanza before is delivered, the one with the comment is not.
    let mut receiver = siege.session("receiver").await;
    let mut sender = siege.session("sender").await;
    let to = format!("to='{MALLORY}@demo.example/receiver'");
    let attack =
        format!("<message {to}><body>good</body></message><message {to}><body>b<!-- -->ad</body></message>");
    sender.dies_of(attack.as_bytes(), "restricted-xml").await;
    receiver.say(&format!("<message {to}><body>end</body></message>")).await;
    let got = receiver.until("<body>end</body></message>").await;
    assert!(got.contains("<body>good</body>") && !got.contains("<body>b"), "{got}");
    siege.end().await;
}

/// A billion laughs, quadratic blow-up, and what is left to use: character references, which stand for one character.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_entity_expansion() {
    let siege = Siege::begin(1, &[]).await;
    let before = siege.rss(0);
    let mut laughs = String::from("<!DOCTYPE l [<!ENTITY l0 'ha'>");
    for n in 1..30 {
        laughs += &format!("<!ENTITY l{n} '&l{};&l{};'>", n - 1, n - 1);
    }
    laughs += "]><message><body>&l29;</body></message>";
    let blow_up =
        format!("<!DOCTYPE l [<!ENTITY a '{}'>]><message>{}</message>", "a".repeat(900), "&a;".repeat(900));
    for attack in [laughs, blow_up] {
        for _ in 0..10 {
            siege.open(0).await.dies_of(attack.as_bytes(), "restricted-xml").await;
            siege.session("x").await.dies_of(attack.as_bytes(), "restricted-xml").await;
        }
    }
    for attack in
        ["&#0;", "&#x1F;", "&#xFFFF;", "&#xD800;", "&#x110000;", "&#99999999999999999999;", "&#;", "&#-1;"]
    {
        let message = format!("<message><body>{attack}</body></message>");
        siege.session("x").await.dies_of(message.as_bytes(), "not-well-formed").await;
    }
    // 40,000 of them are 40,000 characters, and arrive as what they were.
    let references = "&#x1F600;".repeat(20_000);
    let mut own = siege.session("own").await;
    own.say(&format!("<message to='{MALLORY}@demo.example/own'><body>{references}</body></message>")).await;
    let got = own.until("</message>").await;
    assert!(got.ends_with(&format!("<body>{references}</body></message>")));
    let grown = siege.rss(0).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    siege.end().await;
}

/// Limits of a stanza after the login: what is above is refused without being repeated, and they are announced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_stanza_size() {
    let siege = Siege::begin(1, &[]).await;
    let mut reader = siege.open(0).await;
    reader.scram_in().await;
    reader.say(HEADER).await;
    let features = reader.until("</stream:features>").await;
    assert!(
        features.contains("<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>262144</max-bytes>"),
        "{features}"
    );
    let secret = "SECRET".repeat(50_000);
    let many = |n: usize, piece: &dyn Fn(usize) -> String| (0..n).map(piece).collect::<String>();
    for attack in [
        format!("<message><body>{secret}"),
        format!("<message a='{secret}"),
        format!("<message><body><![CDATA[{secret}"),
        format!("<message><{secret}"),
        format!("<message {}/>", many(65, &|n| format!("a{n}='' "))),
        format!("<message>{}", "<a>".repeat(65)),
        format!("<message>{}", "<a/>".repeat(20_000)),
        format!(
            "<message {}><x {}/></message>",
            many(60, &|n| format!("xmlns:a{n}='u{n}' ")),
            many(60, &|n| format!("xmlns:b{n}='v{n}' "))
        ),
        format!("<message><{}/></message>", "n".repeat(300)),
        format!("<message>{}</message>", many(100, &|n| format!("<a{n}/>"))),
    ] {
        let mut session = siege.session("x").await;
        let said = session.dies_of(attack.as_bytes(), "policy-violation").await;
        assert!(!said.contains("SECRET") && said.len() < 500, "{said}");
    }
    // What is just within goes through whole.
    let mut session = siege.session("x").await;
    let start = format!("<message to='{MALLORY}@demo.example/x'><body>");
    let body = "b".repeat(262_144 - start.len() - "</body></message>".len());
    session.say(&format!("{start}{body}</body></message>")).await;
    assert!(session.until("</message>").await.contains(&body));
    siege.end().await;
}

/// Shapes that cost a parser more than they cost the sender. Many at once; the server's memory stays bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_parser_memory() {
    let siege = Siege::begin(1, &[("limits.bytes_per_second", "100000000")]).await;
    let before = siege.rss(0);
    let tiny = format!("<message>{}", "<a/>".repeat(16_000));
    let deep = format!("<message>{}", "<a>".repeat(60));
    let wide =
        format!("<message {}", (0..60).map(|n| format!("a{n}='{}' ", "v".repeat(4_000))).collect::<String>());
    let long = format!("<message><body>{}", "x".repeat(262_000));
    let mut open = Vec::new();
    for round in 0..80 {
        let mut session = siege.logged_in(0).await;
        session.say([&tiny, &deep, &wide, &long][round % 4]).await;
        open.push(session);
    }
    let held = siege.rss(0).saturating_sub(before);
    // 80 stanzas that are not complete: at most what the limits allow of bytes, twice for growing buffers.
    assert!(held < 80 * 2 * 262_144 + (16 << 20), "{held} bytes for 80 stanzas");
    drop(open);
    // White space is legal between stanzas, and costs nothing to keep.
    let mut blank = siege.session("blank").await;
    let taken = AtomicUsize::new(0);
    blank.flood(&[b' '; 65_536], &taken, Duration::from_secs(2)).await;
    let sent = taken.into_inner();
    assert!(sent > 1 << 20, "{sent}");
    blank.say("<iq type='get' id='after'><query xmlns='jabber:iq:roster'/></iq>").await;
    tokio::time::timeout(LIMIT, blank.until("id='after'")).await.expect("an answer");
    let grown = siege.rss(0).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more after {sent} bytes of white space");
    siege.end().await;
}

/// Bytes that two parsers could read differently never get as far as the second one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s27_smuggling() {
    let siege = Siege::begin(1, &[]).await;
    let around = |inside: &[u8]| [b"<message><body>".as_slice(), inside, b"</body></message>"].concat();
    for bad in [
        &b"\xc0\xbc"[..],            // an overlong <
        b"\xe0\x80\xbc",             // and another
        b"\xed\xa0\xbd\xed\xb8\x80", // a surrogate pair
        b"\xf4\x90\x80\x80",         // beyond Unicode
        b"\xff\xfea\0b\0",           // UTF-16
        b"\xe2\x82",                 // cut short, swallowing the tag behind it
        b"\x80",
    ] {
        siege.session("x").await.dies_of(&around(bad), "unsupported-encoding").await;
    }
    for bad in [
        "\0",
        "\u{b}",
        "\u{fffe}",
        "]]>",
        "<a b='<'/>",
        "<a b=c/>",
        "<a b='1' b='2'/>",
        "<a></b>",
        "<a/ ></a>",
        "< a/>",
        "<x:a/>",
        "<a xmlns:x='' />",
        "<xmlns:a/>",
        "<a xmlns:xml='u'/>",
        "<a xmlns:xmlns='u'/>",
        "<a x:b=''/>",
        "<a xmlns:x='u' xmlns:y='u' x:b='' y:b=''/>",
        "<a:b:c xmlns:a='u'/>",
        "<:a/>",
        "<a:/>",
        "<-a/>",
        "<a<b/>",
    ] {
        siege.session("x").await.dies_of(&around(bad.as_bytes()), "not-well-formed").await;
    }
    // A prefix of the stream header means nothing on the receiver's stream: it comes along with the stanza.
    let mut receiver = siege.session("receiver").await;
    let mut sender = siege.open(0).await;
    sender.scram_in().await;
    sender.say(&HEADER.replace("to=", "xmlns:p='urn:smuggled' xml:lang='tlh' to=")).await;
    sender.until("</stream:features>").await;
    sender.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
    sender.until("</iq>").await;
    sender.say(&format!("<message to='{MALLORY}@demo.example/receiver'><p:x p:y=''/></message>")).await;
    let got = receiver.until("</message>").await;
    assert!(got.contains("xmlns:p='urn:smuggled'") && got.contains("xml:lang='tlh'"), "{got}");
    siege.end().await;
}
