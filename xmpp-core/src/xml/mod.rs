//! XML as XMPP restricts it (RFC 6120 11): framing, the strict check, a small tree, and writing.

pub mod framer;
pub(crate) mod scope;
pub mod strict;
pub(crate) mod token;
pub mod tree;
pub mod write;

use compact_str::CompactString;

pub use framer::{Event, Framer};
pub use strict::StreamHeader;
pub use write::Writer;

/// What one stanza or stream header may cost. Checked while it arrives and before anything is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest stanza or stream header, in bytes as received.
    pub bytes: usize,
    /// Most elements in a stanza, its own element included.
    pub elements: u32,
    /// Deepest nesting in a stanza; the stanza itself is level 1.
    pub depth: u32,
    /// Most attributes of one element, namespace declarations included.
    pub attributes: usize,
    /// Most namespace declarations in force at one place, those of the stream header not counted.
    pub namespaces: usize,
    /// Longest name of an element or attribute, prefix included, in bytes; also the longest name of a namespace, and of the
    /// stream's language. A namespace is written once and belongs to every element in it: a tree costs it each time.
    pub name_bytes: usize,
    /// Most *different* (namespace, name) pairs among the direct children of a stanza.
    pub distinct_children: usize,
}

impl Limits {
    /// Before authentication: 8 KiB and 32 elements.
    pub const BEFORE_AUTH: Limits = Limits {
        bytes: 8 * 1024,
        elements: 32,
        depth: 8,
        attributes: 32,
        namespaces: 16,
        name_bytes: 128,
        distinct_children: 16,
    };
    /// A client that has authenticated: 256 KiB.
    pub const C2S: Limits = Limits {
        bytes: 256 * 1024,
        elements: 16 * 1024,
        depth: 64,
        attributes: 64,
        namespaces: 64,
        name_bytes: 256,
        distinct_children: 64,
    };
    /// What a server takes from another, and what this server reads back of what it forwarded: every limit of
    /// [`Limits::C2S`] with room for what forwarding adds to the start tag.
    pub const S2S: Limits = Limits {
        bytes: 512 * 1024,
        elements: 16 * 1024,
        depth: 66,
        attributes: 160,
        namespaces: 160,
        name_bytes: 256,
        distinct_children: 72,
    };
}

/// A namespace prefix and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// The prefix, never empty.
    pub prefix: CompactString,
    /// The namespace it is bound to, unescaped.
    pub ns: CompactString,
}

/// What the stream header says for every stanza in it. Most streams declare only `stream`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamScope {
    /// Prefixes declared on the stream header.
    pub prefixes: Vec<Prefix>,
    /// `xml:lang` of the stream header.
    pub lang: Option<CompactString>,
}

#[cfg(test)]
mod tests;
