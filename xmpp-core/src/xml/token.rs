//! The strict tokeniser. Everything here that looks into XML uses it, so no two layers can read a stanza differently.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;

use super::Limits;
use crate::error::{StreamCondition, StreamError};

/// Name of an element or attribute as written; `prefix` is empty where there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    pub prefix: &'a str,
    pub local: &'a str,
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        same(self.local, other.local) && same(self.prefix, other.prefix)
    }
}

/// Equality for names, which are short, mostly different in length, and as prefixes mostly empty: measured, a third
/// of the time went into calls that compare nothing.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| a == b)
}

/// One attribute of the start tag last read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attr<'a> {
    pub name: Name<'a>,
    /// The value between the quotes, not yet unescaped.
    pub raw: &'a str,
    /// Name, equals sign and quoted value as written.
    pub whole: &'a str,
}

impl<'a> Attr<'a> {
    /// The value as an application sees it (XML 1.0 3.3.3).
    pub fn value(&self) -> Cow<'a, str> {
        unescape(self.raw, true)
    }

    /// The prefix this attribute declares; `Some("")` for the default namespace.
    pub fn declares(&self) -> Option<&'a str> {
        match (self.name.prefix, self.name.local) {
            ("", "xmlns") => Some(""),
            ("xmlns", local) => Some(local),
            _ => None,
        }
    }
}

/// One piece of a checked document. The attributes of a `Start` are in [`Tokens::attrs`].
#[derive(Debug)]
pub(crate) enum Token<'a> {
    Start { name: Name<'a>, empty: bool },
    End(Name<'a>),
    Text(&'a str),
    CData(&'a str),
}

/// Reads tokens off a text and refuses whatever XMPP does not allow. Balance and namespaces are the caller's.
pub(crate) struct Tokens<'a> {
    text: &'a str,
    pos: usize,
    limits: &'a Limits,
    /// Attributes of the start tag last read.
    pub attrs: Vec<Attr<'a>>,
}

pub(crate) fn malformed(why: &'static str) -> StreamError {
    StreamError::new(StreamCondition::NotWellFormed).with_text(why)
}

pub(crate) fn restricted(why: &'static str) -> StreamError {
    StreamError::new(StreamCondition::RestrictedXml).with_text(why)
}

pub(crate) fn too_much(why: &'static str) -> StreamError {
    StreamError::new(StreamCondition::PolicyViolation).with_text(why)
}

/// Valid UTF-8 made of characters that XML allows (XML 1.0 2.2).
pub(crate) fn legal_text(bytes: &[u8]) -> Result<&str, StreamError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| StreamError::new(StreamCondition::UnsupportedEncoding).with_text("not valid UTF-8"))?;
    // Without early exit the compiler makes this a vector loop; 0xEF begins U+FFFE and U+FFFF.
    let suspect = bytes
        .iter()
        .fold(false, |s, &b| s | ((b < 0x20) & (b != b'\t') & (b != b'\n') & (b != b'\r')) | (b == 0xEF));
    if suspect && !text.chars().all(is_xml_char) {
        return Err(malformed("a character that XML does not allow"));
    }
    Ok(text)
}

