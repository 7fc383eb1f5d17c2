//! Framer and strict check against the crate `rxml`, an independent parser of XML as XMPP restricts it: the same
//! verdict on the same bytes, and the same trees.
//!
//! Where the two differ on purpose it is a [`Difference`], counted and asserted; nothing else is let through.

use proptest::prelude::*;
use rxml::{Options, Parse, WithOptions};
use xmpp_core::xml::{Event, Framer, Limits};
use xmpp_core::{Attribute, Element, StreamCondition};

const HEADER: &str = "<?xml version='1.0'?><stream:stream to='d.example' version='1.0' xmlns='jabber:client' \
     xmlns:stream='http://etherx.jabber.org/streams' xmlns:p='urn:p' xmlns:q='urn:q'>";

/// Ours are no subject here: far above what the inputs have.
const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    elements: 1 << 16,
    depth: 1 << 10,
    attributes: 1 << 10,
    namespaces: 1 << 10,
    name_bytes: 1 << 16,
    distinct_children: 1 << 16,
};

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// All is well so far.
    Open,
    /// The stream was closed; what comes behind it is nobody's.
    Closed,
    /// It is in the middle of a top-level element.
    Inside,
    /// Refused.
    Refused,
}

/// What was made of a stream: its top-level elements, and how it ended.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    trees: Vec<Element>,
    verdict: Verdict,
}

/// On what the two may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    /// We judge a stanza when it is complete, and deliver nothing before: until then a fault may wait.
    NotYetJudged,
    /// RFC 6120 11.7: between stanzas there is white space as such, not as a reference and not as CDATA.
    DisguisedSpace,
    /// We refuse at the first byte that cannot be right (`&` between stanzas, `<!` and no CDATA), rxml when it has the
    /// whole of it: nothing that could come would be taken by it.
    Sooner,
    /// XML-NAMES 3: no prefix, and not the default either, is bound to the namespace of `xmlns`. rxml lets it pass.
    ReservedNamespace,
}

fn ours(body: &[u8]) -> (Outcome, Option<StreamCondition>) {
    let mut framer = Framer::new(LIMITS);
    framer.feed(HEADER.as_bytes());
    framer.feed(body);
    let mut trees = Vec::new();
    loop {
        let (verdict, condition) = match framer.next() {
            Ok(Some(Event::StreamOpen(_))) => continue,
            Ok(Some(Event::Stanza(stanza))) => {
                trees.push(normal(stanza.element()));
                continue;
            }
            Ok(Some(Event::StreamClose)) => (Verdict::Closed, None),
            Ok(None) if framer.buffered() > 0 => (Verdict::Inside, None),
            Ok(None) => (Verdict::Open, None),
            Err(error) => (Verdict::Refused, Some(error.condition)),
        };
        return (Outcome { trees, verdict }, condition);
    }
}

/// The same by rxml. The second says that there was character data between stanzas that is all white space, and where
/// none could be seen as such (a reference, CDATA).
fn theirs(body: &[u8]) -> (Outcome, bool) {
    let options = Options { max_token_length: 1 << 20, ..Options::default() };
    let mut parser = rxml::Parser::with_options(options);
    parser.set_text_buffering(false);
    // XML 1.0 2.11: what a parser sees has line ends of one kind. rxml 0.14 does this itself, but stumbles over some.
    let whole = line_ends([HEADER.as_bytes(), body].concat());
    let mut rest = whole.as_slice();
    let (mut stack, mut trees): (Vec<Element>, Vec<Element>) = (Vec::new(), Vec::new());
    let (mut root, mut disguised) = (false, false);
    let done = |trees, verdict, disguised| (Outcome { trees, verdict }, disguised);
    loop {
        match parser.parse(&mut rest, false) {
            Ok(Some(rxml::Event::XmlDeclaration(..))) => {}
            Ok(Some(rxml::Event::StartElement(_, (ns, name), attrs))) => {
                let attrs = attrs.into_iter().map(|((ns, name), value)| Attribute {
                    ns: ns.as_str().into(),
                    name: name.as_str().into(),
                    value: value.as_str().into(),
                });
                let element = Element {
                    name: name.as_str().into(),
                    ns: ns.as_str().into(),
                    attrs: attrs.collect(),
                    ..Element::default()
                };
                if root { stack.push(element) } else { root = true }
            }
            Ok(Some(rxml::Event::EndElement(_))) => match (stack.pop(), stack.last_mut()) {
                (Some(child), Some(parent)) => parent.children.push(child),
                (Some(tree), None) => trees.push(normal(tree)),
                (None, _) => return done(trees, Verdict::Closed, disguised),
            },
            Ok(Some(rxml::Event::Text(metrics, text))) => match stack.last_mut() {
                Some(top) => top.text.push_str(&text),
                None if text.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) => {
                    // A line end may be two bytes; anything longer than its text was written in other words.
                    disguised |= metrics.len() > text.len();
                }
                None => return done(trees, Verdict::Refused, disguised),
            },
            Ok(None) => return done(trees, Verdict::Closed, disguised),
            Err(rxml::error::EndOrError::NeedMoreData) => {
                let verdict = if stack.is_empty() { Verdict::Open } else { Verdict::Inside };
                return done(trees, verdict, disguised);
            }
            Err(rxml::error::EndOrError::Error(_)) => return done(trees, Verdict::Refused, disguised),
        }
    }
}

