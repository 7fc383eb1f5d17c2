//! Transcripts of negotiations. `C:` is fed through the framer, the outputs are compared as text.

use super::*;
use crate::xml::{Event, Framer};

const HEADER: &str = "<?xml version='1.0'?><stream:stream to='d.example' version='1.0' xmlns='jabber:client' \
     xmlns:stream='http://etherx.jabber.org/streams'>";
const AUTH: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>";

struct Talk {
    config: Config,
    negotiation: Negotiation,
    framer: Framer,
    lookup: Lookup,
}

fn credentials() -> ScramCredentials {
    ScramCredentials { salt: vec![1; 16], iterations: 4096, stored_key: vec![2; 32], server_key: vec![3; 32] }
}

impl Talk {
    fn new(secure: bool) -> Talk {
        let config = Config::new("d.example");
        let framer = Framer::new(config.before_auth);
        Talk { config, negotiation: Negotiation::new(secure), framer, lookup: Lookup::Unknown(credentials()) }
    }

    fn turn(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        let features = || Bytes::from_static(b"<extra xmlns='x'/>");
        let mut turn = Turn { config: &self.config, entropy: [7; 18], features: &features, out: &mut out };
        self.negotiation.handle(input, &mut turn);
        out
    }

    /// Feeds text and gives the outputs, one per line: what is sent as it is, the rest in brackets.
    fn say(&mut self, text: &str) -> String {
        self.framer.feed(text.as_bytes());
        let mut lines = String::new();
        loop {
            let input = match self.framer.next() {
                Ok(None) => return lines,
                Ok(Some(Event::StreamOpen(header))) => Input::Header(header),
                Ok(Some(Event::Stanza(stanza))) => Input::Element(stanza),
                Ok(Some(Event::StreamClose)) => Input::End,
                Err(error) => Input::Fault(error),
            };
            let mut outputs: std::collections::VecDeque<Output> = self.turn(input).into();
            while let Some(output) = outputs.pop_front() {
                match output {
                    Output::Send(bytes) => lines += std::str::from_utf8(&bytes).unwrap(),
                    Output::StartTls => {
                        self.framer.discard_buffered();
                        self.framer.restart();
                        outputs.extend(self.turn(Input::TlsReady));
                        lines += "[tls]";
                    }
                    Output::Restart => self.framer.restart(),
                    Output::Lookup { user, mechanism } => {
                        lines += &format!("[lookup {user} {}]", mechanism.name());
                        outputs.extend(self.turn(Input::Credentials(self.lookup.clone())));
                    }
                    Output::Authenticated(user) => lines += &format!("[user {user}]"),
                    Output::End => lines += "[end]",
                    Output::Close(error) => {
                        lines += &format!("[close {}]", error.condition.name());
                        return lines + "\n";
                    }
                }
                lines += "\n";
            }
        }
    }
}

#[test]
fn starttls_comes_first_and_what_follows_it_in_the_clear_is_thrown_away() {
    let mut talk = Talk::new(false);
    let features = talk.say(HEADER);
    assert!(features.contains("from='d.example' version='1.0' xml:lang='en'>"), "{features}");
    assert!(features.contains("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"));
    assert!(features.contains("<max-bytes>8192</max-bytes>") && !features.contains("mechanism"));
    let injected = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><message to='x'><body/></message>";
    assert_eq!(talk.say(injected), "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\n[tls]\n");
    let features = talk.say(HEADER);
    assert!(features.contains("<mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism>"));
}

#[test]
fn sasl_in_the_clear_is_refused() {
    let mut talk = Talk::new(false);
    talk.say(HEADER);
    assert!(talk.say(&format!("{AUTH}biws</auth>")).contains("<encryption-required/>"));
    assert_eq!(talk.say("<iq type='get' id='1'/>"), "[close not-authorized]\n");
}

