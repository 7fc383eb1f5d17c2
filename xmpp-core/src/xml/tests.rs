//! Framing, the strict check and rewriting, together: what one of them lets pass the next must understand.

use proptest::prelude::*;

use super::tree::Element;
use super::*;
use crate::error::StreamError;
use crate::jid::Jid;
use crate::stanza::{Kind, Stanza};

const HEADER: &str = "<?xml version='1.0'?><stream:stream to='d.example' version='1.0' xml:lang='de' \
     xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:p='urn:p' xmlns:q='urn:q'>";

/// All events of `pieces`, fed one by one, and the error at the end if there is one.
fn events<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: Limits,
) -> (Vec<Event>, Option<StreamError>) {
    let mut framer = Framer::new(limits);
    let mut found = Vec::new();
    for piece in pieces {
        framer.feed(piece);
        loop {
            match framer.next() {
                Ok(Some(event)) => found.push(event),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

fn after_header(text: &[u8]) -> (Vec<Event>, Option<StreamError>) {
    let (mut found, error) = events([HEADER.as_bytes(), text], Limits::C2S);
    assert!(matches!(found.remove(0), Event::StreamOpen(_)));
    (found, error)
}

fn one(text: &str) -> Stanza {
    match after_header(text.as_bytes()) {
        (found, None) if found.len() == 1 => match found.into_iter().next() {
            Some(Event::Stanza(stanza)) => stanza,
            other => panic!("{text}: {other:?}"),
        },
        other => panic!("{text}: {other:?}"),
    }
}

/// Input after the stream header and the condition it must end with. S1, S2, S5, S27.
const FORBIDDEN: &[(&str, &str)] = &[
    ("<message><!-- c --></message>", "restricted-xml"),
    ("<!-- c -->", "restricted-xml"),
    ("<message><?php x?></message>", "restricted-xml"),
    ("<?xml version='1.0'?>", "restricted-xml"),
    ("<!DOCTYPE x [<!ENTITY a 'b'>]>", "restricted-xml"),
    ("<message><!DOCTYPE x></message>", "restricted-xml"),
    ("<![CDATA[x]]>", "restricted-xml"),
    ("<message>&foo;</message>", "restricted-xml"),
    ("<message a='&foo;'/>", "restricted-xml"),
    ("<message>&;</message>", "not-well-formed"),
    ("<message>a & b</message>", "not-well-formed"),
    ("<message>&#0;</message>", "not-well-formed"),
    ("<message>&#x1F;</message>", "not-well-formed"),
    ("<message>&#xD800;</message>", "not-well-formed"),
    ("<message>&#x110000;</message>", "not-well-formed"),
    ("<message>&#+65;</message>", "not-well-formed"),
    ("<message>&#xFFFE;</message>", "not-well-formed"),
    ("<message>&#;</message>", "not-well-formed"),
    ("<message>\u{1}</message>", "not-well-formed"),
    ("<message>\u{ffff}</message>", "not-well-formed"),
    ("<message a='\u{b}'/>", "not-well-formed"),
    ("<message>]]></message>", "not-well-formed"),
    ("<message></presence>", "not-well-formed"),
    ("<message><a></message></a>", "not-well-formed"),
    ("</message>", "not-well-formed"),
    ("</stream:strea>", "not-well-formed"),
    ("<message a='<'/>", "not-well-formed"),
    ("<message a='1' a='2'/>", "not-well-formed"),
    ("<message xmlns:x='u' xmlns:y='u' x:a='1' y:a='2'/>", "not-well-formed"),
    ("<message xmlns:y='urn:p' p:a='1' y:a='2'/>", "not-well-formed"),
    ("<message a=1/>", "not-well-formed"),
    ("<message a/>", "not-well-formed"),
    ("<message a='1'b='2'/>", "not-well-formed"),
    ("<message / ></message>", "not-well-formed"),
    ("<>", "not-well-formed"),
    ("< message/>", "not-well-formed"),
    ("<1message/>", "not-well-formed"),
    ("<a:b:c xmlns:a='u'/>", "not-well-formed"),
    ("<:message/>", "not-well-formed"),
    ("<p:/>", "not-well-formed"),
    ("<u:message/>", "not-well-formed"),
    ("<message u:a='1'/>", "not-well-formed"),
    ("<message><b xmlns:u='u'/><u:c/></message>", "not-well-formed"),
    ("<message xmlns:u=''/>", "not-well-formed"),
    ("<message xmlns:xml='u'/>", "not-well-formed"),
    ("<message xmlns:xmlns='u'/>", "not-well-formed"),
    ("<message xmlns:u='http://www.w3.org/2000/xmlns/'/>", "not-well-formed"),
    ("<message xmlns='http://www.w3.org/XML/1998/namespace'/>", "not-well-formed"),
    ("<xmlns:message/>", "not-well-formed"),
    ("<message></message x='1'>", "not-well-formed"),
    ("text", "bad-format"),
    ("<presence/>&amp;", "bad-format"),
];

#[test]
fn what_is_malformed_or_forbidden_ends_the_stream() {
    for (text, condition) in FORBIDDEN {
        let (_, error) = after_header(text.as_bytes());
        assert_eq!(error.expect(text).condition.name(), *condition, "{text}");
        let bytewise = HEADER.as_bytes().chunks(1).chain(text.as_bytes().chunks(1));
        assert_eq!(events(bytewise, Limits::C2S).1.expect(text).condition.name(), *condition, "{text}");
    }
    for bytes in
        [&b"<message>\xff</message>"[..], b"<message a='\xc0\xaf'/>", b"<message>\xed\xa0\x80</message>"]
    {
        assert_eq!(after_header(bytes).1.unwrap().condition.name(), "unsupported-encoding");
    }
}

#[test]
fn headers_that_are_no_headers() {
    let stream = "xmlns:stream='http://etherx.jabber.org/streams'";
    for (text, condition) in [
        ("GET / HTTP/1.1\r\n".to_owned(), "not-well-formed"),
        ("<?xml version='1.1'?>".to_owned(), "not-well-formed"),
        ("<?xml version='1.0' encoding='latin1'?>".to_owned(), "unsupported-encoding"),
        (" <?xml version='1.0'?>".to_owned(), "restricted-xml"),
        ("<?xml version='1.0'?><?xml version='1.0'?>".to_owned(), "restricted-xml"),
        ("<?xml-stylesheet href='x'?>".to_owned(), "not-well-formed"),
        ("<!DOCTYPE x>".to_owned(), "restricted-xml"),
        ("</stream:stream>".to_owned(), "not-well-formed"),
        (format!("<stream:stream xmlns='jabber:client' {stream}/>"), "bad-format"),
        (format!("<stream:other xmlns='jabber:client' {stream}>"), "bad-format"),
        ("<stream:stream xmlns='jabber:client'>".to_owned(), "bad-namespace-prefix"),
        ("<stream xmlns='http://etherx.jabber.org/streams'>".to_owned(), "bad-namespace-prefix"),
        ("<stream:stream xmlns='jabber:client' xmlns:stream='urn:x'>".to_owned(), "invalid-namespace"),
        (format!("<stream:stream xmlns='jabber:server' {stream}>"), "invalid-namespace"),
        (format!("<stream:stream {stream}>"), "invalid-namespace"),
        (format!("<stream:stream xmlns='jabber:client' {stream} to='@'>"), "improper-addressing"),
    ] {
        assert_eq!(
            events([text.as_bytes()], Limits::C2S).1.expect(&text).condition.name(),
            condition,
            "{text}"
        );
    }
    let (found, error) =
        events([&b"<?xml version=\"1.0\" encoding='UTF-8' standalone='yes' ?>\n"[..]], Limits::C2S);
    assert_eq!((found.len(), error), (0, None));
}

#[test]
fn limits_hold_while_a_tag_is_still_open() {
    let long = "x".repeat(10_000);
    let many = |n: usize, piece: &dyn Fn(usize) -> String| (0..n).map(piece).collect::<String>();
    let cases = [
        format!("<message a='{long}"),
        format!("<message>{long}"),
        format!("<message><![CDATA[{long}"),
        format!("<{long}"),
        format!("<message>{}", "<a/>".repeat(40)),
        format!("<message>{}", "<a>".repeat(9)),
        format!("<message {}/>", many(40, &|i| format!("a{i}='' "))),
        format!("<message {}/>", many(20, &|i| format!("xmlns:a{i}='u' "))),
        format!("<{}/>", &long[..200]),
        format!("<message xmlns:p='{}'/>", &long[..200]),
        format!("<message id='{}'/>", &long[..2_000]),
        format!("<message>{}</message>", many(20, &|i| format!("<a{i}/>"))),
    ];
    for text in cases {
        for size in [1, 7, 100_000] {
            let pieces = HEADER.as_bytes().chunks(size).chain(text.as_bytes().chunks(size));
            let error = events(pieces, Limits::BEFORE_AUTH).1.expect(&text);
            assert_eq!(error.condition.name(), "policy-violation", "{}", &text[..40.min(text.len())]);
        }
    }
    let fits = format!("<message>{}</message>", "x".repeat(8 * 1024 - 19));
    assert_eq!(events([HEADER.as_bytes(), fits.as_bytes()], Limits::BEFORE_AUTH).1, None);
}

#[test]
fn text_and_cdata_may_contain_what_looks_like_markup() {
    let text = "<message><body>a > b ]] ]&gt;<![CDATA[</body> > ]] ]> ]]]]><![CDATA[>]]></body></message>";
    let stanza = one(text);
    assert_eq!(stanza.bytes, text);
    assert_eq!(stanza.child("jabber:client", "body").unwrap().text, "a > b ]] ]></body> > ]] ]> ]]>");
    // Line ends are of one kind, in CDATA too (XML 1.0 2.11).
    let lines = one("<message><a>1\r\n2\r3<![CDATA[4\r\n5\r6]]></a></message>");
    assert_eq!(lines.child("jabber:client", "a").unwrap().text, "1\n2\n34\n5\n6");
    assert_eq!(one("<message><![CDATA[a\rb]]></message>").text(), "a\nb");
    assert_eq!(one("<message a='>' b=\"'/>\"/>").attr("b").unwrap(), "'/>");
}

#[test]
fn a_head_is_taken() {
    let stanza = one(
        "<iq id='a&amp;b' type='get' to='D.example/R' from='no jid@' xml:lang='en' xmlns:p='urn:other' p:a='1' a='2'>\
         <q xmlns='urn:q1'><x/></q><q xmlns='urn:q1'/><stream:s/></iq>",
    );
    let head = &stanza.head;
    assert_eq!((head.kind, head.id.as_deref(), head.type_.as_deref()), (Kind::Iq, Some("a&b"), Some("get")));
    assert_eq!((head.to.as_ref().unwrap().as_str(), head.from.as_ref()), ("d.example/R", None));
    assert!(head.jid_malformed && stanza.check_addresses().is_err());
    assert_eq!((head.child_count, head.children.len(), head.elements, head.depth), (3, 2, 5, 3));
    assert!(head.has_child("urn:q1", "q") && head.has_child(crate::ns::STREAM, "s"));
    assert_eq!(head.used.len(), 1);
    assert_eq!(stanza.attr_ns("urn:other", "a").unwrap(), "1");
    assert_eq!((stanza.attr("a").unwrap().as_str(), stanza.attr("p:a")), ("2", None));
    assert_eq!(one("<message xmlns='urn:x'/>").head.kind, Kind::Other);
    assert_eq!(one("<c:message xmlns:c='jabber:client'/>").head.kind, Kind::Message);
}

#[test]
fn trees_are_read_and_written() {
    let stanza =
        one("<iq type='set'><a xmlns='u'>x<p:b p:c='&quot;' xml:lang='en'>y</p:b>&lt;<b xmlns=''/></a></iq>");
    let a = stanza.payload().unwrap();
    assert_eq!((a.text.as_str(), a.children.len()), ("x<", 2));
    let b = a.child("urn:p", "b").unwrap();
    assert_eq!((b.attr_ns("urn:p", "c"), b.attr_ns(crate::ns::XML, "lang")), (Some("\""), Some("en")));
    let mut w = Writer::new();
    a.write(&mut w, "");
    let written = w.finish();
    let again = Stanza::parse(&written).unwrap().element();
    assert_eq!(&again, &a, "an element without a namespace has none inside of one that has one");
    assert_eq!(stanza.child("urn:none", "a"), None);
    assert_eq!(one("<message> a<b>no</b><![CDATA[&b]]></message>").text(), " a&b");
}

/// A namespace stands once in a stanza and belongs to each element in it: the longer it may be, the more a tree costs.
#[test]
fn a_tree_is_not_much_larger_than_its_stanza() {
    fn weight(tree: &Element) -> usize {
        let attrs = tree.attrs.iter().map(|a| a.ns.len() + a.name.len() + a.value.len()).sum::<usize>();
        tree.ns.len()
            + tree.name.len()
            + tree.text.len()
            + attrs
            + tree.children.iter().map(weight).sum::<usize>()
    }
    let bomb =
        |n: usize| format!("<iq><p:q xmlns:p='{}'>{}</p:q></iq>", "u".repeat(n), "<p:a/>".repeat(10_000));
    assert!(
        after_header(bomb(100_000).as_bytes()).1.is_some_and(|e| e.condition.name() == "policy-violation")
    );
    let stanza = one(&bomb(256));
    assert!(weight(&stanza.element()) < 64 * stanza.bytes.len());
    let header = |ns: &str, lang: &str| HEADER.replace("urn:q", ns).replace("'de'", &format!("'{lang}'"));
    for (ns, lang) in [("u".repeat(257), "de".to_owned()), ("urn:q".to_owned(), "d".repeat(257))] {
        let error = events([header(&ns, &lang).as_bytes()], Limits::C2S).1;
        assert!(error.is_some_and(|e| e.condition.name() == "policy-violation"));
    }
    // What is forwarded is read again, also where all of it had to be escaped.
    let header = HEADER.replace("'urn:q'", &format!("\"{}\"", "'".repeat(256)));
    let long = format!("<message id=\"{}\" q:a=''>{}</message>", "'".repeat(1_024), "x".repeat(250_000));
    let found = events([header.as_bytes(), long.as_bytes()], Limits::C2S).0;
    let Some(Event::Stanza(stanza)) = found.last() else { panic!("{} events", found.len()) };
    Stanza::from_bytes(stanza.rewrite(None, None)).unwrap();
}

#[test]
fn children_are_taken_out_and_the_rest_stays_as_it_is() {
    let text = "<message a='>'>x <b/><p:b><p:b/></p:b><b>]] ><b/><![CDATA[</b>]]></b>&#10;<c xmlns='u'><b/></c></message>";
    let stanza = Stanza::from_bytes(one(text).rewrite(None, None)).unwrap();
    let without = stanza.without(|child| child.is("jabber:client", "b")).unwrap();
    let expected = stanza.bytes.to_vec();
    let expected = String::from_utf8(expected).unwrap();
    let expected = expected.replace("<b/><p:b>", "<p:b>").replace("<b>]] ><b/><![CDATA[</b>]]></b>", "");
    assert_eq!(without, expected);
    assert_eq!(stanza.without(|child| child.is("u", "b")), None, "only direct children are asked about");
}

#[test]
fn a_stanza_inside_of_another_namespace_keeps_its_own() {
    for text in [
        "<message id='1'><body>x</body>y<z xmlns=''/></message>",
        "<c:message xmlns:c='jabber:client'><body/><p:x/></c:message>",
        "<message xmlns='jabber:client'/>",
    ] {
        let stanza = one(text);
        let mut w = Writer::new();
        w.open("forwarded", "urn:xmpp:forward:0").raw(&stanza.inside());
        let outer = Stanza::from_bytes(w.finish()).unwrap().element();
        let copy = Stanza::from_bytes(stanza.rewrite(None, None)).unwrap();
        assert_eq!(outer.children, [copy.element()], "{text}");
    }
}

#[test]
fn rewriting_stamps_the_start_tag_and_brings_prefixes_along() {
    let from = Jid::parse("a@d.example/it's").unwrap();
    let to = Jid::parse("b@d.example").unwrap();
    let stanza = one(
        "<message from='evil@x' id=\"'\" to='B@d.example'><p:x q:y='1'/><body>&lt;]]&gt;</body></message>",
    );
    let bytes = stanza.rewrite(Some(&from), Some(&to));
    let expected = "<message from='a@d.example/it&apos;s' to='b@d.example' id=\"'\" xmlns:p='urn:p' xmlns:q='urn:q' \
         xml:lang='de'><p:x q:y='1'/><body>&lt;]]&gt;</body></message>";
    assert_eq!(bytes, expected);
    let again = Stanza::from_bytes(bytes).unwrap();
    assert_eq!((again.head.from.as_ref(), again.head.to.as_ref()), (Some(&from), Some(&to)));
    assert_eq!(again.element().children, stanza.element().children);
    // Given nothing it keeps what there is; a language of its own stays; an empty element stays empty.
    let presence = one("<presence to='x@y' xml:lang='fr' />");
    assert_eq!(presence.rewrite(None, None), "<presence to='x@y' xml:lang='fr'/>");
    let shadowed = one("<message><b xmlns:p='urn:inner'><p:c/></b></message>");
    assert_eq!(
        shadowed.rewrite(None, None),
        "<message xml:lang='de'><b xmlns:p='urn:inner'><p:c/></b></message>"
    );
}

#[test]
fn a_stamped_stanza_is_what_reading_its_bytes_gives() {
    let from = Jid::parse("a@d.example/it's").unwrap();
    let many = |n: usize| (0..n).map(|i| format!(" a{i}=''")).collect::<String>();
    let most = Limits::S2S.attributes;
    for text in [
        "<message from='evil@x' id=\"'\" to='B@d.example'><body>&lt;]]&gt;</body></message>".to_owned(),
        "<presence from='@'/>".to_owned(),
        "<presence to='@' from='evil@x'/>".to_owned(),
        "<iq xmlns:from='from' from:from='x' type='get'><q xmlns='urn:q'/></iq>".to_owned(),
        format!("<message{}/>", many(Limits::C2S.attributes)),
        format!("<message{}/>", many(most - 1)),
        format!("<message{} from='x'/>", many(most - 1)),
        format!("<message{}/>", many(most)),
        format!("<message><body>{}</body></message>", "x".repeat(Limits::S2S.bytes - 40)),
    ] {
        let stanza = Stanza::parse(text.as_bytes()).unwrap();
        let start = &text[..text.len().min(80)];
        assert_eq!(stanza.stamp(&from), Stanza::from_bytes(stanza.rewrite(Some(&from), None)), "{start}");
    }
    let full = Stanza::parse(format!("<message{}/>", many(most)).as_bytes()).unwrap();
    assert!(full.stamp(&from).is_err(), "nobody behind us would read it");
}

#[test]
fn white_space_is_swallowed_and_streams_begin_anew() {
    let mut framer = Framer::new(Limits::BEFORE_AUTH);
    framer.feed(HEADER.as_bytes());
    framer.feed(b" \n\t <presence/> \r\n <r xmlns='urn:xmpp:sm:3'/>");
    let mut names = Vec::new();
    while let Some(event) = framer.next().unwrap() {
        if let Event::Stanza(stanza) = event {
            names.push(stanza.head.name);
        }
    }
    assert_eq!(names, ["presence", "r"]);
    assert_eq!((framer.whitespace(), framer.buffered()), (8, 0));
    framer.feed(b"<starttls xmlns='x'/><message>inj");
    assert!(matches!(framer.next(), Ok(Some(Event::Stanza(_)))));
    framer.discard_buffered();
    framer.restart();
    framer.set_limits(Limits::C2S);
    framer.feed(HEADER.as_bytes());
    assert!(matches!(framer.next(), Ok(Some(Event::StreamOpen(_)))));
    framer.feed(b"</stream:stream >junk");
    assert_eq!(framer.next(), Ok(Some(Event::StreamClose)));
    framer.feed(b"<more/>");
    assert_eq!((framer.next(), framer.buffered()), (Ok(None), 0));
}

#[test]
fn work_is_linear_however_the_input_is_split() {
    let body = "x ]]&gt; > '".repeat(10_000);
    let stanza = format!("<message to='a@b'><body>{body}<![CDATA[{body}]]></body></message>");
    let total = HEADER.len() + stanza.len();
    assert!(stanza.len() > 230_000);
    for size in [1, 2, 100, 4096, total] {
        let mut framer = Framer::new(Limits::C2S);
        let mut seen = 0;
        for piece in HEADER.as_bytes().chunks(size).chain(stanza.as_bytes().chunks(size)) {
            framer.feed(piece);
            while framer.next().unwrap().is_some() {
                seen += 1;
            }
        }
        assert_eq!(seen, 2);
        assert!(framer.work() <= 3 * total as u64, "{} for {total} in pieces of {size}", framer.work());
    }
}

#[test]
fn many_small_stanzas_in_one_piece_are_moved_a_bounded_number_of_times() {
    let text = format!("{HEADER}{}", "<presence/>".repeat(20_000));
    let mut framer = Framer::new(Limits::C2S);
    let mut seen = 0;
    for piece in text.as_bytes().chunks(5_000) {
        framer.feed(piece);
        while framer.next().unwrap().is_some() {
            seen += 1;
        }
    }
    assert_eq!(seen, 20_001);
    assert!(framer.work() <= 3 * text.len() as u64);
}

/// A stream made of good and bad pieces, in any order.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let good = prop::sample::select(vec![
        "<message to='b@d' id='1'><body>h\u{e9}llo \u{1f600} &amp; ]] ></body><p:x q:y='&lt;>'/></message>",
        "<presence/>",
        " \n ",
        "<iq type='get' id='2'><q xmlns='u'><![CDATA[ ]] > ]>]]]]><z/></q></iq>",
        "<r xmlns='urn:xmpp:sm:3'/>",
        "</stream:stream>",
        "<presence from='evil@x/y' to='b@d/r' xml:lang='fr' type=\"unavailable\" />",
        "<message xmlns='jabber:client' to='@' from='x'\n><body/></message>",
        "<message from='@' xmlns:n='urn:n' n:from='a' id='&#x41;&lt;'><n:x/></message>",
        "<p:y to='b@d'/>",
    ]);
    let bad = prop::sample::select(FORBIDDEN).prop_map(|(text, _)| text);
    let noise = "[<>/='\"!&;a\\[\\]-]{0,12}".prop_map(String::into_bytes);
    let piece = prop_oneof![
        12 => good.prop_map(|t| t.as_bytes().to_vec()),
        1 => bad.prop_map(|t| t.as_bytes().to_vec()),
        1 => noise,
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..8)
        .prop_map(|pieces| [HEADER.as_bytes().to_vec(), pieces.concat()].concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_events(stream in any_stream(), cuts in prop::collection::vec(any::<u16>(), 0..12)) {
        let whole = events([stream.as_slice()], Limits::BEFORE_AUTH);
        let bytewise = events(stream.chunks(1), Limits::BEFORE_AUTH);
        prop_assert_eq!(&whole, &bytewise);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| usize::from(c) % (stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|w| &stream[w[0]..w[1]]);
        prop_assert_eq!(&whole, &events(pieces, Limits::BEFORE_AUTH));
    }

    #[test]
    fn what_passes_is_forwarded_with_the_same_meaning(stream in any_stream()) {
        let from = Jid::parse("me@d/r").unwrap();
        for event in events([stream.as_slice()], Limits::C2S).0 {
            if let Event::Stanza(stanza) = event {
                let again = Stanza::from_bytes(stanza.rewrite(Some(&from), None)).unwrap();
                prop_assert_eq!(&stanza.stamp(&from).unwrap(), &again);
                prop_assert_eq!(again.head.from.as_ref(), Some(&from));
                prop_assert_eq!(again.element().children, stanza.element().children);
                prop_assert_eq!(again.rewrite(Some(&from), None), again.rewrite(None, None));
            }
        }
    }

    #[test]
    fn a_writer_can_write_anything(text in any::<String>(), value in any::<String>()) {
        let mut w = Writer::new();
        w.open("message", "").attr("a", &value).open("body", "").text(&text);
        let stanza = Stanza::from_bytes(w.finish()).unwrap();
        let legal = |s: &str| s.chars().map(|c| if token::is_xml_char(c) { c } else { '\u{fffd}' }).collect::<String>();
        prop_assert_eq!(stanza.child("jabber:client", "body").unwrap().text, legal(&text));
        let attr = stanza.attr("a").unwrap();
        prop_assert_eq!(attr.as_str(), legal(&value));
    }
}
