//! Whether a received element is the expected one.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use xmpp_core::xml::Writer;
use xmpp_core::xml::tree::Attribute;
use xmpp_core::{Element, ns};

/// What placeholders stood for so far.
pub(super) type Captures = BTreeMap<String, String>;

/// An element may have more children than are written.
const MORE: &str = "...";

/// `Err` says the first thing that differs. `own`: full JID of the receiver, whose `to` may be left out,
/// and its account as `from`.
pub(super) fn fits(
    expected: &Element,
    got: &Element,
    own: &str,
    captures: &mut Captures,
) -> Result<(), String> {
    let bare = own.split('/').next().unwrap_or(own);
    let addressed = |attr: &Attribute| match attr.name.as_str() {
        "to" => attr.value == own || attr.value == bare,
        // Without a sender it is from the receiver's own account (RFC 6120 8.1.2.1).
        "from" => attr.value == bare,
        _ => false,
    };
    let to_us = |attr: &Attribute| attr.ns.is_empty() && addressed(attr);
    element(expected, got, &to_us, captures)
}

fn element(
    expected: &Element,
    got: &Element,
    may_be_there: &dyn Fn(&Attribute) -> bool,
    captures: &mut Captures,
) -> Result<(), String> {
    if (&expected.name, &expected.ns) != (&got.name, &got.ns) {
        return Err(format!("it is {}, not {}", named(got), named(expected)));
    }
    attributes(expected, got, may_be_there, captures)?;
    let open = expected.text.contains(MORE);
    let text = expected.text.replace(MORE, "");
    if !value(text.trim(), Some(got.text.trim()), captures) {
        return Err(format!(
            "the text of {} is \"{}\", not \"{}\"",
            named(got),
            got.text.trim(),
            text.trim()
        ));
    }
    if !open && got.children.len() > expected.children.len() {
        let extra = got.children.iter().find(|g| !expected.children.iter().any(|e| e.is(&g.ns, &g.name)));
        let what =
            extra.map_or_else(|| "too many children".to_owned(), |g| format!("{} as a child", named(g)));
        return Err(format!("{} has {what}", named(got)));
    }
    let mut used = vec![false; got.children.len()];
    children(&expected.children, &got.children, &mut used, captures)
        .map_err(|what| format!("in {}: {what}", named(got)))
}

fn attributes(
    expected: &Element,
    got: &Element,
    may_be_there: &dyn Fn(&Attribute) -> bool,
    captures: &mut Captures,
) -> Result<(), String> {
    for attr in &expected.attrs {
        let found = got.attr_ns(&attr.ns, &attr.name);
        if !value(&attr.value, found, captures) {
            let wanted = captures.get(attr.value.as_str()).map_or(attr.value.as_str(), String::as_str);
            let found = found.map_or_else(|| "not there".to_owned(), |found| format!("'{found}'"));
            return Err(format!("{} of {} is {found}, not '{wanted}'", attr.name, named(got)));
        }
    }
    // A server may pass on the language of the sender's stream.
    let lang = |attr: &Attribute| attr.name == "lang" && attr.ns == ns::XML;
    let extra = |a: &&Attribute| expected.attr_ns(&a.ns, &a.name).is_none() && !may_be_there(a) && !lang(a);
    match got.attrs.iter().find(extra) {
        Some(extra) => Err(format!("{} has {}='{}' besides", named(got), extra.name, extra.value)),
        None => Ok(()),
    }
}

/// Each expected child needs one of its own among those received. What a wrong choice captured is forgotten.
fn children(
    expected: &[Element],
    got: &[Element],
    used: &mut Vec<bool>,
    captures: &mut Captures,
) -> Result<(), String> {
    let Some((first, rest)) = expected.split_first() else { return Ok(()) };
    let mut why = None;
    for (index, candidate) in got.iter().enumerate() {
        if used[index] {
            continue;
        }
        let before = captures.clone();
        let tried = element(first, candidate, &|_| false, captures).and_then(|()| {
            used[index] = true;
            let rest = children(rest, got, used, captures);
            used[index] = rest.is_ok();
            rest
        });
        match tried {
            Ok(()) => return Ok(()),
            Err(what) if candidate.is(&first.ns, &first.name) => why = why.or(Some(what)),
            Err(_) => {}
        }
        *captures = before;
    }
    Err(why.unwrap_or_else(|| format!("no {}", named(first))))
}

/// Compares a value, or text, with what may be a placeholder.
fn value(expected: &str, got: Option<&str>, captures: &mut Captures) -> bool {
    let placeholder = expected.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    match (placeholder, got) {
        (Some("any?"), _) | (Some("any"), Some(_)) => true,
        (Some("any"), None) => false,
        (Some(name), Some(got)) => match captures.get(expected) {
            Some(known) => known == got,
            None if name.is_empty() || got.is_empty() => false,
            None => {
                captures.insert(expected.to_owned(), got.to_owned());
                true
            }
        },
        (None, Some(got)) => expected == got,
        (_, None) => false,
    }
}

