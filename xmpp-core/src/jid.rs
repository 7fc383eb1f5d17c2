//! Addresses (RFC 7622), prepared with the stringprep profiles of RFC 3920 that deployed peers compare by.
//!
//! Both nodes must run the same tables: a change here is a migration of everything that is keyed by JID.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use compact_str::CompactString;
use stringprep::tables;

/// Longest part of a JID after preparation, in bytes (RFC 7622 3.1).
pub const PART_BYTES: usize = 1023;
/// Longest text that is looked at at all, in bytes: three parts as typed, with room for what preparation removes.
const RAW_BYTES: usize = 8 * 1024;

/// Why a text is not a JID. The fault is the sender's; the stanza error is `jid-malformed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JidError {
    /// The domain is empty or has an empty label.
    #[error("the domain of the JID is empty or malformed")]
    Domain,
    /// The local part is empty or holds a character that is not allowed there.
    #[error("the local part of the JID is empty or malformed")]
    Local,
    /// The resource is empty or holds a character that is not allowed there.
    #[error("the resource of the JID is empty or malformed")]
    Resource,
    /// A part is longer than [`PART_BYTES`].
    #[error("a part of the JID is longer than 1023 bytes")]
    TooLong,
    /// A bare JID was needed and there is a resource, or the other way round.
    #[error("the JID has a resource where none may be, or lacks one")]
    WrongKind,
}

/// An address: `local@domain/resource`, where local part and resource may be missing. Always in prepared form, so
/// equality is equality of text.
#[derive(Clone)]
pub struct Jid {
    text: CompactString,
    /// Length of the local part; 0 where there is none.
    local: u16,
    /// Where the domain ends.
    bare: u16,
}

/// A JID without resource: an account, a room, a domain.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BareJid(Jid);

/// A JID with resource: one connected client, one occupant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FullJid(Jid);

impl Jid {
    /// Reads `local@domain/resource` (RFC 7622 3.2 to 3.4) and prepares each part.
    pub fn parse(text: &str) -> Result<Jid, JidError> {
        let (bare, resource) = match text.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource)),
            None => (text, None),
        };
        match bare.split_once('@') {
            Some((local, domain)) => Jid::new(Some(local), domain, resource),
            None => Jid::new(None, bare, resource),
        }
    }

    /// Puts a JID together from its parts and prepares each of them.
    pub fn new(local: Option<&str>, domain: &str, resource: Option<&str>) -> Result<Jid, JidError> {
        let length = |s: Option<&str>| s.map_or(0, str::len);
        if length(local).max(domain.len()).max(length(resource)) > RAW_BYTES {
            return Err(JidError::TooLong);
        }
        let mut text = CompactString::with_capacity(length(local) + domain.len() + length(resource) + 2);
        if let Some(local) = local {
            push_part(&mut text, &prepare_local(local)?, JidError::Local)?;
            text.push('@');
        }
        let local_len = text.len().saturating_sub(1);
        push_part(&mut text, &prepare_domain(domain)?, JidError::Domain)?;
        let bare = text.len();
        if let Some(resource) = resource {
            text.push('/');
            push_part(&mut text, &prepare_resource(resource)?, JidError::Resource)?;
        }
        // Both fit: a part has at most 1023 bytes.
        Ok(Jid { text, local: local_len as u16, bare: bare as u16 })
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before `@`.
    pub fn local(&self) -> Option<&str> {
        (self.local > 0).then(|| &self.text[..usize::from(self.local)])
    }

    /// The domain.
    pub fn domain(&self) -> &str {
        let start = if self.local > 0 { usize::from(self.local) + 1 } else { 0 };
        &self.text[start..usize::from(self.bare)]
    }

    /// The part after the first `/`.
    pub fn resource(&self) -> Option<&str> {
        self.text.get(usize::from(self.bare) + 1..)
    }

    /// The address up to the resource, as text.
    pub fn bare_str(&self) -> &str {
        &self.text[..usize::from(self.bare)]
    }

    /// Whether there is no resource.
    pub fn is_bare(&self) -> bool {
        self.text.len() == usize::from(self.bare)
    }

    /// The same address without its resource.
    pub fn to_bare(&self) -> BareJid {
        BareJid(Jid { text: self.bare_str().into(), local: self.local, bare: self.bare })
    }

    /// The address as a full JID, if it has a resource.
    pub fn to_full(&self) -> Option<FullJid> {
        (!self.is_bare()).then(|| FullJid(self.clone()))
    }

    /// Whether both are the same address apart from the resource.
    pub fn same_bare(&self, other: &Jid) -> bool {
        self.bare_str() == other.bare_str()
    }
}

impl BareJid {
    /// Reads a JID that must not have a resource.
    pub fn parse(text: &str) -> Result<BareJid, JidError> {
        Jid::parse(text)?.try_into()
    }

    /// Puts a bare JID together and prepares its parts.
    pub fn new(local: Option<&str>, domain: &str) -> Result<BareJid, JidError> {
        Jid::new(local, domain, None).map(BareJid)
    }

