//! Cuts the never-ending stream of a client into its header, stanzas and end, however it was split on the way.
//!
//! Each byte is looked at a fixed number of times, so a stanza that arrives byte by byte costs no more than one
//! that arrives whole.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use compact_str::CompactString;
use quick_xml::parser::{ElementParser, Parser};

use super::strict::{self, StreamHeader};
use super::token::{malformed, restricted, too_much};
use super::{Limits, StreamScope};
use crate::error::{StreamCondition, StreamError};
use crate::stanza::Stanza;

/// What was found on the stream.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "a stanza is the usual case")]
pub enum Event {
    /// The stream header.
    StreamOpen(StreamHeader),
    /// A complete, checked top-level element.
    Stanza(Stanza),
    /// The end tag of the stream. What comes after it is ignored.
    StreamClose,
}

/// Takes bytes in and gives events out. After an error it gives that error for ever.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    buf: Vec<u8>,
    /// Where the piece begins that is being read.
    start: usize,
    /// How far the scanner has come; `start <= scan <= buf.len()`.
    scan: usize,
    state: Scan,
    /// Open elements below the stream.
    depth: u32,
    elements: u32,
    stream: Option<Box<Stream>>,
    /// Something other than the XML declaration has been seen, so that none may follow.
    begun: bool,
    failed: Option<StreamError>,
    whitespace: u64,
    work: u64,
}

#[derive(Debug)]
struct Stream {
    qname: CompactString,
    scope: StreamScope,
}

#[derive(Clone, Copy, Debug)]
enum Scan {
    /// Between top-level pieces.
    Idle,
    /// Character data inside a stanza.
    Text,
    /// After `<`.
    Less,
    /// After `<!` and this many bytes of `[CDATA[`.
    Bang(usize),
    /// In a CDATA section, after this many `]` (at most 2).
    CData(u8),
    /// In an XML declaration, after a `?` or not.
    Declaration(bool),
    /// In a tag, of an end or a start.
    Tag { end: bool, parser: ElementParser },
    /// After the end of the stream.
    Closed,
}

/// What the scanner has come to the end of.
enum Frame {
    Declaration,
    Header,
    Stanza,
    Close,
}

/// Longest XML declaration, in bytes.
const DECLARATION_BYTES: usize = 256;
/// A buffer that was once larger than this is given back when it is empty, in bytes.
const KEEP_BYTES: usize = 1024;

