//! The framer and all that reads what it lets pass: the same events however the bytes were split, within its limits, in
//! linear time, and a stanza that may be forwarded.
//!
//! Input: a byte that chooses limits and whether `<auth/>` restarts the stream, a byte that chooses a split, the stream.

use xmpp_core::dual::Dual;
use xmpp_core::error::{StanzaCondition, StanzaError, StreamError};
use xmpp_core::jid::Jid;
use xmpp_core::sm::Sm;
use xmpp_core::stanza::{Kind, Stanza};
use xmpp_core::xml::{Event, Framer, Limits, Writer};
use xmpp_core::{Element, ns};

use super::input::{Input, pieces};

/// So narrow that small inputs reach every limit.
const NARROW: Limits = Limits {
    bytes: 300,
    elements: 6,
    depth: 4,
    attributes: 5,
    namespaces: 4,
    name_bytes: 40,
    distinct_children: 3,
};
/// What came of a stream.
#[derive(PartialEq, Debug)]
struct Seen {
    events: Vec<Event>,
    error: Option<StreamError>,
    whitespace: u64,
}

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let (choice, split) = (input.byte(), input.byte());
    let limits = [NARROW, Limits::BEFORE_AUTH, Limits::C2S, Limits::C2S][usize::from(choice & 3)];
    let restarts = choice & 4 != 0;
    let at_once = play(&[input.0], limits, restarts);
    let bytes: Vec<&[u8]> = input.0.chunks(1).collect();
    assert_eq!(play(&bytes, limits, restarts), at_once, "byte by byte");
    assert_eq!(play(&pieces(input.0, split), limits, restarts), at_once, "in pieces");
    let mut prefixes = 0;
    for event in &at_once.events {
        if let Event::StreamOpen(header) = event {
            prefixes = header.scope.prefixes.len() + 1;
        }
        if let Event::Stanza(stanza) = event {
            within(stanza, &limits);
            forwarded(stanza, prefixes * (7 * limits.name_bytes + 10));
            understood(stanza, &limits);
        }
    }
}

/// Feeds the pieces of a stream to a framer.
fn play(pieces: &[&[u8]], limits: Limits, restarts: bool) -> Seen {
    let mut framer = Framer::new(limits);
    let mut seen = Seen { events: Vec::new(), error: None, whitespace: 0 };
    let mut fed = 0;
    'stream: for piece in pieces {
        framer.feed(piece);
        fed += piece.len() as u64;
        loop {
            match framer.next() {
                Ok(Some(event)) => {
                    if restarts && matches!(&event, Event::Stanza(s) if s.head.is(ns::SASL, "auth")) {
                        framer.restart();
                    }
                    seen.events.push(event);
                }
                Ok(None) => break,
                Err(error) => {
                    seen.error = Some(error);
                    break 'stream;
                }
            }
        }
        assert!(framer.buffered() < limits.bytes, "more is kept than a stanza may have");
    }
    if let Some(error) = &seen.error {
        framer.feed(b"<message/>");
        assert_eq!(framer.next(), Err(error.clone()), "an error is for ever");
    }
    assert!(framer.work() <= 4 * fed, "{} steps for {fed} bytes", framer.work());
    seen.whitespace = framer.whitespace();
    seen
}

fn within(stanza: &Stanza, limits: &Limits) {
    let head = &stanza.head;
    assert!(stanza.bytes.len() <= limits.bytes);
    assert!(head.elements <= limits.elements && head.depth <= limits.depth);
    assert!(head.children.len() <= limits.distinct_children && head.child_count < head.elements.max(1));
}

/// What is forwarded stands alone, says the same, and is no more than this longer.
fn forwarded(stanza: &Stanza, more: usize) {
    let copy = stanza.rewrite(None, None);
    assert!(copy.len() <= stanza.bytes.len() + more, "{} bytes of {}", copy.len(), stanza.bytes.len());
    let copy = Stanza::from_bytes(copy).expect("what was taken is forwarded");
    let mut tree = copy.element();
    if stanza.head.lang.is_none() {
        tree.attrs.retain(|attr| !(attr.ns == ns::XML && attr.name == "lang"));
    }
    assert_eq!(tree, stanza.element(), "a stanza changed on its way");
    let (head, old) = (&copy.head, &stanza.head);
    assert_eq!((head.kind, &head.to, &head.from, &head.id), (old.kind, &old.to, &old.from, &old.id));
    assert_eq!((&head.type_, &head.children, head.elements), (&old.type_, &old.children, old.elements));

    let from = Jid::parse("romeo@example.org/o'r\"chard").expect("a JID");
    let stamped = Stanza::from_bytes(stanza.rewrite(Some(&from), Some(&from))).expect("a stamp fits");
    assert_eq!((stamped.head.from.as_ref(), stamped.head.to.as_ref()), (Some(&from), Some(&from)));
    assert_eq!(stamped.attr("from").as_deref(), Some(from.as_str()), "one sender only");
    if let Some(reply) = StanzaError::new(StanzaCondition::NotAcceptable).reply(&stamped) {
        let reply = Stanza::from_bytes(reply).expect("an error is a stanza");
        assert_eq!((reply.head.kind, reply.head.type_.as_deref()), (old.kind, Some("error")));
        assert_eq!(reply.head.id, old.id);
    }
}