fn line_ends(bytes: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' => out.push(b'\n'),
            b'\n' if at > 0 && bytes[at - 1] == b'\r' => {}
            other => out.push(*other),
        }
    }
    out
}

/// Attributes in an order of their own: rxml keeps none.
fn normal(mut element: Element) -> Element {
    element.attrs.sort_by(|a, b| (&a.ns, &a.name).cmp(&(&b.ns, &b.name)));
    element.children = element.children.into_iter().map(normal).collect();
    element
}

/// How a stream that is good so far could go on, wherever it stands: between stanzas, in text, in a tag, in a value, in a
/// reference.
const GO_ON: &[&str] = &[
    " <z/>",
    "/><z/>",
    "><z/>",
    "z/><z/>",
    "='1'/><z/>",
    "1'/><z/>",
    "1\"/><z/>",
    "amp;<z/>",
    "41;<z/>",
    "]]><z/>",
    "[CDATA[]]><z/>",
    "CDATA[]]><z/>",
    "A[]]><z/>",
    "stream:stream>",
    "\u{e9}/><z/>",
];

/// Whether rxml, which has not refused this yet, will, however it goes on. Between stanzas CDATA is no way to go on for
/// us.
fn doomed(body: &[u8], between: bool) -> bool {
    let mut ways = GO_ON.iter().filter(|go_on| !(between && go_on.contains("[]]>")));
    ways.all(|go_on| theirs(&[body, go_on.as_bytes()].concat()).0.verdict == Verdict::Refused)
}

/// The namespace that nobody may declare.
const RESERVED: &str = "http://www.w3.org/2000/xmlns/";

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Whether both make the same of it; `Err` tells how not.
fn compare(body: &[u8]) -> Result<Option<Difference>, String> {
    let ((ours, condition), (theirs, disguised)) = (ours(body), theirs(body));
    if ours == theirs {
        return Ok(None);
    }
    let difference = match (ours.verdict, theirs.verdict) {
        // `Open` is theirs where a tag has begun and they have no token of it yet.
        (Verdict::Inside, Verdict::Open) if ours.trees == theirs.trees => return Ok(None),
        (Verdict::Inside, Verdict::Refused) if ours.trees == theirs.trees => Difference::NotYetJudged,
        (Verdict::Refused, Verdict::Open | Verdict::Inside | Verdict::Closed | Verdict::Refused)
            if disguised && theirs.trees.starts_with(&ours.trees) =>
        {
            Difference::DisguisedSpace
        }
        (Verdict::Refused, _)
            if condition == Some(StreamCondition::RestrictedXml)
                && contains(body, "<![CDATA[")
                && theirs.trees.starts_with(&ours.trees) =>
        {
            Difference::DisguisedSpace
        }
        (Verdict::Refused, _) if contains(body, RESERVED) && theirs.trees.starts_with(&ours.trees) => {
            Difference::ReservedNamespace
        }
        (Verdict::Refused, Verdict::Open | Verdict::Inside)
            if ours.trees == theirs.trees && doomed(body, theirs.verdict == Verdict::Open) =>
        {
            Difference::Sooner
        }
        _ => {
            return Err(format!(
                "{}\nours ({condition:?}) {ours:#?}\ntheirs {theirs:#?}",
                String::from_utf8_lossy(body)
            ));
        }
    };
    Ok(Some(difference))
}