    /// This account at a resource, which is prepared.
    pub fn with_resource(&self, resource: &str) -> Result<FullJid, JidError> {
        if resource.len() > RAW_BYTES {
            return Err(JidError::TooLong);
        }
        let mut text = CompactString::with_capacity(self.0.text.len() + 1 + resource.len());
        text.push_str(&self.0.text);
        text.push('/');
        push_part(&mut text, &prepare_resource(resource)?, JidError::Resource)?;
        Ok(FullJid(Jid { text, ..self.0 }))
    }
}

impl FullJid {
    /// Reads a JID that must have a resource.
    pub fn parse(text: &str) -> Result<FullJid, JidError> {
        Jid::parse(text)?.try_into()
    }

    /// The resource.
    pub fn resource_str(&self) -> &str {
        self.0.resource().unwrap_or_default()
    }
}

impl serde::Serialize for Jid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Jid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Jid::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl PartialEq for Jid {
    fn eq(&self, other: &Jid) -> bool {
        self.text == other.text
    }
}
impl Eq for Jid {}
impl PartialOrd for Jid {
    fn partial_cmp(&self, other: &Jid) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Jid {
    fn cmp(&self, other: &Jid) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}
impl std::hash::Hash for Jid {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}
impl fmt::Debug for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// What every kind of JID can do: show itself as text, be read from text, be looked up by text in an ordered or hashed map.
macro_rules! as_text {
    ($($t:ty),*) => {$(
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $t {
            type Err = JidError;
            fn from_str(text: &str) -> Result<Self, JidError> {
                Self::parse(text)
            }
        }
        impl Borrow<str> for $t {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
    )*};
}
as_text!(Jid, BareJid, FullJid);

macro_rules! is_a_jid {
    ($($t:ident: $bare:literal),*) => {$(
        impl Deref for $t {
            type Target = Jid;
            fn deref(&self) -> &Jid {
                &self.0
            }
        }
        impl AsRef<Jid> for $t {
            fn as_ref(&self) -> &Jid {
                &self.0
            }
        }
        impl From<$t> for Jid {
            fn from(jid: $t) -> Jid {
                jid.0
            }
        }
        impl serde::Serialize for $t {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> serde::Deserialize<'de> for $t {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                <$t>::parse(&text).map_err(serde::de::Error::custom)
            }
        }
        impl TryFrom<Jid> for $t {
            type Error = JidError;
            fn try_from(jid: Jid) -> Result<Self, JidError> {
                if jid.is_bare() == $bare { Ok($t(jid)) } else { Err(JidError::WrongKind) }
            }
        }
    )*};
}
is_a_jid!(BareJid: true, FullJid: false);

fn push_part(text: &mut CompactString, part: &str, empty: JidError) -> Result<(), JidError> {
    if part.is_empty() {
        return Err(empty);
    }
    if part.len() > PART_BYTES {
        return Err(JidError::TooLong);
    }
    text.push_str(part);
    Ok(())
}

fn prepare_local(part: &str) -> Result<Cow<'_, str>, JidError> {
    if part.is_ascii() {
        let forbidden = |b: u8| !(0x21..0x7f).contains(&b) || b"\"&'/:<>@".contains(&b);
        return if part.bytes().any(forbidden) { Err(JidError::Local) } else { Ok(lower(part)) };
    }
    stable(part, |p| stringprep::nodeprep(p).ok()).ok_or(JidError::Local)
}

fn prepare_domain(part: &str) -> Result<Cow<'_, str>, JidError> {
    let part = part.strip_suffix('.').unwrap_or(part);
    let prepared = if part.is_ascii() {
        lower(part)
    } else {
        stable(part, nameprep_with_full_stops).ok_or(JidError::Domain)?
    };
    let address = prepared.strip_prefix('[').and_then(|p| p.strip_suffix(']'));
    let good = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            prepared.split('.').all(|label| !label.is_empty())
                && prepared.bytes().all(|b| b >= 0x80 || b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }
    };
    if good { Ok(prepared) } else { Err(JidError::Domain) }
}

/// Nameprep, and RFC 3490 3.1: what else counts as a full stop.
fn nameprep_with_full_stops(part: &str) -> Option<Cow<'_, str>> {
    const STOPS: [char; 3] = ['\u{3002}', '\u{ff0e}', '\u{ff61}'];
    let prepared = stringprep::nameprep(part).ok()?;
    Some(if prepared.contains(STOPS) { Cow::Owned(prepared.replace(STOPS, ".")) } else { prepared })
}

fn prepare_resource(part: &str) -> Result<Cow<'_, str>, JidError> {
    if part.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Ok(Cow::Borrowed(part));
    }
    stable(part, resourceprep_with_new_characters).ok_or(JidError::Resource)
}

