//! The strict check of one complete stanza or stream header (RFC 6120 11), in one pass.
//!
//! Bytes that pass may be forwarded as they are: no client, server or parser behind us can read them differently.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use compact_str::CompactString;

use super::scope::{OUTER_PREFIXES, Scope};
use super::token::{Attr, Name, Token, Tokens, legal_text, malformed, restricted, too_much};
use super::{Limits, Prefix, StreamScope};
use crate::error::{StreamCondition, StreamError};
use crate::jid::Jid;
use crate::ns;
use crate::stanza::{Child, Head, Kind};

/// Longest id of a stanza, in bytes. Every answer repeats it, and may have to escape it: it must not make an answer longer
/// than what the other node reads.
const ID_BYTES: usize = 1_024;

/// The start tag of a stream (RFC 6120 4.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamHeader {
    /// The domain the client wants.
    pub to: Option<Jid>,
    /// Who the client says it is.
    pub from: Option<Jid>,
    /// Version of XMPP as written, such as `1.0`.
    pub version: Option<CompactString>,
    /// Stream id; only a server gives one.
    pub id: Option<CompactString>,
    /// Default language, and the prefixes that stanzas may use.
    pub scope: StreamScope,
}

/// Checks a complete stanza and takes its head. `scope` is what the stream header declared.
pub fn check_stanza(bytes: &[u8], scope: &StreamScope, limits: &Limits) -> Result<Head, StreamError> {
    if bytes.len() > limits.bytes {
        return Err(too_much("stanza too long"));
    }
    let mut tokens = Tokens::new(legal_text(bytes)?, limits);
    let mut names = Scope::new(&scope.prefixes, ns::CLIENT);
    let mut open: Vec<Name<'_>> = Vec::with_capacity(8);
    let mut head: Option<Head> = None;
    while let Some(token) = tokens.next()? {
        match token {
            Token::Start { name, empty } => {
                names.enter(&tokens.attrs, limits)?;
                let ns = names.element(name)?;
                match (&mut head, open.len()) {
                    (None, _) => head = Some(head_of(name, ns, &tokens, scope)?),
                    (Some(_), 0) => return Err(malformed("more than one element")),
                    (Some(head), level) => count(head, level, name, ns, limits)?,
                }
                if empty { names.leave() } else { open.push(name) }
            }
            Token::End(name) => {
                if open.pop() != Some(name) {
                    return Err(malformed("end tag that does not match"));
                }
                names.leave();
            }
            Token::Text(_) | Token::CData(_) if open.is_empty() => return Err(malformed("text outside")),
            Token::Text(_) | Token::CData(_) => {}
        }
    }
    match head {
        Some(mut head) if open.is_empty() => {
            head.used = names.used();
            Ok(head)
        }
        _ => Err(malformed("element not closed")),
    }
}

/// Counts an element below the stanza and notes it if it is a direct child.
fn count(
    head: &mut Head,
    level: usize,
    name: Name<'_>,
    ns: &str,
    limits: &Limits,
) -> Result<(), StreamError> {
    head.elements += 1;
    head.depth = head.depth.max(level as u32 + 1);
    if head.elements > limits.elements {
        return Err(too_much("too many elements"));
    }
    if head.depth > limits.depth {
        return Err(too_much("nested too deeply"));
    }
    if level == 1 {
        head.child_count += 1;
        if !head.children.iter().any(|c| c.name == name.local && c.ns == ns) {
            if head.children.len() >= limits.distinct_children {
                return Err(too_much("too many different children"));
            }
            head.children.push(Child { name: name.local.into(), ns: ns.into() });
        }
    }
    Ok(())
}

fn head_of(name: Name<'_>, ns: &str, tokens: &Tokens<'_>, scope: &StreamScope) -> Result<Head, StreamError> {
    let mut head = Head {
        kind: Kind::of(ns, name.local),
        name: name.local.into(),
        ns: ns.into(),
        stream_lang: scope.lang.clone(),
        tag_end: tokens.position(),
        elements: 1,
        depth: 1,
        ..Head::default()
    };
    for attr in &tokens.attrs {
        match (attr.name.prefix, attr.name.local) {
            ("", "to") => head.to = address(attr, &mut head.jid_malformed),
            ("", "from") => head.from = address(attr, &mut head.jid_malformed),
            ("", "id") if attr.value().len() > ID_BYTES => return Err(too_much("id too long")),
            ("", "id") => head.id = Some(attr.value().into()),
            ("", "type") => head.type_ = Some(attr.value().into()),
            ("xml", "lang") => head.lang = Some(attr.value().into()),
            _ => {}
        }
    }
    Ok(head)
}