/// All ways to look into a stanza see the same.
fn understood(stanza: &Stanza, limits: &Limits) {
    let tree = stanza.element();
    let head = &stanza.head;
    let (elements, bytes) = weight(&tree);
    assert_eq!(elements, head.elements as usize);
    assert!(bytes <= stanza.bytes.len() * limits.name_bytes, "{bytes} bytes of {}", stanza.bytes.len());
    assert_eq!((&tree.name, &tree.ns), (&head.name, &head.ns));
    assert_eq!(tree.children.len(), head.child_count as usize);
    assert_eq!((tree.attr("id"), tree.attr("type")), (head.id.as_deref(), head.type_.as_deref()));
    assert_eq!(stanza.attr("id"), head.id);
    assert_eq!(stanza.text(), tree.text);
    assert_eq!(stanza.payload().as_ref(), tree.children.first());
    for child in &head.children {
        assert_eq!(stanza.child(&child.ns, &child.name).as_ref(), tree.child(&child.ns, &child.name));
    }
    let to = tree.attr("to").map(|to| Jid::parse(to).ok());
    assert_eq!(to.clone().flatten(), head.to);
    assert!(to != Some(None) || head.jid_malformed);
    written(&tree);
    taken_out(stanza, &tree);
    if let Ok(Some(sm)) = Sm::parse(stanza) {
        let again = Stanza::from_bytes(sm.to_bytes()).expect("it is an element");
        assert_eq!(Sm::parse(&again), Ok(Some(sm)));
        assert_eq!(head.kind, Kind::Other);
    }
    if let Ok(Some(dual)) = Dual::parse(stanza) {
        let again = Stanza::from_bytes(dual.to_bytes()).expect("it is an element");
        assert_eq!(Dual::parse(&again), Ok(Some(dual)));
    }
}

/// A child that is taken out is gone, and the others are what they were; inside of another element all is as it was.
fn taken_out(stanza: &Stanza, tree: &Element) {
    if let Some(first) = tree.children.first() {
        let unwanted = |child: &Element| child.is(&first.ns, &first.name);
        let rest = stanza.without(unwanted).expect("there is one");
        let rest = Stanza::from_bytes(Stanza { bytes: rest, ..stanza.clone() }.rewrite(None, None))
            .expect("a stanza");
        let kept: Vec<&Element> = tree.children.iter().filter(|child| !unwanted(child)).collect();
        assert_eq!(rest.element().children.iter().collect::<Vec<_>>(), kept);
        assert_eq!(rest.text(), tree.text);
    }
    let mut w = Writer::new();
    w.open("forwarded", "urn:xmpp:forward:0").raw(&stanza.inside());
    let outer = Stanza::from_bytes(w.finish()).expect("a copy is well formed").element();
    assert_eq!(outer.children.len(), 1);
    assert_eq!(outer.children[0].children, tree.children);
    assert_eq!((&outer.children[0].ns, &outer.children[0].name), (&tree.ns, &tree.name));
}

/// How many elements and bytes there are in a tree.
fn weight(tree: &Element) -> (usize, usize) {
    let attrs = tree.attrs.iter().map(|a| a.ns.len() + a.name.len() + a.value.len()).sum::<usize>();
    let own = (1, tree.ns.len() + tree.name.len() + tree.text.len() + attrs);
    tree.children.iter().map(weight).fold(own, |sum, more| (sum.0 + more.0, sum.1 + more.1))
}

/// A tree that is written is read as the same tree.
fn written(tree: &Element) {
    for outer in ["", ns::CLIENT] {
        let mut w = Writer::new();
        tree.write(&mut w, outer);
        let again = Stanza::from_bytes(w.finish()).expect("what is written is a stanza");
        // Alone it stands in the namespace of clients.
        if !(outer.is_empty() && tree.ns.is_empty()) {
            assert_eq!(&again.element(), tree, "written inside {outer:?}");
        }
    }
}