#[test]
fn headers_that_are_refused() {
    let header = |to: &str, version: &str| {
        format!(
            "<stream:stream {to} {version} xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        )
    };
    for (to, version, condition) in [
        ("to='other.example'", "version='1.0'", "host-unknown"),
        ("to='u@d.example'", "version='1.0'", "host-unknown"),
        ("to='d.example/x'", "version='1.0'", "host-unknown"),
        ("to='a b'", "version='1.0'", "improper-addressing"),
        ("", "version='1.0'", "improper-addressing"),
        ("to='d.example'", "", "unsupported-version"),
        ("to='d.example'", "version='0.9'", "unsupported-version"),
    ] {
        let said = Talk::new(true).say(&header(to, version));
        assert!(said.starts_with("<?xml version='1.0'?><stream:stream "), "{said}");
        assert!(said.ends_with(&format!("[close {condition}]\n")), "{to} {version}: {said}");
        assert!(!said.contains("features"));
    }
    assert!(Talk::new(true).say(&header("to='D.Example'", "version='1.1'")).contains("<mechanisms"));
}

#[test]
fn a_stream_cannot_move_to_another_domain() {
    let mut talk = Talk::new(false);
    talk.config.domains.push("e.example".into());
    talk.say(HEADER);
    talk.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    let said = talk.say(&HEADER.replace("d.example", "e.example"));
    assert!(said.ends_with("[close not-authorized]\n"), "{said}");
}

#[test]
fn three_failures_close_the_stream() {
    let mut talk = Talk::new(true);
    talk.say(HEADER);
    let unknown = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>";
    assert!(talk.say(unknown).contains("<invalid-mechanism/>"));
    assert!(talk.say(&format!("{AUTH}***</auth>")).contains("<incorrect-encoding/>"));
    let said = talk.say("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert!(said.contains("<aborted/>") && said.ends_with("[close policy-violation]\n"), "{said}");
    assert_eq!(talk.say("<r xmlns='urn:xmpp:sm:3'/>"), "");
}

#[test]
fn lookup_challenge_and_abort() {
    let mut talk = Talk::new(true);
    talk.say(HEADER);
    // n,,n=Alice,r=abcdefghijklmnop
    let first = "biwsbj1BbGljZSxyPWFiY2RlZmdoaWprbG1ub3A=";
    let said = talk.say(&format!("{AUTH}{first}</auth>"));
    assert!(said.starts_with("[lookup alice SCRAM-SHA-256]\n<challenge "), "{said}");
    let said = talk.say("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert_eq!(said, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><aborted/></failure>\n");
    // Without initial response there is an empty challenge first.
    assert_eq!(
        talk.say(&format!("{AUTH}</auth>")),
        "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>\n"
    );
    let late = format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{first}</response>");
    assert!(talk.say(&late).contains("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>"));
    assert_eq!(talk.say("<presence/>"), "[close not-authorized]\n");
}

#[test]
fn a_store_that_cannot_answer_is_not_a_wrong_password() {
    let mut talk = Talk::new(true);
    talk.lookup = Lookup::Unavailable;
    talk.say(HEADER);
    for _ in 0..5 {
        let said = talk.say(&format!("{AUTH}biwsbj1hLHI9YWJjZGVmZ2hpamtsbW5vcA==</auth>"));
        assert!(said.contains("<temporary-auth-failure/>") && !said.contains("close"), "{said}");
    }
}

#[test]
fn after_sasl_the_header_gives_features_and_the_identity_is_the_authenticated_one() {
    let facts = Facts {
        secure: true,
        domain: Some("d.example".into()),
        failures: 0,
        user: Some(BareJid::parse("alice@d.example").unwrap()),
    };
    let mut talk = Talk::new(true);
    talk.negotiation.state = Some(Next::Header(ExpectHeader::new(facts.clone())));
    let said = talk.say(HEADER);
    assert!(said.contains("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:3'/>"));
    assert!(said.contains("<extra xmlns='x'/>") && said.contains("<max-bytes>262144</max-bytes>"));
    assert!(said.ends_with("[user alice@d.example]\n"), "{said}");
    let mut talk = Talk::new(true);
    talk.negotiation.state = Some(Next::Header(ExpectHeader::new(facts)));
    let said = talk.say(&HEADER.replace("to=", "from='bob@d.example' to="));
    assert!(said.ends_with("[close invalid-from]\n"), "{said}");
}

#[test]
fn malformed_xml_and_the_end_of_the_stream() {
    assert!(Talk::new(true).say("<!DOCTYPE x>").ends_with("[close restricted-xml]\n"));
    let mut talk = Talk::new(true);
    talk.say(HEADER);
    assert_eq!(talk.say("</stream:stream>"), "[end]\n");
}