fn address(attr: &Attr<'_>, malformed: &mut bool) -> Option<Jid> {
    let jid = Jid::parse(&attr.value()).ok();
    *malformed |= jid.is_none();
    jid
}

/// Checks the start tag of a stream, which is all of `bytes`, and gives its name as written.
pub fn check_header(bytes: &[u8], limits: &Limits) -> Result<(StreamHeader, CompactString), StreamError> {
    let mut tokens = Tokens::new(legal_text(bytes)?, limits);
    let Some(Token::Start { name, empty: false }) = tokens.next()? else {
        return Err(StreamError::new(StreamCondition::BadFormat).with_text("not a stream header"));
    };
    if tokens.position() != bytes.len() {
        return Err(malformed("stream header"));
    }
    let mut names = Scope::new(&[], "");
    names.enter(&tokens.attrs, limits)?;
    let prefix_error = |_| StreamError::new(StreamCondition::BadNamespacePrefix);
    let element_ns = names.element(name).map_err(prefix_error)?;
    if name.local != "stream" {
        return Err(StreamError::new(StreamCondition::BadFormat).with_text("not a stream header"));
    }
    if name.prefix.is_empty() {
        return Err(StreamError::new(StreamCondition::BadNamespacePrefix));
    }
    let default = Name { prefix: "", local: "" };
    if element_ns != ns::STREAM || names.element(default)? != ns::CLIENT {
        return Err(StreamError::new(StreamCondition::InvalidNamespace));
    }
    let mut header = StreamHeader::default();
    for attr in &tokens.attrs {
        header_attribute(&mut header, attr, limits)?;
    }
    let mut qname = CompactString::from(name.prefix);
    qname.push(':');
    qname.push_str(name.local);
    Ok((header, qname))
}

fn header_attribute(header: &mut StreamHeader, attr: &Attr<'_>, limits: &Limits) -> Result<(), StreamError> {
    let jid = || Jid::parse(&attr.value()).map_err(|_| StreamError::new(StreamCondition::ImproperAddressing));
    match (attr.name.prefix, attr.name.local) {
        ("", "to") => header.to = Some(jid()?),
        ("", "from") => header.from = Some(jid()?),
        ("", "version") => header.version = Some(attr.value().into()),
        ("", "id") => header.id = Some(attr.value().into()),
        ("xml", "lang") if attr.value().len() > limits.name_bytes => {
            return Err(too_much("language too long"));
        }
        ("xml", "lang") => header.scope.lang = Some(attr.value().into()),
        // XML-NAMES 3 allows to declare `xml` as what it is; there is nothing to remember.
        ("xmlns", "xml") => {}
        ("xmlns", prefix) => {
            if header.scope.prefixes.len() >= OUTER_PREFIXES {
                return Err(too_much("too many namespace declarations"));
            }
            header.scope.prefixes.push(Prefix { prefix: prefix.into(), ns: attr.value().into() });
        }
        _ => {}
    }
    Ok(())
}

/// Checks `<?xml ...?>` at the start of a stream (RFC 6120 11.5): version 1.0, UTF-8.
pub(crate) fn check_declaration(bytes: &[u8], limits: &Limits) -> Result<(), StreamError> {
    let text = legal_text(bytes)?;
    let Some(body) = text.strip_prefix("<?xml").and_then(|t| t.strip_suffix("?>")) else {
        return Err(restricted("processing instruction"));
    };
    let mut tokens = Tokens::new(body, limits);
    while tokens.skip_space() && tokens.peek().is_some() {
        tokens.attribute()?;
    }
    if tokens.peek().is_some() {
        return Err(malformed("XML declaration"));
    }
    for (i, attr) in tokens.attrs.iter().enumerate() {
        match (i, attr.name.prefix, attr.name.local, attr.raw) {
            (0, "", "version", "1.0") => {}
            (1, "", "encoding", e) if e.eq_ignore_ascii_case("utf-8") => {}
            (1, "", "encoding", _) => return Err(StreamError::new(StreamCondition::UnsupportedEncoding)),
            (1 | 2, "", "standalone", "yes" | "no") => {}
            _ => return Err(malformed("XML declaration")),
        }
    }
    if tokens.attrs.is_empty() { Err(malformed("XML declaration")) } else { Ok(()) }
}