/// Good streams, each a piece of the grammar.
const GOOD: &[&str] = &[
    "<message/>",
    "<message to='b@d.example' id=\"1\"><body>hello</body></message>",
    "<message>text &amp; &lt; &gt; &quot; &apos; ]] ></message>",
    "<message><![CDATA[ <not> & ]] > markup ]]></message>",
    "<message><![CDATA[]]><![CDATA[]]]]><![CDATA[>]]></message>",
    "<message a='&lt;&amp;&#60;&#x3c;&#x3C;'/>",
    "<message>&#9;&#10;&#13;&#32;&#xD7FF;&#xE000;&#xFFFD;&#x10000;&#x10FFFF;</message>",
    "<message a='x\ty\nz\r\nw\rv'>a\r\nb\rc\n\r\nd</message>",
    "<message a = 'b'\n\tc\r= \"d\" ></message >",
    "<p:x p:y='1' q:y='2' y='3'/>",
    "<a xmlns='urn:a'><b/><c xmlns=''><d/></c><e xmlns='urn:e' xmlns:p='urn:inner'><p:f p:g=''/></e><p:h/></a>",
    "<a xmlns:one='u' xmlns:two='v' one:x='1' two:x='2' x='3'/>",
    "<iq xml:lang='de' xml:space='preserve'/>",
    "<été ñ='ü'><Ω/><日本/><_-.9/></été>",
    "<a>\u{1f600}\u{10ffff}\u{fffd}\u{e000}\u{d7ff}\u{7f}\u{85}\u{2028}</a>",
    "<a:b xmlns:a='urn:x'><a:c xmlns:a='urn:y'><a:d/></a:c><a:d/></a:b>",
    "<a><b><c><d><e/></d></c></b></a>",
    " \n\t\r\n <a/> <b/>\n",
    "<a/></stream:stream>",
    "</stream:stream >",
    "<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>",
    "<stream:features><x xmlns='y'/></stream:features>",
];

/// Bad ones: ill-formed, not namespace-well-formed, restricted.
const BAD: &[&str] = &[
    "<a></b>",
    "<a><b></a></b>",
    "<a b></a>",
    "<a b=c/>",
    "<a b='1' b='2'/>",
    "<a b='1'c='2'/>",
    "<a b='<'/>",
    "<a>]]></a>",
    "<a>&</a>",
    "<a>& b</a>",
    "<a>&;</a>",
    "<a>&lt</a>",
    "<a>&nbsp;</a>",
    "<a b='&nbsp;'/>",
    "<a>&#;</a>",
    "<a>&#x;</a>",
    "<a>&#xg;</a>",
    "<a>&#0;</a>",
    "<a>&#1;</a>",
    "<a>&#xFFFE;</a>",
    "<a>&#xD800;</a>",
    "<a>&#x110000;</a>",
    "<a>&#-1;</a>",
    "<a>&#+1;</a>",
    "<a>&#X41;</a>",
    "<a>\0</a>",
    "<a>\u{1}</a>",
    "<a>\u{b}</a>",
    "<a>\u{fffe}</a>",
    "<a>\u{ffff}</a>",
    "<a b='\u{1f}'/>",
    "<x:a/>",
    "<a x:b='1'/>",
    "<a xmlns:x=''/>",
    "<a xmlns:x='u'></a><x:b/>",
    "<xmlns:a/>",
    "<a xmlns:xmlns='u'/>",
    "<a xmlns:xml='u'/>",
    "<a xmlns:x='http://www.w3.org/XML/1998/namespace'/>",
    "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
    "<a xmlns:x='u' xmlns:y='u' x:b='1' y:b='2'/>",
    "<a p:b='1' xmlns:r='urn:p' r:b='2'/>",
    "<a:b:c/>",
    "<:a/>",
    "<a:/>",
    "<a :b=''/>",
    "<a b:=''/>",
    "<1a/>",
    "<-a/>",
    "<.a/>",
    "< a/>",
    "<a/ ></a>",
    "<a b = />",
    "<a><!-- c --></a>",
    "<!-- c -->",
    "<!DOCTYPE a>",
    "<a><!DOCTYPE a></a>",
    "<?pi x?>",
    "<a><?pi x?></a>",
    "<?xml version='1.0'?>",
    "<a><?xml version='1.0'?></a>",
    "<![CDATA[x]]>",
    "text",
    "<a/>text<b/>",
    "&amp;",
    "<a><![cdata[x]]></a>",
    "<a><![CDATA [x]]></a>",
    "</a>",
    "</stream>",
    "</stream:streams>",
    "</stream:stream\x0c>",
    "<a/></a>",
    "<\u{d7}/>",
    "<a\u{d7}/>",
    "<a \u{b7}b=''/>",
    "<>",
    "</>",
    "<a><></></a>",
    "<a xmlns:='u'/>",
    "<a xmlns:p:q='u'/>",
    "<a>&#32</a>",
    "<a b='x\u{0}'/>",
];

