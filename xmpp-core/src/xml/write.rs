//! Writing XML. Whatever is passed in, what comes out is well-formed and restricted XML.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::{self, Write as _};

use bytes::Bytes;
use compact_str::CompactString;

use super::token::is_xml_char;

/// Appends `text` as character data. Characters that XML does not allow become U+FFFD.
pub fn escape_text(out: &mut String, text: &str) {
    escape(out, text, false);
}

/// Appends `value` as the inside of a quoted attribute value, for either kind of quote.
pub fn escape_attr(out: &mut String, value: &str) {
    escape(out, value, true);
}

fn escape(out: &mut String, text: &str, attribute: bool) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' if attribute => out.push_str("&apos;"),
            '"' if attribute => out.push_str("&quot;"),
            '\t' if attribute => out.push_str("&#9;"),
            '\n' if attribute => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            c if is_xml_char(c) => out.push(c),
            _ => out.push('\u{fffd}'),
        }
    }
}

/// Builds elements: `open`, then `attr`, then `text`, `raw` or children, then `close`.
///
/// Element and attribute names are the program's own words and are written as they are; values are escaped.
#[derive(Debug, Default)]
pub struct Writer {
    out: String,
    open: Vec<CompactString>,
    in_tag: bool,
}

impl Writer {
    /// An empty document.
    pub fn new() -> Self {
        Writer::default()
    }

    /// Opens an element; a non-empty `ns` is declared on it as default namespace.
    pub fn open(&mut self, name: &str, ns: &str) -> &mut Self {
        self.end_start_tag();
        self.out.push('<');
        self.out.push_str(name);
        self.open.push(name.into());
        self.in_tag = true;
        if ns.is_empty() { self } else { self.attr("xmlns", ns) }
    }

    /// Writes an attribute of the element opened last. Ignored once that element has content.
    pub fn attr(&mut self, name: &str, value: impl fmt::Display) -> &mut Self {
        debug_assert!(self.in_tag, "attribute after content");
        if self.in_tag {
            self.out.push(' ');
            self.out.push_str(name);
            self.out.push_str("='");
            let _ = write!(Escaping { out: &mut self.out, attribute: true }, "{value}");
            self.out.push('\'');
        }
        self
    }

    /// Writes an attribute if there is a value.
    pub fn attr_opt(&mut self, name: &str, value: Option<impl fmt::Display>) -> &mut Self {
        match value {
            Some(value) => self.attr(name, value),
            None => self,
        }
    }

    /// Writes character data.
    pub fn text(&mut self, text: impl fmt::Display) -> &mut Self {
        self.end_start_tag();
        let _ = write!(Escaping { out: &mut self.out, attribute: false }, "{text}");
        self
    }

    /// Copies XML that is known to be well-formed.
    pub fn raw(&mut self, xml: &str) -> &mut Self {
        self.end_start_tag();
        self.out.push_str(xml);
        self
    }

    /// Closes the element opened last.
    pub fn close(&mut self) -> &mut Self {
        if let Some(name) = self.open.pop() {
            if self.in_tag {
                self.out.push_str("/>");
            } else {
                self.out.push_str("</");
                self.out.push_str(&name);
                self.out.push('>');
            }
            self.in_tag = false;
        }
        self
    }

    /// What was written; elements still open are closed.
    pub fn finish(mut self) -> Bytes {
        while !self.open.is_empty() {
            self.close();
        }
        Bytes::from(self.out)
    }

    /// What was written, without closing what is open: for a stream header.
    pub fn finish_open(mut self) -> Bytes {
        self.end_start_tag();
        Bytes::from(self.out)
    }

    fn end_start_tag(&mut self) {
        if std::mem::take(&mut self.in_tag) {
            self.out.push('>');
        }
    }
}

struct Escaping<'a> {
    out: &'a mut String,
    attribute: bool,
}

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.out, text, self.attribute);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_empty_elements_closed_short() {
        let mut w = Writer::new();
        w.open("a", "urn:x").attr("b", "'\"<&\n").open("c", "").close().text("x > y & z\u{1}").close();
        let expected = "<a xmlns='urn:x' b='&apos;&quot;&lt;&amp;&#10;'><c/>x &gt; y &amp; z\u{fffd}</a>";
        assert_eq!(w.finish(), expected);
    }
}
