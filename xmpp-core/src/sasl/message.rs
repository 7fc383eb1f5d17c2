//! The words of RFC 5802 section 7, strictly: attributes in their order, nothing guessed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{MAX_MESSAGE_LEN, SaslError};

/// Longest nonce (client's or combined) that is accepted, in bytes.
const MAX_NONCE_LEN: usize = 512;

/// Bytes from the wire as text, if they are text of a bearable length.
pub(super) fn text(message: &[u8]) -> Result<&str, SaslError> {
    if message.len() > MAX_MESSAGE_LEN || message.contains(&0) {
        return Err(SaslError::Malformed);
    }
    std::str::from_utf8(message).map_err(|_| SaslError::Malformed)
}

/// A walk over `a=...,b=...` in order.
pub(super) struct Attributes<'a> {
    rest: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Attributes { rest: Some(text) }
    }

    /// The value of the next attribute, which must be the one called `name`.
    pub(super) fn expect(&mut self, name: char) -> Result<&'a str, SaslError> {
        let part = self.next_part().ok_or(SaslError::Malformed)?;
        part.strip_prefix(name).and_then(|part| part.strip_prefix('=')).ok_or(SaslError::Malformed)
    }

    /// What follows must be extensions we may ignore.
    pub(super) fn ignore_extensions(self) -> Result<(), SaslError> {
        self.extension(None).map(drop)
    }

    /// What follows must be extensions we may ignore: a letter (`m` is mandatory, so not that one) and a value. The value
    /// of the first that is called `wanted`.
    pub(super) fn extension(mut self, wanted: Option<char>) -> Result<Option<&'a str>, SaslError> {
        let mut found = None;
        while let Some(part) = self.next_part() {
            let mut chars = part.chars();
            let letter = chars.next().is_some_and(|c| c.is_ascii_alphabetic() && c != 'm');
            if !letter || chars.next() != Some('=') || chars.next().is_none() {
                return Err(SaslError::Malformed);
            }
            found = found.or(wanted.and_then(|name| part.strip_prefix(name)).map(|value| &value[1..]));
        }
        Ok(found)
    }

    fn next_part(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let (part, after) = match rest.split_once(',') {
            Some((part, after)) => (part, Some(after)),
            None => (rest, None),
        };
        self.rest = after;
        Some(part)
    }
}

/// A nonce: printable ASCII without the comma (which the caller's split has already excluded).
pub(super) fn nonce(value: &str) -> Result<&str, SaslError> {
    let printable = value.bytes().all(|b| b.is_ascii_graphic() && b != b',');
    if value.is_empty() || value.len() > MAX_NONCE_LEN || !printable {
        return Err(SaslError::Malformed);
    }
    Ok(value)
}

/// Undoes `=2C` and `=3D`; any other `=` is an error (RFC 5802 section 5.1).
pub(super) fn unescape_name(value: &str) -> Result<String, SaslError> {
    let mut name = String::with_capacity(value.len());
    let mut parts = value.split('=');
    name.push_str(parts.next().unwrap_or_default());
    for part in parts {
        if let Some(rest) = part.strip_prefix("2C") {
            name.push(',');
            name.push_str(rest);
        } else if let Some(rest) = part.strip_prefix("3D") {
            name.push('=');
            name.push_str(rest);
        } else {
            return Err(SaslError::Malformed);
        }
    }
    if name.is_empty() { Err(SaslError::Malformed) } else { Ok(name) }
}

/// Makes a name fit into an attribute.
pub(super) fn escape_name(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

pub(super) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn from_base64(text: &str) -> Result<Vec<u8>, SaslError> {
    STANDARD.decode(text).map_err(|_| SaslError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_escaping_and_bad_escapes_do_not() {
        for name in ["plain", "a,b", "a=b", "=2C", ",,==", "é=,"] {
            assert_eq!(unescape_name(&escape_name(name)).as_deref(), Ok(name));
        }
        for bad in ["", "a=", "a=2", "a=2c", "=4D", "="] {
            assert_eq!(unescape_name(bad), Err(SaslError::Malformed), "{bad}");
        }
    }

    #[test]
    fn extensions_are_ignored_but_mandatory_ones_are_not() {
        assert_eq!(Attributes::of("x=1,y=2").ignore_extensions(), Ok(()));
        for bad in ["m=1", "x", "x=", "1=2", "x=1,", ""] {
            assert_eq!(Attributes::of(bad).ignore_extensions(), Err(SaslError::Malformed), "{bad}");
        }
    }
}