/// XML 1.0 2.2 [2] Char.
pub(crate) fn is_xml_char(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

impl<'a> Tokens<'a> {
    /// `text` must have passed [`legal_text`].
    pub fn new(text: &'a str, limits: &'a Limits) -> Self {
        Tokens { text, pos: 0, limits, attrs: Vec::new() }
    }

    /// How far it has read, in bytes.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// The next token; `None` at the end of the text.
    pub fn next(&mut self) -> Result<Option<Token<'a>>, StreamError> {
        let rest = &self.text[self.pos..];
        let Some(first) = rest.bytes().next() else { return Ok(None) };
        if first != b'<' {
            return self.character_data().map(Some);
        }
        match rest.as_bytes().get(1) {
            Some(b'/') => self.end_tag().map(Some),
            Some(b'!') => self.cdata().map(Some),
            Some(b'?') => Err(restricted("processing instruction")),
            _ => self.start_tag().map(Some),
        }
    }

    fn character_data(&mut self) -> Result<Token<'a>, StreamError> {
        let (start, bytes) = (self.pos, self.text.as_bytes());
        let mut at = start;
        while let Some(&b) = bytes.get(at) {
            match b {
                b'<' => break,
                b'&' => at += reference(&self.text[at..])?.1,
                b']' if bytes[at..].starts_with(b"]]>") => return Err(malformed("]]> in text")),
                _ => at += 1,
            }
        }
        self.pos = at;
        Ok(Token::Text(&self.text[start..at]))
    }

    fn cdata(&mut self) -> Result<Token<'a>, StreamError> {
        let rest = &self.text[self.pos..];
        let Some(body) = rest.strip_prefix("<![CDATA[") else {
            return Err(restricted("comment or document type"));
        };
        let len = body.find("]]>").ok_or_else(|| malformed("CDATA section not closed"))?;
        self.pos += "<![CDATA[".len() + len + "]]>".len();
        Ok(Token::CData(&body[..len]))
    }

    fn end_tag(&mut self) -> Result<Token<'a>, StreamError> {
        self.pos += 2;
        let name = self.name()?;
        self.skip_space();
        self.expect(b'>')?;
        Ok(Token::End(name))
    }

    fn start_tag(&mut self) -> Result<Token<'a>, StreamError> {
        self.pos += 1;
        let name = self.name()?;
        self.attrs.clear();
        loop {
            let spaced = self.skip_space();
            match self.peek() {
                Some(b'>') => {
                    self.pos += 1;
                    return Ok(Token::Start { name, empty: false });
                }
                Some(b'/') => {
                    self.pos += 1;
                    self.expect(b'>')?;
                    return Ok(Token::Start { name, empty: true });
                }
                Some(_) if spaced => self.attribute()?,
                _ => return Err(malformed("start tag")),
            }
        }
    }

    /// One attribute, pushed onto `attrs`. Also reads the pseudo-attributes of an XML declaration.
    pub fn attribute(&mut self) -> Result<(), StreamError> {
        let start = self.pos;
        if self.attrs.len() >= self.limits.attributes {
            return Err(too_much("too many attributes"));
        }
        let name = self.name()?;
        self.skip_space();
        self.expect(b'=')?;
        self.skip_space();
        let quote = match self.peek() {
            Some(q @ (b'"' | b'\'')) => q,
            _ => return Err(malformed("attribute value without quotes")),
        };
        let (value, bytes) = (self.pos + 1, self.text.as_bytes());
        let mut at = value;
        loop {
            match bytes.get(at) {
                Some(&b) if b == quote => break,
                Some(b'<') => return Err(malformed("< in an attribute value")),
                Some(b'&') => at += reference(&self.text[at..])?.1,
                Some(_) => at += 1,
                None => return Err(malformed("attribute value not closed")),
            }
        }
        self.pos = at + 1;
        if self.attrs.iter().any(|a| a.name == name) {
            return Err(malformed("attribute given twice"));
        }
        self.attrs.push(Attr { name, raw: &self.text[value..at], whole: &self.text[start..=at] });
        Ok(())
    }

    fn name(&mut self) -> Result<Name<'a>, StreamError> {
        let rest = &self.text[self.pos..];
        let len = name_len(rest);
        if len > self.limits.name_bytes {
            return Err(too_much("name too long"));
        }
        self.pos += len;
        let whole = &rest[..len];
        let (prefix, local) = whole.split_once(':').unwrap_or(("", whole));
        let ok = |s: &str| s.chars().next().is_some_and(is_name_start) && !s.contains(':');
        if !ok(local) || (whole.len() != local.len() && !ok(prefix)) {
            return Err(malformed("not a name"));
        }
        Ok(Name { prefix, local })
    }

    /// Passes over white space and says whether there was any.
    pub fn skip_space(&mut self) -> bool {
        let start = self.pos;
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.pos += 1;
        }
        self.pos > start
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), StreamError> {
        if self.peek() != Some(byte) {
            return Err(malformed("unexpected character in a tag"));
        }
        self.pos += 1;
        Ok(())
    }
}

