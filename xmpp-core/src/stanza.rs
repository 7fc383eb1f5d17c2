//! A stanza on its way through: a parsed head and the bytes that were checked (RFC 6120 8).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use compact_str::CompactString;

use crate::error::{StanzaCondition, StanzaError, StreamError};
use crate::jid::Jid;
use crate::ns;
use crate::xml::scope::Scope;
use crate::xml::token::{Token, Tokens, legal_text, line_ends, unescape};
use crate::xml::tree::{self, Element};
use crate::xml::write::escape_attr;
use crate::xml::{Limits, Prefix, StreamScope, strict};

/// Which of the three stanzas it is (RFC 6120 8.2), or none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `<message/>`: push.
    Message,
    /// `<presence/>`: publish and subscribe.
    Presence,
    /// `<iq/>`: request and response.
    Iq,
    /// Not a stanza: a top-level element such as those of XEP-0198.
    #[default]
    Other,
}

impl Kind {
    pub(crate) fn of(ns: &str, name: &str) -> Kind {
        match (ns, name) {
            (ns::CLIENT, "message") => Kind::Message,
            (ns::CLIENT, "presence") => Kind::Presence,
            (ns::CLIENT, "iq") => Kind::Iq,
            _ => Kind::Other,
        }
    }

    /// Element name; empty for [`Kind::Other`].
    pub fn name(self) -> &'static str {
        match self {
            Kind::Message => "message",
            Kind::Presence => "presence",
            Kind::Iq => "iq",
            Kind::Other => "",
        }
    }
}

/// Name of a direct child of a stanza.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Child {
    /// Local name.
    pub name: CompactString,
    /// Namespace.
    pub ns: CompactString,
}

/// What routing needs to know of a stanza without looking inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Which stanza it is.
    pub kind: Kind,
    /// Local name of the element.
    pub name: CompactString,
    /// Namespace of the element.
    pub ns: CompactString,
    /// Addressee. `None` also if it was no JID: ask [`Stanza::check_addresses`] before taking `None` for "the server".
    pub to: Option<Jid>,
    /// Sender as written by the client; nothing to rely on before it is stamped. `None` also if it was no JID.
    pub from: Option<Jid>,
    /// `to` or `from` was given and is no JID.
    pub jid_malformed: bool,
    /// Stanza id.
    pub id: Option<CompactString>,
    /// The attribute `type`.
    pub type_: Option<CompactString>,
    /// `xml:lang` of the stanza itself.
    pub lang: Option<CompactString>,
    /// The *different* direct children in order of appearance; equal ones once.
    pub children: Vec<Child>,
    /// How many direct children there are, equal ones counted each.
    pub child_count: u32,
    /// How many elements, this one included.
    pub elements: u32,
    /// Deepest nesting; 1 without children.
    pub depth: u32,
    /// Prefixes of the stream header that the stanza uses.
    pub(crate) used: Vec<Prefix>,
    /// `xml:lang` of the stream.
    pub(crate) stream_lang: Option<CompactString>,
    /// Length of the start tag in bytes.
    pub(crate) tag_end: usize,
}

impl Head {
    /// Whether there is a direct child with this name.
    pub fn has_child(&self, ns: &str, name: &str) -> bool {
        self.children.iter().any(|c| c.name == name && c.ns == ns)
    }

    /// Whether this is the top-level element with this name.
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.name == name && self.ns == ns
    }
}

/// A checked top-level element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza {
    /// The parsed head.
    pub head: Head,
    /// The element as received. It may use prefixes of its stream header: forward what [`Stanza::rewrite`] gives.
    pub bytes: Bytes,
}

impl Stanza {
    /// Checks a complete stanza that stands alone, in the default namespace `jabber:client`.
    pub fn parse(bytes: &[u8]) -> Result<Stanza, StreamError> {
        Stanza::from_bytes(Bytes::copy_from_slice(bytes))
    }