/// A text to be sent with its placeholders filled in; `Err` names one that nothing was captured for.
pub(super) fn fill(text: &str, captures: &Captures) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find('{') {
        let Some(len) = rest[begin..].find('}') else { break };
        let name = &rest[begin..=begin + len];
        let value = captures.get(name).ok_or_else(|| format!("{name} was not received before"))?;
        out.push_str(&rest[..begin]);
        out.push_str(&escaped(value));
        rest = &rest[begin + len + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn escaped(value: &str) -> String {
    value.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;").replace('"', "&quot;")
}

fn named(element: &Element) -> String {
    format!("<{} xmlns='{}'>", element.name, element.ns)
}

/// An element as text, for people.
pub(super) fn show(element: &Element) -> String {
    let mut w = Writer::new();
    element.write(&mut w, ns::CLIENT);
    String::from_utf8_lossy(&w.finish()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::parse::stanzas;
    use super::*;

    const OWN: &str = "juliet@example.org/balcony";

    fn read(text: &str) -> Element {
        stanzas(text).unwrap().remove(0).element()
    }

    fn check(expected: &str, got: &str) -> Result<Captures, String> {
        let mut captures = Captures::new();
        fits(&read(expected), &read(got), OWN, &mut captures).map(|()| captures)
    }

    #[test]
    fn what_means_the_same_fits() {
        for (expected, got) in [
            ("<presence from='a' id='1'/>", "<presence id=\"1\"  from='a'></presence>"),
            (
                "<message><body>a &amp; b</body></message>",
                "<message><body><![CDATA[a & b]]></body></message>",
            ),
            ("<iq><x xmlns='urn:x'><y/></x></iq>", "<iq><p:x xmlns:p='urn:x'><p:y/></p:x></iq>"),
            (
                "<iq><x xmlns='urn:x' k='1'/><x xmlns='urn:x'/></iq>",
                "<iq><x xmlns='urn:x'/><x xmlns='urn:x' k='1'/></iq>",
            ),
            ("<message/>", "<message to='juliet@example.org' xml:lang='en'/>"),
            ("<iq/>", "<iq from='juliet@example.org' to='juliet@example.org/balcony'/>"),
            ("<message>\n  <body> hi </body>\n</message>", "<message><body>hi</body></message>"),
            ("<iq>...<x xmlns='urn:x'/></iq>", "<iq><z xmlns='urn:z'/><x xmlns='urn:x'/></iq>"),
            ("<a b='{any?}'/>", "<a/>"),
            ("<a b='{any}'>{any}</a>", "<a b=''>x</a>"),
        ] {
            assert_eq!(check(expected, got).map(|_| ()), Ok(()), "{expected} / {got}");
        }
    }

    #[test]
    fn what_does_not_says_why() {
        for (expected, got, why) in [
            ("<presence/>", "<message/>", "it is <message"),
            ("<presence/>", "<presence type='unavailable'/>", "type='unavailable' besides"),
            ("<presence to='{any}'/>", "<presence/>", "to of <presence xmlns='jabber:client'> is not there"),
            (
                "<message id='1'/>",
                "<message id='2'/>",
                "id of <message xmlns='jabber:client'> is '2', not '1'",
            ),
            ("<message/>", "<message to='romeo@example.org'/>", "to='romeo@example.org' besides"),
            ("<iq/>", "<iq from='romeo@example.org'/>", "from='romeo@example.org' besides"),
            ("<iq/>", "<iq from='juliet@example.org/phone'/>", "from='juliet@example.org/phone' besides"),
            ("<iq><x xmlns='urn:x'/></iq>", "<iq><x xmlns='urn:y'/></iq>", "no <x xmlns='urn:x'>"),
            ("<iq><x xmlns='urn:x'/></iq>", "<iq/>", "no <x xmlns='urn:x'>"),
            ("<iq/>", "<iq><x xmlns='urn:x'/></iq>", "has <x xmlns='urn:x'> as a child"),
            (
                "<iq><x xmlns='urn:x'/></iq>",
                "<iq><x xmlns='urn:x'/><x xmlns='urn:x'/></iq>",
                "too many children",
            ),
            (
                "<iq><x xmlns='urn:x' to='juliet@example.org'/></iq>",
                "<iq><x xmlns='urn:x'/></iq>",
                "is not there",
            ),
            ("<message><body>a</body></message>", "<message><body>b</body></message>", "is \"b\", not \"a\""),
        ] {
            let found = check(expected, got).unwrap_err();
            assert!(found.contains(why), "{expected} / {got}: {found}");
        }
    }

    #[test]
    fn captures_hold_and_are_filled_in() {
        let twice = "<iq id='{i}'><x xmlns='urn:x' v='{i}'/></iq>";
        let captures = check(twice, "<iq id='a&amp;b'><x xmlns='urn:x' v='a&amp;b'/></iq>").unwrap();
        assert_eq!(fill("<iq id='{i}'/>", &captures).unwrap(), "<iq id='a&amp;b'/>");
        assert!(check(twice, "<iq id='a'><x xmlns='urn:x' v='b'/></iq>").is_err());
        assert!(fill("<iq id='{j}'/>", &captures).unwrap_err().contains("{j}"));
    }

    #[test]
    fn a_wrong_choice_among_children_is_taken_back() {
        let expected = "<iq><i xmlns='u' j='{j}'/><i xmlns='u' j='x'/></iq>";
        let captures = check(expected, "<iq><i xmlns='u' j='x'/><i xmlns='u' j='y'/></iq>").unwrap();
        assert_eq!(captures["{j}"], "y");
    }
}
