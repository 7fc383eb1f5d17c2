//! A small read-only tree, for IQ handlers and whatever else must look inside a stanza.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use compact_str::CompactString;

use super::scope::Scope;
use super::token::{Name, Token, Tokens, legal_text, line_ends, malformed, unescape};
use super::{Limits, Prefix, Writer};
use crate::error::StreamError;
use crate::ns;

/// An attribute; namespace declarations are not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Namespace; empty for an attribute without prefix.
    pub ns: CompactString,
    /// Local name.
    pub name: CompactString,
    /// Value, unescaped.
    pub value: CompactString,
}

/// An element with all that is in it. Its size is bounded by the limits of the stream it came by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Local name.
    pub name: CompactString,
    /// Namespace.
    pub ns: CompactString,
    /// Attributes as they stood.
    pub attrs: Vec<Attribute>,
    /// Child elements as they stood.
    pub children: Vec<Element>,
    /// All character data directly in this element, joined, unescaped.
    pub text: String,
}

impl Element {
    /// Value of an attribute without prefix.
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attr_ns("", name)
    }

    /// Value of an attribute in a namespace.
    pub fn attr_ns(&self, ns: &str, name: &str) -> Option<&str> {
        self.attrs.iter().find(|a| a.name == name && a.ns == ns).map(|a| a.value.as_str())
    }

    /// The first child with this name.
    pub fn child(&self, ns: &str, name: &str) -> Option<&Element> {
        self.children.iter().find(|c| c.is(ns, name))
    }

    /// All children with this name.
    pub fn children_named<'a>(&'a self, ns: &'a str, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |c| c.is(ns, name))
    }

    /// Whether it has this namespace and name.
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// Writes the element into `w`. Prefixes are not kept: each namespace is declared where it changes, and
    /// attributes in a namespace get a prefix of their own. `outer` is the default namespace around it.
    pub fn write(&self, w: &mut Writer, outer: &str) {
        w.open(&self.name, if self.ns == outer { "" } else { &self.ns });
        if self.ns.is_empty() && !outer.is_empty() {
            w.attr("xmlns", "");
        }
        for (i, attr) in self.attrs.iter().enumerate() {
            match attr.ns.as_str() {
                "" => w.attr(&attr.name, &attr.value),
                ns::XML => w.attr(&format!("xml:{}", attr.name), &attr.value),
                ns => w.attr(&format!("xmlns:n{i}"), ns).attr(&format!("n{i}:{}", attr.name), &attr.value),
            };
        }
        if !self.text.is_empty() {
            w.text(&self.text);
        }
        for child in &self.children {
            child.write(w, &self.ns);
        }
        w.close();
    }
}

/// The first element at `level` (0: the whole document) that `wanted` says yes to, by namespace and name.
pub(crate) fn find(
    bytes: &[u8],
    outer: &[Prefix],
    level: usize,
    wanted: impl Fn(&str, &str) -> bool,
) -> Result<Option<Element>, StreamError> {
    let limits = &Limits::S2S;
    let mut tokens = Tokens::new(legal_text(bytes)?, limits);
    let mut names = Scope::new(outer, ns::CLIENT);
    let mut depth = 0;
    let mut stack: Vec<Element> = Vec::new();
    while let Some(token) = tokens.next()? {
        let mut done = None;
        match token {
            Token::Start { name, empty } => {
                names.enter(&tokens.attrs, limits)?;
                let ns = names.element(name)?;
                if !stack.is_empty() || (depth == level && wanted(ns, name.local)) {
                    stack.push(element(name, ns, &tokens, &names)?);
                }
                depth += 1;
                if empty {
                    names.leave();
                    depth -= 1;
                    done = stack.pop();
                }
            }
            Token::End(_) => {
                names.leave();
                depth = depth.checked_sub(1).ok_or_else(|| malformed("end tag that does not match"))?;
                done = stack.pop();
            }
            Token::Text(text) => {
                if let Some(top) = stack.last_mut() {
                    top.text.push_str(&unescape(text, false));
                }
            }
            Token::CData(text) => {
                if let Some(top) = stack.last_mut() {
                    top.text.push_str(&line_ends(text));
                }
            }
        }
        if let Some(done) = done {
            match stack.last_mut() {
                Some(parent) => parent.children.push(done),
                None => return Ok(Some(done)),
            }
        }
    }
    Ok(None)
}

/// A copy of a stanza without some of its direct children, which `unwanted` is shown without what is in them; `None` if
/// there is none of those.
pub(crate) fn cut(
    bytes: &[u8],
    outer: &[Prefix],
    unwanted: impl Fn(&Element) -> bool,
) -> Result<Option<Bytes>, StreamError> {
    let limits = &Limits::S2S;
    let mut tokens = Tokens::new(legal_text(bytes)?, limits);
    let mut names = Scope::new(outer, ns::CLIENT);
    let mut out = Vec::new();
    let (mut depth, mut kept, mut begin) = (0u32, 0, None);
    loop {
        let before = tokens.position();
        let Some(token) = tokens.next()? else { break };
        match token {
            Token::Start { name, empty } => {
                names.enter(&tokens.attrs, limits)?;
                if depth == 1 && unwanted(&element(name, names.element(name)?, &tokens, &names)?) {
                    begin = Some(before);
                }
                depth += 1;
                if !empty {
                    continue;
                }
            }
            Token::End(_) => {}
            Token::Text(_) | Token::CData(_) => continue,
        }
        names.leave();
        depth = depth.checked_sub(1).ok_or_else(|| malformed("end tag that does not match"))?;
        if let Some(begin) = begin.take_if(|_| depth == 1) {
            out.extend_from_slice(&bytes[kept..begin]);
            kept = tokens.position();
        }
    }
    out.extend_from_slice(&bytes[kept..]);
    Ok((out.len() < bytes.len()).then(|| Bytes::from(out)))
}

fn element(name: Name<'_>, ns: &str, tokens: &Tokens<'_>, names: &Scope<'_>) -> Result<Element, StreamError> {
    let mut attrs = Vec::new();
    for attr in tokens.attrs.iter().filter(|a| a.declares().is_none()) {
        attrs.push(Attribute {
            ns: names.attribute(attr.name)?.into(),
            name: attr.name.local.into(),
            value: attr.value().into(),
        });
    }
    Ok(Element { name: name.local.into(), ns: ns.into(), attrs, ..Element::default() })
}