/// Bytes that are no text.
const NO_UTF8: &[&[u8]] = &[
    b"<a>\xff</a>",
    b"<a>\xc0\x80</a>",
    b"<a>\xc1\xbf</a>",
    b"<a>\xe0\x80\x80</a>",
    b"<a>\xed\xa0\x80</a>",
    b"<a>\xf4\x90\x80\x80</a>",
    b"<a>\xf8\x88\x80\x80\x80</a>",
    b"<a>\xe2\x82</a>",
    b"<a>\x80</a>",
    b"<a b='\xfe'/>",
    b"<\xff/>",
    b"<a\xc3/>",
];

/// What is deliberate, with an example each.
const DELIBERATE: &[(&str, Difference)] = &[
    ("<a><b></a>", Difference::NotYetJudged),
    ("<message>&nbsp;", Difference::NotYetJudged),
    ("<a b='1' b='2'>", Difference::NotYetJudged),
    ("<a/>&#32;<b/>", Difference::DisguisedSpace),
    ("<a/><![CDATA[ ]]><b/>", Difference::DisguisedSpace),
    ("<a/>&", Difference::Sooner),
    ("<a><!-", Difference::Sooner),
    ("<a/><![CDATA[", Difference::DisguisedSpace),
    ("<a xmlns:x='http://www.w3.org/2000/xmlns/'/>", Difference::ReservedNamespace),
    ("<a xmlns='http://www.w3.org/2000/xmlns/'/>", Difference::ReservedNamespace),
];

#[test]
fn the_corpus_has_the_same_verdicts_and_trees() {
    for good in GOOD {
        assert_eq!(compare(good.as_bytes()), Ok(None), "{good}");
        assert_ne!(ours(good.as_bytes()).0.verdict, Verdict::Refused, "{good}");
    }
    let bad = BAD.iter().map(|text| text.as_bytes()).chain(NO_UTF8.iter().copied());
    for bad in bad {
        assert_eq!(compare(bad), Ok(None), "{}", String::from_utf8_lossy(bad));
        assert_eq!(ours(bad).0.verdict, Verdict::Refused, "{}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn what_is_deliberate_is_named() {
    for (body, difference) in DELIBERATE {
        assert_eq!(compare(body.as_bytes()), Ok(Some(*difference)), "{body}");
    }
}

/// Every pair of pieces, so that what one leaves behind meets the other.
#[test]
fn pairs_of_pieces() {
    for first in GOOD {
        for second in GOOD.iter().chain(BAD) {
            let body = format!("{first}{second}");
            let found = compare(body.as_bytes());
            assert!(matches!(found, Ok(None | Some(_))), "{found:?}");
        }
    }
}

/// Tags, texts and faults in any order.
fn any_pieces() -> impl Strategy<Value = Vec<u8>> {
    let tokens = prop::sample::select(vec![
        "<a>",
        "</a>",
        "<a/>",
        "<b xmlns='urn:b'>",
        "</b>",
        "<p:c q:d='1'>",
        "</p:c>",
        "<e xmlns:p='urn:e'>",
        "</e>",
        "text",
        " ",
        "\r\n",
        "&amp;",
        "&#x41;",
        "<![CDATA[",
        "]]>",
        "x='",
        "'",
        "\"",
        "<",
        ">",
        "/",
        "=",
        "&",
        ";",
        "é",
        "</stream:stream>",
        "xmlns:z='",
        "z:",
        "!",
        "?",
        "-",
        "\u{fffe}",
    ]);
    prop::collection::vec(tokens, 0..14).prop_map(|tokens| tokens.concat().into_bytes())
}

/// A good stream with a few bytes put in, taken out or changed.
fn nearly_good() -> impl Strategy<Value = Vec<u8>> {
    let edit = (
        any::<u16>(),
        0..3_u8,
        prop_oneof![any::<u8>(), prop::sample::select(b"<>/='\"&;:!?[] axp".to_vec())],
    );
    let good = prop::collection::vec(prop::sample::select(GOOD), 1..3);
    (good, prop::collection::vec(edit, 0..4)).prop_map(|(good, edits)| {
        let mut bytes = good.concat().into_bytes();
        for (at, what, byte) in edits {
            let at = usize::from(at) % (bytes.len() + 1);
            match what {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => _ = bytes.remove(at),
                _ if at < bytes.len() => bytes[at] = byte,
                _ => bytes.push(byte),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pieces_mean_the_same_to_both(body in any_pieces()) {
        let found = compare(&body);
        prop_assert!(found.is_ok(), "{}", found.unwrap_err());
    }

    #[test]
    fn near_misses_mean_the_same_to_both(body in nearly_good()) {
        let found = compare(&body);
        prop_assert!(found.is_ok(), "{}", found.unwrap_err());
    }
}
