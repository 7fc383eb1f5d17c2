//! Which prefix means which namespace at the place the tokeniser has reached.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;
use std::cell::Cell;

use super::token::{Attr, Name, malformed, same, too_much};
use super::{Limits, Prefix};
use crate::error::StreamError;
use crate::ns;

struct Binding<'a> {
    prefix: &'a str,
    ns: Cow<'a, str>,
    level: u32,
}

/// Namespaces in force, innermost last. Prefixes of the stream header are looked up last, and their use is noted.
pub(crate) struct Scope<'a> {
    outer: &'a [Prefix],
    outer_default: &'a str,
    used: Cell<u64>,
    bindings: Vec<Binding<'a>>,
    level: u32,
}

/// Most prefixes a stream header may declare: their use is a bit set.
pub(crate) const OUTER_PREFIXES: usize = 64;

impl<'a> Scope<'a> {
    /// `outer` are the prefixes of the stream header, `outer_default` its default namespace.
    pub fn new(outer: &'a [Prefix], outer_default: &'a str) -> Self {
        Scope { outer, outer_default, used: Cell::new(0), bindings: Vec::new(), level: 0 }
    }

    /// Goes into an element: takes in what it declares, then checks that its attributes differ by expanded name.
    pub fn enter(&mut self, attrs: &[Attr<'a>], limits: &Limits) -> Result<(), StreamError> {
        self.level += 1;
        for attr in attrs {
            if let Some(prefix) = attr.declares() {
                if self.bindings.len() >= limits.namespaces {
                    return Err(too_much("too many namespace declarations"));
                }
                let ns = attr.value();
                if ns.len() > limits.name_bytes {
                    return Err(too_much("name of a namespace too long"));
                }
                check_declaration(prefix, &ns)?;
                self.bindings.push(Binding { prefix, ns, level: self.level });
            }
        }
        for (i, attr) in attrs.iter().enumerate() {
            if attr.name.prefix.is_empty() || attr.name.prefix == "xmlns" {
                continue;
            }
            let ns = self.attribute(attr.name)?;
            for other in &attrs[..i] {
                if other.name.local == attr.name.local
                    && !matches!(other.name.prefix, "" | "xmlns")
                    && self.attribute(other.name)? == ns
                {
                    return Err(malformed("attribute given twice"));
                }
            }
        }
        Ok(())
    }

    /// Goes out of the element entered last.
    pub fn leave(&mut self) {
        while self.bindings.last().is_some_and(|b| b.level == self.level) {
            self.bindings.pop();
        }
        self.level = self.level.saturating_sub(1);
    }

    /// The namespace of an element.
    pub fn element(&self, name: Name<'_>) -> Result<&str, StreamError> {
        match name.prefix {
            "xmlns" => Err(malformed("element with the prefix xmlns")),
            prefix => self.lookup(prefix),
        }
    }

    /// The namespace of an attribute; empty without a prefix.
    pub fn attribute(&self, name: Name<'_>) -> Result<&str, StreamError> {
        match name.prefix {
            "" => Ok(""),
            "xmlns" => Ok(ns::XMLNS),
            prefix => self.lookup(prefix),
        }
    }

    /// The prefixes of the stream header that were used so far.
    pub fn used(&self) -> Vec<Prefix> {
        let used = self.used.get();
        let is_used = |(i, p): (usize, &Prefix)| (used >> i & 1 == 1).then(|| p.clone());
        if used == 0 { Vec::new() } else { self.outer.iter().enumerate().filter_map(is_used).collect() }
    }

    fn lookup(&self, prefix: &str) -> Result<&str, StreamError> {
        if prefix == "xml" {
            return Ok(ns::XML);
        }
        if let Some(found) = self.bindings.iter().rev().find(|b| same(b.prefix, prefix)) {
            return Ok(&found.ns);
        }
        if prefix.is_empty() {
            return Ok(self.outer_default);
        }
        match self.outer.iter().position(|p| p.prefix == prefix) {
            Some(i) => {
                self.used.set(self.used.get() | 1 << i);
                Ok(&self.outer[i].ns)
            }
            None => Err(malformed("prefix that is not declared")),
        }
    }
}

/// XML-NAMES 3: what must not be declared.
fn check_declaration(prefix: &str, uri: &str) -> Result<(), StreamError> {
    let wrong = match prefix {
        "xml" => uri != ns::XML,
        "xmlns" => true,
        "" => uri == ns::XML || uri == ns::XMLNS,
        _ => uri == ns::XML || uri == ns::XMLNS || uri.is_empty(),
    };
    if wrong { Err(malformed("declaration of a reserved or empty namespace")) } else { Ok(()) }
}