impl Framer {
    /// A framer at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        Framer {
            limits,
            buf: Vec::new(),
            start: 0,
            scan: 0,
            state: Scan::Idle,
            depth: 0,
            elements: 0,
            stream: None,
            begun: false,
            failed: None,
            whitespace: 0,
            work: 0,
        }
    }

    /// Takes bytes in. Call [`Framer::next`] until it gives `None` before feeding more: that bounds the buffer.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failed.is_none() && !matches!(self.state, Scan::Closed) {
            self.buf.extend_from_slice(bytes);
        }
    }

    /// The next event, `None` if more bytes are needed.
    #[allow(clippy::should_implement_trait, reason = "it can fail, and goes on after None")]
    pub fn next(&mut self) -> Result<Option<Event>, StreamError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let event = self.advance();
        match &event {
            Err(error) => {
                self.failed = Some(error.clone());
                self.buf = Vec::new();
            }
            Ok(None) => self.compact(),
            Ok(Some(_)) => {}
        }
        event
    }

    /// Expects a new stream header, as after SASL. What was received behind the last event is kept.
    pub fn restart(&mut self) {
        self.state = Scan::Idle;
        self.stream = None;
        self.begun = false;
    }

    /// Changes the limits for what begins after the last event.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Throws away what was received behind the last event: after `<starttls/>` nobody vouches for it (S9).
    pub fn discard_buffered(&mut self) {
        self.buf = Vec::new();
        self.start = 0;
        self.scan = 0;
        self.depth = 0;
        self.state = Scan::Idle;
    }

    /// How many bytes of white space between stanzas were swallowed, ever.
    pub fn whitespace(&self) -> u64 {
        self.whitespace
    }

    /// How many bytes were looked at or moved, ever; linear in what was fed.
    pub fn work(&self) -> u64 {
        self.work
    }

    /// How many received bytes wait for the rest of their stanza.
    pub fn buffered(&self) -> usize {
        self.buf.len() - self.start
    }

    fn advance(&mut self) -> Result<Option<Event>, StreamError> {
        while let Some(frame) = self.scan()? {
            let piece = &self.buf[self.start..self.scan];
            self.work += piece.len() as u64;
            let event = match frame {
                Frame::Declaration => {
                    strict::check_declaration(piece, &self.limits)?;
                    None
                }
                Frame::Header => {
                    let (header, qname) = strict::check_header(piece, &self.limits)?;
                    self.stream = Some(Box::new(Stream { qname, scope: header.scope.clone() }));
                    Some(Event::StreamOpen(header))
                }
                Frame::Stanza => {
                    let stream = self.stream.as_ref().ok_or_else(|| malformed("stanza before the stream"))?;
                    let head = strict::check_stanza(piece, &stream.scope, &self.limits)?;
                    Some(Event::Stanza(Stanza { head, bytes: Bytes::copy_from_slice(piece) }))
                }
                Frame::Close => {
                    let qname = self.stream.as_ref().map(|s| s.qname.as_bytes());
                    if Some(without_space(&piece[2..piece.len() - 1])) != qname {
                        return Err(malformed("end tag that does not match"));
                    }
                    self.buf = Vec::new();
                    self.scan = 0;
                    self.state = Scan::Closed;
                    Some(Event::StreamClose)
                }
            };
            self.start = self.scan;
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Goes on to the end of the next piece. Sees at most `limits.bytes` of it, whatever has been fed, so that the
    /// outcome does not depend on how the input was split.
    fn scan(&mut self) -> Result<Option<Frame>, StreamError> {
        loop {
            let end = self.buf.len().min(self.start.saturating_add(self.limits.bytes));
            if self.scan >= end {
                let full = self.scan - self.start >= self.limits.bytes;
                return if full { Err(too_much("stanza too long")) } else { Ok(None) };
            }
            let from = self.scan;
            let frame = self.step(end);
            self.work += (self.scan - from) as u64;
            if let Some(frame) = frame? {
                return Ok(Some(frame));
            }
        }
    }

    /// Takes at least one byte below `end` and moves `scan` behind what it took.
    fn step(&mut self, end: usize) -> Result<Option<Frame>, StreamError> {
        let window = &self.buf[self.scan..end];
        let byte = window[0];
        match &mut self.state {
            Scan::Idle => return self.between(end).map(|()| None),
            Scan::Text => match window.iter().position(|&b| b == b'<') {
                Some(at) => {
                    self.scan += at + 1;
                    self.state = Scan::Less;
                }
                None => self.scan = end,
            },
            Scan::Less => self.less(byte)?,
            Scan::Bang(matched) => {
                const CDATA: &[u8] = b"[CDATA[";
                if CDATA[*matched] != byte {
                    return Err(restricted("comment or document type"));
                }
                *matched += 1;
                if *matched == CDATA.len() {
                    self.state = Scan::CData(0);
                }
                self.scan += 1;
            }
            Scan::CData(brackets) => {
                self.scan += 1;
                match byte {
                    b']' => *brackets = (*brackets + 1).min(2),
                    b'>' if *brackets == 2 => self.state = Scan::Text,
                    _ => *brackets = 0,
                }
            }
            Scan::Declaration(question) => {
                self.scan += 1;
                if *question && byte == b'>' {
                    self.state = Scan::Idle;
                    return Ok(Some(Frame::Declaration));
                }
                *question = byte == b'?';
                if self.scan - self.start > DECLARATION_BYTES {
                    return Err(restricted("processing instruction"));
                }
            }
            Scan::Tag { end: is_end, parser } => match parser.feed(window) {
                Some(at) => {
                    let is_end = *is_end;
                    self.scan += at + 1;
                    return self.tag(is_end);
                }
                None => self.scan = end,
            },
            Scan::Closed => self.scan = end,
        }
        Ok(None)
    }

    /// White space between top-level pieces, up to a `<`.
    fn between(&mut self, end: usize) -> Result<(), StreamError> {
        match self.buf[self.scan] {
            b'<' => {
                self.scan += 1;
                self.state = Scan::Less;
            }
            b' ' | b'\t' | b'\n' | b'\r' => {
                let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
                let window = &self.buf[self.scan..end];
                let len = window.iter().position(|b| !blank(b)).unwrap_or(window.len());
                self.whitespace += len as u64;
                self.scan += len;
                self.start = self.scan;
                // XML 1.0 2.8: nothing may stand before the declaration.
                self.begun = true;
            }
            _ if self.stream.is_none() => return Err(malformed("text before the stream")),
            _ => return Err(StreamError::new(StreamCondition::BadFormat).with_text("text between stanzas")),
        }
        Ok(())
    }

    /// The byte after `<` says what follows.
    fn less(&mut self, byte: u8) -> Result<(), StreamError> {
        let begun = std::mem::replace(&mut self.begun, true);
        let parser = ElementParser::default();
        self.state = match byte {
            b'/' => Scan::Tag { end: true, parser },
            b'!' if self.depth > 0 => Scan::Bang(0),
            b'!' => return Err(restricted("comment, document type or CDATA outside of a stanza")),
            b'?' if !begun => Scan::Declaration(false),
            b'?' => return Err(restricted("processing instruction")),
            // What cannot begin a name is refused here: an element that is never closed would wait for ever.
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Scan::Tag { end: false, parser },
            _ => return Err(malformed("not a name")),
        };
        self.scan += 1;
        Ok(())
    }

    /// A tag has ended before `scan`.
    fn tag(&mut self, is_end: bool) -> Result<Option<Frame>, StreamError> {
        self.state = Scan::Text;
        if is_end {
            if self.depth == 0 {
                let open = self.stream.is_some();
                return if open { Ok(Some(Frame::Close)) } else { Err(malformed("end tag first")) };
            }
            self.depth -= 1;
        } else {
            if self.stream.is_none() {
                self.state = Scan::Idle;
                return Ok(Some(Frame::Header));
            }
            if self.depth == 0 {
                self.elements = 0;
            }
            self.elements += 1;
            if self.elements > self.limits.elements {
                return Err(too_much("too many elements"));
            }
            if self.buf[self.scan - 2] != b'/' {
                self.depth += 1;
                if self.depth > self.limits.depth {
                    return Err(too_much("nested too deeply"));
                }
            }
        }
        if self.depth > 0 {
            return Ok(None);
        }
        self.state = Scan::Idle;
        Ok(Some(Frame::Stanza))
    }

    /// Gives back what was read; an idle stream keeps no buffer worth speaking of.
    fn compact(&mut self) {
        if self.start == self.buf.len() {
            if self.buf.capacity() > KEEP_BYTES {
                self.buf = Vec::new();
            } else {
                self.buf.clear();
            }
        } else if self.start >= self.buf.len() / 2 {
            self.work += (self.buf.len() - self.start) as u64;
            self.buf.drain(..self.start);
        } else {
            return;
        }
        self.scan -= self.start;
        self.start = 0;
    }
}

/// Without white space at the end (XML 1.0 2.3: fewer bytes are that than ASCII calls white).
fn without_space(name: &[u8]) -> &[u8] {
    let len = name.iter().rposition(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r')).map_or(0, |at| at + 1);
    &name[..len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_stream_keeps_no_buffer_worth_speaking_of() {
        let mut framer = Framer::new(Limits::C2S);
        framer.feed(
            b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>",
        );
        assert!(matches!(framer.next(), Ok(Some(Event::StreamOpen(_)))));
        let large = format!("<message><body>{}</body></message>", "x".repeat(200_000));
        for piece in large.as_bytes().chunks(4_096) {
            framer.feed(piece);
        }
        assert!(framer.buf.capacity() >= large.len());
        assert!(matches!(framer.next(), Ok(Some(Event::Stanza(_)))));
        assert!(matches!(framer.next(), Ok(None)));
        assert!(framer.buf.capacity() <= KEEP_BYTES, "{}", framer.buf.capacity());
    }
}