/// Which ASCII bytes are name characters: names are nearly always ASCII, and this is the hottest loop but one.
const ASCII_NAME: [bool; 128] = {
    let mut table = [false; 128];
    let mut b = 0;
    while b < 128 {
        let c = b as u8;
        table[b] = c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.' | b':');
        b += 1;
    }
    table
};

/// How many bytes of `text` could be a name.
fn name_len(text: &str) -> usize {
    let ascii = |b: &u8| ASCII_NAME.get(usize::from(*b)).copied().unwrap_or(false);
    match text.bytes().position(|b| !ascii(&b)) {
        Some(at) if !text.as_bytes()[at].is_ascii() => {
            at + text[at..].find(|c| !is_name_char(c)).unwrap_or(text.len() - at)
        }
        Some(at) => at,
        None => text.len(),
    }
}

/// XML 1.0 2.3 [4] NameStartChar, without the colon.
fn is_name_start(c: char) -> bool {
    matches!(c, 'a'..='z' | 'A'..='Z' | '_' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
        | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
        | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}'
        | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
}

/// XML 1.0 2.3 [4a] NameChar, the colon included.
fn is_name_char(c: char) -> bool {
    is_name_start(c)
        || matches!(c, '0'..='9' | '-' | '.' | ':' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// The longest reference looked at, `&` and `;` included, in bytes.
const REFERENCE_BYTES: usize = 64;

/// Reads the reference at the start of `text`: the character it stands for and its length in bytes.
fn reference(text: &str) -> Result<(char, usize), StreamError> {
    let window = &text.as_bytes()[..text.len().min(REFERENCE_BYTES)];
    let end = window.iter().position(|&b| b == b';').ok_or_else(|| malformed("& without a reference"))?;
    let body = &text[1..end];
    let c = match body {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        _ => match body.strip_prefix('#') {
            Some(number) => character(number)?,
            None if body.starts_with(is_name_start) && body.chars().all(is_name_char) => {
                return Err(restricted("entity that is not predefined"));
            }
            None => return Err(malformed("& without a reference")),
        },
    };
    Ok((c, end + 1))
}

fn character(number: &str) -> Result<char, StreamError> {
    let (digits, radix) = match number.strip_prefix('x') {
        Some(hex) => (hex, 16),
        None => (number, 10),
    };
    // from_str_radix would take a sign.
    if !digits.bytes().all(|b| (b as char).is_digit(radix)) {
        return Err(malformed("character reference"));
    }
    u32::from_str_radix(digits, radix)
        .ok()
        .and_then(char::from_u32)
        .filter(|&c| is_xml_char(c))
        .ok_or_else(|| malformed("character reference"))
}

/// Character data of a CDATA section: as it stands but for line ends (XML 1.0 2.11).
pub(crate) fn line_ends(raw: &str) -> Cow<'_, str> {
    if raw.contains('\r') { raw.replace("\r\n", "\n").replace('\r', "\n").into() } else { raw.into() }
}

/// Resolves references and normalises line ends; in an attribute white space becomes spaces. `raw` was checked.
pub(crate) fn unescape(raw: &str, attribute: bool) -> Cow<'_, str> {
    let special = |b: u8| b == b'&' || b == b'\r' || (attribute && (b == b'\t' || b == b'\n'));
    if !raw.bytes().any(special) {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.bytes().position(special) {
        out.push_str(&rest[..at]);
        let used = match rest.as_bytes()[at] {
            b'&' => match reference(&rest[at..]) {
                Ok((c, len)) => {
                    out.push(c);
                    len
                }
                Err(_) => 1,
            },
            b'\r' => {
                out.push(if attribute { ' ' } else { '\n' });
                1 + usize::from(rest.as_bytes().get(at + 1) == Some(&b'\n'))
            }
            _ => {
                out.push(' ');
                1
            }
        };
        rest = &rest[at + used..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}