    /// Like [`Stanza::parse`], without a copy.
    pub fn from_bytes(bytes: Bytes) -> Result<Stanza, StreamError> {
        let head = strict::check_stanza(&bytes, &StreamScope::default(), &Limits::S2S)?;
        Ok(Stanza { head, bytes })
    }

    /// `jid-malformed` if an address is there and is no JID. Whoever routes asks this first and sends the error's
    /// reply; the stream goes on (RFC 6120 8.3.3.8).
    pub fn check_addresses(&self) -> Result<(), StanzaError> {
        match self.head.jid_malformed {
            true => Err(StanzaError::new(StanzaCondition::JidMalformed)),
            false => Ok(()),
        }
    }

    /// Value of an attribute without prefix in the start tag.
    pub fn attr(&self, name: &str) -> Option<CompactString> {
        self.attr_ns("", name)
    }

    /// Value of an attribute in a namespace in the start tag.
    pub fn attr_ns(&self, ns: &str, name: &str) -> Option<CompactString> {
        let limits = &Limits::S2S;
        let mut tokens = self.start_tag(limits)?;
        tokens.next().ok()?;
        let mut names = Scope::new(&self.head.used, ns::CLIENT);
        names.enter(&tokens.attrs, limits).ok()?;
        let wanted = |a: &&crate::xml::token::Attr<'_>| {
            a.name.local == name && a.declares().is_none() && names.attribute(a.name) == Ok(ns)
        };
        tokens.attrs.iter().find(wanted).map(|a| a.value().into())
    }

    /// The first direct child with this name, as a tree.
    pub fn child(&self, ns: &str, name: &str) -> Option<Element> {
        if !self.head.has_child(ns, name) {
            return None;
        }
        tree::find(&self.bytes, &self.head.used, 1, |n, l| l == name && n == ns).ok().flatten()
    }

    /// The first direct child, whatever it is: the payload of an IQ.
    pub fn payload(&self) -> Option<Element> {
        if self.head.child_count == 0 {
            return None;
        }
        tree::find(&self.bytes, &self.head.used, 1, |_, _| true).ok().flatten()
    }

    /// The whole stanza as a tree.
    pub fn element(&self) -> Element {
        tree::find(&self.bytes, &self.head.used, 0, |_, _| true).ok().flatten().unwrap_or_default()
    }

    /// Character data directly in the top-level element, unescaped: the base64 of a SASL element.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let limits = &Limits::S2S;
        let Ok(text) = legal_text(&self.bytes) else { return out };
        let mut tokens = Tokens::new(text, limits);
        let mut depth = 0u32;
        while let Ok(Some(token)) = tokens.next() {
            match token {
                Token::Start { empty, .. } => depth += u32::from(!empty),
                Token::End(_) => depth = depth.saturating_sub(1),
                Token::Text(text) if depth == 1 => out.push_str(&unescape(text, false)),
                Token::CData(text) if depth == 1 => out.push_str(&line_ends(text)),
                Token::Text(_) | Token::CData(_) => {}
            }
        }
        out
    }

    /// The stanza for another stream: `from` and `to` set where given and kept where not, the stream's language and
    /// the prefixes it uses brought along, the payload copied as it is. A stanza from a client MUST be given `from`
    /// (S18).
    pub fn rewrite(&self, from: Option<&Jid>, to: Option<&Jid>) -> Bytes {
        self.rewritten(from, to, false).map_or_else(Bytes::new, |rewritten| rewritten.bytes)
    }

    /// The stanza as it is forwarded, stamped with its sender (S18): what reading the bytes of [`Stanza::rewrite`] gives,
    /// without reading them again. They were checked, and only the start tag is another.
    pub fn stamp(&self, from: &Jid) -> Result<Stanza, StreamError> {
        let Some(Rewritten { bytes, tag_end, attributes }) = self.rewritten(Some(from), None, false) else {
            return Stanza::from_bytes(Bytes::new());
        };
        let head = &self.head;
        // The new tag may have too much in it for whoever reads it behind us, or other names, or its addresses are to be
        // looked at again. Then it is read here first.
        let small = bytes.len() <= Limits::C2S.bytes && attributes <= Limits::C2S.attributes;
        if head.jid_malformed || !head.used.is_empty() || !small {
            return Stanza::from_bytes(bytes);
        }
        let (lang, from) = (head.lang.clone().or_else(|| head.stream_lang.clone()), Some(from.clone()));
        Ok(Stanza { head: Head { from, lang, stream_lang: None, tag_end, ..head.clone() }, bytes })
    }

    fn rewritten(&self, from: Option<&Jid>, to: Option<&Jid>, declare: bool) -> Option<Rewritten> {
        let limits = &Limits::S2S;
        let start = self.start_tag(limits).and_then(|mut t| match t.next() {
            Ok(Some(Token::Start { name, empty })) => Some((name, empty, t.attrs)),
            _ => None,
        });
        let Some((name, empty, attrs)) = start else {
            debug_assert!(false, "head and bytes of a stanza do not fit");
            return None;
        };
        let mut tag = String::with_capacity(self.bytes.len() + 128);
        tag.push('<');
        if !name.prefix.is_empty() {
            tag.push_str(name.prefix);
            tag.push(':');
        }
        tag.push_str(name.local);
        if declare && !attrs.iter().any(|a| a.declares() == Some("")) {
            push_attr(&mut tag, "xmlns", ns::CLIENT);
        }
        for (key, jid) in [("from", from), ("to", to)] {
            if let Some(jid) = jid {
                push_attr(&mut tag, key, jid.as_str());
            }
        }
        for attr in &attrs {
            let replaced = attr.name.prefix.is_empty()
                && ((attr.name.local == "from" && from.is_some())
                    || (attr.name.local == "to" && to.is_some()));
            if !replaced {
                tag.push(' ');
                tag.push_str(attr.whole);
            }
        }
        for prefix in &self.head.used {
            let own = |a: &crate::xml::token::Attr<'_>| a.declares() == Some(prefix.prefix.as_str());
            if !attrs.iter().any(own) {
                push_attr(&mut tag, &format!("xmlns:{}", prefix.prefix), &prefix.ns);
            }
        }
        if let (None, Some(lang)) = (&self.head.lang, &self.head.stream_lang) {
            push_attr(&mut tag, "xml:lang", lang);
        }
        tag.push_str(if empty { "/>" } else { ">" });
        // More than there can be, now and again.
        let attributes = attrs.len() + self.head.used.len() + 3;
        let mut out = tag.into_bytes();
        let tag_end = out.len();
        out.extend_from_slice(&self.bytes[self.head.tag_end..]);
        Some(Rewritten { bytes: Bytes::from(out), tag_end, attributes })
    }

    /// The stanza without the direct children that `unwanted` says yes to; what is left is copied as it is. It is asked with
    /// names and attributes only. `None`: nothing is taken out.
    pub fn without(&self, unwanted: impl Fn(&Element) -> bool) -> Option<Bytes> {
        tree::cut(&self.bytes, &self.head.used, unwanted).ok().flatten()
    }

    /// The stanza as a child of an element in another namespace, as in a carbon copy: like [`Stanza::rewrite`], and its
    /// namespace is declared.
    pub fn inside(&self) -> String {
        let bytes = self.rewritten(None, None, true).map_or_else(Bytes::new, |rewritten| rewritten.bytes);
        // Checked when the stanza was read.
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn start_tag<'a>(&'a self, limits: &'a Limits) -> Option<Tokens<'a>> {
        let bytes = self.bytes.get(..self.head.tag_end)?;
        Some(Tokens::new(std::str::from_utf8(bytes).ok()?, limits))
    }
}

/// A stanza with another start tag.
struct Rewritten {
    bytes: Bytes,
    tag_end: usize,
    /// How many attributes the tag has at most.
    attributes: usize,
}

fn push_attr(tag: &mut String, key: &str, value: &str) {
    tag.push(' ');
    tag.push_str(key);
    tag.push_str("='");
    escape_attr(tag, value);
    tag.push('\'');
}
