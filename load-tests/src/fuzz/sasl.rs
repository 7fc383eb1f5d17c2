//! SASL, by a client that knows a password and the RFCs and is hostile: nobody is let in but by the right proof for this
//! exchange, and nobody learns who has an account.
//!
//! Input: a byte of flags, then lines. A line that begins with `1` to `6` is a client-first for one of the mechanisms, and
//! the next line the client-final; `P`: a message of PLAIN. All other lines belong to one stream: `?NAME message` is an
//! `<auth/>`, `!message` a `<response/>`, anything else is XML as it stands. In a message `{c}`, `{r}` and `{p}` stand for
//! what an honest client would say there.

mod scram;
mod stream;

use xmpp_core::jid::BareJid;
use xmpp_core::sasl::{Bindings, Mechanism, Plain, SaslError, ScramCredentials, ScramServer, Site};

use super::input::Input;
use scram::Honest;

const DOMAIN: &str = "example.org";
const PASSWORD: &str = "pencil";
const SALT: &[u8] = b"sixteen bytes...";
/// One round: what is fuzzed is not the hash.
const ROUNDS: u32 = 1;

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let bindings = Bindings { exporter: [5; 32], end_point: (flags & 2 != 0).then(|| vec![8; 32].into()) };
    let bindings = (flags & 1 != 0).then_some(bindings);
    let site =
        Site { domain: (flags & 4 != 0).then_some(DOMAIN), bindings: bindings.as_ref(), offered: None };
    let mut stream = Vec::new();
    while !input.is_empty() {
        let line = input.until(b'\n');
        match line.split_first() {
            Some((number @ b'1'..=b'6', first)) => {
                let mechanism = Mechanism::all().nth(usize::from(number - b'1')).expect("six of SCRAM");
                exchange(mechanism, first, input.until(b'\n'), site);
            }
            Some((b'P', message)) => plain(message),
            _ => stream.push(line),
        }
    }
    if !stream.is_empty() {
        stream::run(&stream, bindings.as_ref(), flags & 8 != 0);
    }
}

fn exchange(mechanism: Mechanism, first: &[u8], last: &[u8], site: Site<'_>) {
    let Ok(mut server) = ScramServer::start(mechanism, first, site) else { return };
    let text = std::str::from_utf8(first).expect("what was taken is text");
    acts_as_itself(text, server.username(), site.domain);
    let credentials = ScramCredentials::derive(mechanism.hash(), PASSWORD, SALT, ROUNDS).expect("a password");
    let challenge = server.challenge(&credentials, [7; 18]);
    let honest =
        Honest::new(mechanism, text, &challenge, site.bindings).expect("a challenge answers client-first");
    let last = honest.fill(last);
    match server.finish(&last) {
        Ok(answer) => assert_eq!(Some(answer), honest.verdict(&last), "let in without the right proof"),
        Err(error) => {
            let plain = last.iter().filter(|byte| **byte == b',').count() == 2;
            assert!(!plain || honest.verdict(&last).is_none(), "an honest client is refused: {error}");
        }
    }
}

/// S11: the authorization identity is empty or the user's own.
fn acts_as_itself(first: &str, username: &str, domain: Option<&str>) {
    let authzid = first.split(',').nth(1).expect("a gs2 header");
    if let Some(name) = authzid.strip_prefix("a=") {
        let name = name.replace("=2C", ",").replace("=3D", "=");
        is_own(&name, username, domain);
    } else {
        assert_eq!(authzid, "");
    }
}

fn is_own(name: &str, username: &str, domain: Option<&str>) {
    let own = domain.and_then(|domain| BareJid::new(Some(username), domain).ok());
    let as_jid = BareJid::parse(name).ok().filter(|_| own.is_some());
    assert!(name == username || (as_jid.is_some() && as_jid == own), "{username:?} acts as {name:?}");
}

fn plain(message: &[u8]) {
    let parsed = Plain::parse(message, DOMAIN);
    let parts: Vec<&[u8]> = message.split(|byte| *byte == 0).collect();
    let Ok(plain) = parsed else {
        let honest = [b"".as_slice(), b"juliet", PASSWORD.as_bytes()] == parts[..];
        assert!(!honest, "an honest client is refused");
        return;
    };
    assert_eq!(parts.len(), 3, "exactly two NULs");
    let text = |part: &[u8]| String::from_utf8(part.to_vec()).expect("what was taken is text");
    if !parts[0].is_empty() {
        is_own(&text(parts[0]), plain.username(), Some(DOMAIN));
    }
    let hash = Mechanism::Plain.hash();
    let credentials = ScramCredentials::derive(hash, PASSWORD, SALT, ROUNDS).expect("a password");
    let given = ScramCredentials::derive(hash, &text(parts[2]), SALT, ROUNDS);
    let same = given.as_ref() == Ok(&credentials);
    assert_ne!(given, Err(SaslError::Malformed), "a password that can be none was taken");
    assert_eq!(plain.against(credentials).holds(), same);
}