/// Resourceprep knows Unicode 3.2. Characters that came later, such as emoji, are kept as they are; what stands
/// between them is prepared by the profile.
fn resourceprep_with_new_characters(part: &str) -> Option<Cow<'_, str>> {
    if !part.contains(tables::unassigned_code_point) {
        return stringprep::resourceprep(part).ok();
    }
    let mut out = String::with_capacity(part.len());
    let mut rest = part;
    while let Some(first) = rest.chars().next() {
        if tables::unassigned_code_point(first) {
            if forbidden_although_new(first) {
                return None;
            }
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let end = rest.find(tables::unassigned_code_point).unwrap_or(rest.len());
            out.push_str(&stringprep::resourceprep(&rest[..end]).ok()?);
            rest = &rest[end..];
        }
    }
    Some(Cow::Owned(out))
}

/// Not in Unicode 3.2 and yet not for a name: non-characters, and marks that turn the direction of what follows.
fn forbidden_although_new(c: char) -> bool {
    tables::non_character_code_point(c)
        || c as u32 & 0xfffe == 0xfffe
        || c.is_control()
        || matches!(c, '\u{61c}' | '\u{2064}'..='\u{206f}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

fn lower(part: &str) -> Cow<'_, str> {
    if part.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(part.to_ascii_lowercase())
    } else {
        Cow::Borrowed(part)
    }
}

/// Applies a profile until its output no longer changes: only what is a fixed point compares the same for ever.
fn stable<'a>(part: &'a str, profile: impl Fn(&str) -> Option<Cow<'_, str>>) -> Option<Cow<'a, str>> {
    let mut now = profile(part)?.into_owned();
    for _ in 0..3 {
        let next = profile(&now)?.into_owned();
        if next == now {
            return Some(Cow::Owned(now));
        }
        now = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_found_and_prepared() {
        let jid = Jid::parse("Alice@Example.COM./Desk/top@home").unwrap();
        assert_eq!(jid.as_str(), "alice@example.com/Desk/top@home");
        assert_eq!((jid.local(), jid.domain()), (Some("alice"), "example.com"));
        assert_eq!(jid.resource(), Some("Desk/top@home"));
        assert_eq!(jid.to_bare().as_str(), "alice@example.com");
        let domain = Jid::parse("example.com/r@x").unwrap();
        assert_eq!((domain.local(), domain.domain(), domain.resource()), (None, "example.com", Some("r@x")));
        assert_eq!(BareJid::parse("a@b").unwrap().with_resource("r").unwrap().as_str(), "a@b/r");
    }

    #[test]
    fn what_is_no_jid_is_refused() {
        use JidError::*;
        let long = "x".repeat(1024);
        let table: &[(&str, JidError)] = &[
            ("", Domain),
            ("@b", Local),
            ("a@", Domain),
            ("a@b/", Resource),
            ("a b@c", Local),
            ("a'b@c", Local),
            ("a\u{ff20}b@c", Local),
            ("a@b..c", Domain),
            ("a@.b", Domain),
            ("a@b c", Domain),
            ("a@b@c", Domain),
            ("a@[::1", Domain),
            ("a@b\u{2100}c", Domain),
            ("a@b/\u{7}", Resource),
            ("a@b/\u{202e}x", Resource),
            ("a@b/\u{2066}x", Resource),
            ("a\u{1f600}@b", Local),
            (&long, TooLong),
        ];
        for (text, error) in table {
            assert_eq!(Jid::parse(text).unwrap_err(), *error, "{text:?}");
        }
        assert_eq!(BareJid::parse("a@b/c").unwrap_err(), WrongKind);
        assert_eq!(FullJid::parse("a@b").unwrap_err(), WrongKind);
    }

    #[test]
    fn slow_path_folds_and_takes_emoji_resources() {
        assert_eq!(Jid::parse("STRASSE@b").unwrap(), Jid::parse("stra\u{df}e@b").unwrap());
        assert_eq!(Jid::parse("a@B\u{dc}CHER.example").unwrap().domain(), "b\u{fc}cher.example");
        assert_eq!(Jid::parse("a@b\u{3002}c").unwrap().domain(), "b.c");
        assert_eq!(Jid::parse("a@b/\u{1f600} phone").unwrap().resource(), Some("\u{1f600} phone"));
        assert!(Jid::parse("a@[::1]").is_ok() && Jid::parse("a@127.0.0.1").is_ok());
    }

    proptest! {
        #[test]
        fn display_is_parsed_back_and_preparing_is_idempotent(
            local in proptest::option::of("\\PC{1,8}"), domain in "\\PC{1,8}", resource in proptest::option::of("\\PC{1,8}"),
        ) {
            if let Ok(jid) = Jid::new(local.as_deref(), &domain, resource.as_deref()) {
                let again = Jid::parse(jid.as_str()).unwrap();
                prop_assert_eq!(again.local(), jid.local());
                prop_assert_eq!(again.domain(), jid.domain());
                prop_assert_eq!(again.resource(), jid.resource());
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            if let Ok(jid) = Jid::parse(&text) {
                prop_assert_eq!(Jid::parse(jid.as_str()).unwrap(), jid);
            }
        }
    }
}
