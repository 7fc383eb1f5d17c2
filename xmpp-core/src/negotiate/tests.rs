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
    checked: Checked,
    throttled: bool,
    stale: bool,
}

const TLS12: Carrier = Carrier::Tls { bindings: None };
const TLS13: Carrier = Carrier::Tls {
    bindings: Some(Bindings { exporter: [9; 32], end_point: Some(Bytes::from_static(&[8; 32])) }),
};

fn credentials() -> ScramCredentials {
    ScramCredentials { salt: vec![1; 16], iterations: 4096, stored_key: vec![2; 32], server_key: vec![3; 32] }
}

impl Talk {
    fn new(carrier: Carrier) -> Talk {
        let config = Config::new("d.example");
        Talk {
            framer: Framer::new(config.before_auth),
            config,
            negotiation: Negotiation::new(carrier),
            lookup: Lookup::Unknown(credentials()),
            checked: Checked::Wrong,
            throttled: false,
            stale: false,
        }
    }

    fn turn(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        let features = || Bytes::from_static(b"<extra xmlns='x'/>");
        let mut turn = Turn {
            config: &self.config,
            entropy: [7; 18],
            throttled: self.throttled,
            stale: self.stale,
            features: &features,
            out: &mut out,
        };
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
                        outputs.extend(self.turn(Input::TlsReady { bindings: None }));
                        lines += "[tls]";
                    }
                    Output::Restart => self.framer.restart(),
                    Output::Check(_) => {
                        lines += "[check]";
                        outputs.extend(self.turn(Input::Checked(self.checked)));
                    }
                    Output::Guessed => lines += "[guessed]",
                    Output::Lookup { user, token, hash } => {
                        lines += &format!("[lookup {user} {hash:?}");
                        lines += &token.map_or("]".to_owned(), |t| format!(" token {}]", t.number));
                        outputs.extend(self.turn(Input::Credentials(self.lookup.clone())));
                    }
                    Output::Authenticated(proved) => lines += &format!("[user {}]", proved.user),
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
    let mut talk = Talk::new(Carrier::Clear);
    let features = talk.say(HEADER);
    assert!(features.contains("from='d.example' version='1.0' xml:lang='en'>"), "{features}");
    assert!(features.contains("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"));
    assert!(features.contains("<max-bytes>8192</max-bytes>") && !features.contains("mechanism"));
    let injected = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><message to='x'><body/></message>";
    assert_eq!(talk.say(injected), "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\n[tls]\n");
    let features = talk.say(HEADER);
    assert!(features.contains("<mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism></"));
}

#[test]
fn sasl_in_the_clear_is_refused() {
    let mut talk = Talk::new(Carrier::Clear);
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
        let said = Talk::new(TLS12).say(&header(to, version));
        assert!(said.starts_with("<?xml version='1.0'?><stream:stream "), "{said}");
        assert!(said.ends_with(&format!("[close {condition}]\n")), "{to} {version}: {said}");
        assert!(!said.contains("features"));
    }
    assert!(Talk::new(TLS12).say(&header("to='D.Example'", "version='1.1'")).contains("<mechanisms"));
}

#[test]
fn a_stream_cannot_move_to_another_domain() {
    let mut talk = Talk::new(Carrier::Clear);
    talk.config.domains.push("e.example".into());
    talk.say(HEADER);
    talk.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    let said = talk.say(&HEADER.replace("d.example", "e.example"));
    assert!(said.ends_with("[close not-authorized]\n"), "{said}");
}

#[test]
fn three_failures_close_the_stream() {
    let mut talk = Talk::new(TLS12);
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
    let mut talk = Talk::new(TLS12);
    talk.say(HEADER);
    // n,,n=Alice,r=abcdefghijklmnop
    let first = "biwsbj1BbGljZSxyPWFiY2RlZmdoaWprbG1ub3A=";
    let said = talk.say(&format!("{AUTH}{first}</auth>"));
    assert!(said.starts_with("[lookup alice Sha256]\n<challenge "), "{said}");
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
fn who_comes_with_a_token_is_the_account_before_the_slash_and_no_other() {
    use base64::Engine as _;
    let first = |user: &str, authzid: &str| {
        let mut talk = Talk::new(TLS12);
        talk.say(HEADER);
        let first = format!("n,{authzid},n={user},r=abcdefghijklmnop");
        let said = base64::engine::general_purpose::STANDARD.encode(first);
        talk.say(&format!("{AUTH}{said}</auth>"))
    };
    let id = "abababababababababababababababab";
    assert!(first(&format!("Alice/{id}/7"), "").starts_with("[lookup alice Sha256 token 7]\n<challenge "));
    // To act as somebody else is not for tokens.
    assert!(first(&format!("alice/{id}/7"), "a=bob").contains("<invalid-authzid/>"));
    // What is no token is a name that no account can have.
    assert!(first("alice/phone", "").contains("<not-authorized/>"));
}

#[test]
fn a_store_that_cannot_answer_is_not_a_wrong_password() {
    let mut talk = Talk::new(TLS12);
    talk.lookup = Lookup::Unavailable;
    talk.say(HEADER);
    for _ in 0..5 {
        let said = talk.say(&format!("{AUTH}biwsbj1hLHI9YWJjZGVmZ2hpamtsbW5vcA==</auth>"));
        assert!(said.contains("<temporary-auth-failure/>") && !said.contains("close"), "{said}");
    }
}

/// What the server offers for SASL on such a stream.
fn offer(carrier: Carrier, change: impl FnOnce(&mut Config)) -> String {
    let mut talk = Talk::new(carrier);
    change(&mut talk.config);
    let said = talk.say(HEADER);
    let from = said.find("<mechanisms").expect("mechanisms");
    said[from..said.find("<limits").expect("limits")].to_owned()
}

#[test]
fn plus_is_offered_on_tls_1_3_with_its_type_of_binding_and_plain_where_configured() {
    const UNBOUND: &str = "<mechanism>SCRAM-SHA-512</mechanism><mechanism>SCRAM-SHA-256</mechanism>\
         <mechanism>SCRAM-SHA-1</mechanism>";
    const BOUND: &str = "<mechanism>SCRAM-SHA-512-PLUS</mechanism><mechanism>SCRAM-SHA-256-PLUS</mechanism>\
         <mechanism>SCRAM-SHA-1-PLUS</mechanism>";
    const PLAIN: &str = "<mechanism>PLAIN</mechanism>";
    let open = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>";
    let types = "<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-exporter'/>\
         <channel-binding type='tls-server-end-point'/></sasl-channel-binding>";
    assert_eq!(offer(TLS12, |_| {}), format!("{open}{UNBOUND}</mechanisms>"));
    assert_eq!(offer(TLS13, |_| {}), format!("{open}{BOUND}{UNBOUND}</mechanisms>{types}"));
    assert_eq!(
        offer(TLS13, |config| config.plain = true),
        format!("{open}{BOUND}{UNBOUND}{PLAIN}</mechanisms>{types}")
    );
    assert_eq!(
        offer(TLS12, |config| {
            config.plain = true;
            config.hashes.clear();
        }),
        format!("{open}{PLAIN}</mechanisms>")
    );
}

/// `n,,n=alice,r=abcdefghijklmnop` under another gs2 flag, as `<auth/>` with this mechanism.
fn auth(mechanism: &str, flag: &str) -> String {
    use base64::Engine as _;
    let first =
        base64::engine::general_purpose::STANDARD.encode(format!("{flag},,n=alice,r=abcdefghijklmnop"));
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{first}</auth>")
}

#[test]
fn a_client_that_was_kept_from_seeing_plus_is_refused() {
    for (carrier, mechanism, flag, fine) in [
        (TLS13, "SCRAM-SHA-512", "n", true),
        (TLS13, "SCRAM-SHA-512", "y", false),
        (TLS12, "SCRAM-SHA-512", "y", true),
        (TLS13, "SCRAM-SHA-512-PLUS", "p=tls-exporter", true),
        (TLS13, "SCRAM-SHA-512-PLUS", "p=tls-server-end-point", true),
        (TLS13, "SCRAM-SHA-512-PLUS", "p=tls-unique", false),
        (TLS13, "SCRAM-SHA-512-PLUS", "n", false),
        (TLS13, "SCRAM-SHA-512", "p=tls-exporter", false),
    ] {
        let mut talk = Talk::new(carrier);
        talk.say(HEADER);
        let said = talk.say(&auth(mechanism, flag));
        let wanted = if fine { "[lookup alice Sha512]\n<challenge " } else { "<failure " };
        assert!(said.starts_with(wanted), "{mechanism} {flag}: {said}");
        assert!(fine || said.contains("<not-authorized/>"), "{said}");
    }
    let mut talk = Talk::new(TLS12);
    talk.say(HEADER);
    let said = talk.say(&auth("SCRAM-SHA-512-PLUS", "p=tls-exporter"));
    assert!(said.contains("<invalid-mechanism/>"), "not offered below TLS 1.3: {said}");
}

const PLAIN_ALICE: &str =
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHBlbmNpbA==</auth>";

#[test]
fn plain_is_checked_elsewhere_and_only_the_right_password_of_a_real_account_opens_the_stream() {
    let run = |lookup, checked, change: &dyn Fn(&mut Talk)| {
        let mut talk = Talk::new(TLS13);
        talk.config.plain = true;
        (talk.lookup, talk.checked) = (lookup, checked);
        change(&mut talk);
        talk.say(HEADER);
        talk.say(PLAIN_ALICE)
    };
    let found = || Lookup::Found(credentials());
    assert_eq!(
        run(found(), Checked::Holds, &|_| {}),
        "[lookup alice Sha256]\n[check]\n<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>\n\n"
    );
    for (lookup, checked) in [
        (found(), Checked::Wrong),
        (Lookup::Unknown(credentials()), Checked::Wrong),
        (Lookup::Unknown(credentials()), Checked::Holds),
    ] {
        let said = run(lookup, checked, &|_| {});
        assert!(said.contains("[guessed]\n<failure ") && said.contains("<not-authorized/>"), "{said}");
    }
    let busy = run(found(), Checked::Unavailable, &|_| {});
    assert!(busy.contains("<temporary-auth-failure/>") && !busy.contains("guessed"), "{busy}");
    let throttled = run(found(), Checked::Holds, &|talk| talk.throttled = true);
    assert!(throttled.contains("<temporary-auth-failure/>") && !throttled.contains("check]"), "{throttled}");
    let stale = run(found(), Checked::Wrong, &|talk| talk.stale = true);
    assert!(stale.contains("[guessed]") && stale.contains("<temporary-auth-failure/>"), "{stale}");
    let off = run(found(), Checked::Holds, &|talk| talk.config.plain = false);
    assert!(off.contains("<invalid-mechanism/>"), "{off}");
}

#[test]
fn a_proof_is_not_looked_at_where_too_much_was_guessed_nor_called_wrong_while_accounts_are_stale() {
    let proof = "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
         Yz1iaXdzLHI9YWJjZGVmZ2hpamtsbW5vcEJ3Y0hCd2NIQndjSEJ3Y0hCd2NIQndjSCxwPUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE9\
         </response>";
    let run = |throttled, stale| {
        let mut talk = Talk::new(TLS12);
        talk.say(HEADER);
        talk.say(&auth("SCRAM-SHA-256", "n"));
        (talk.throttled, talk.stale) = (throttled, stale);
        talk.say(proof)
    };
    let wrong = run(false, false);
    assert!(wrong.contains("[guessed]") && wrong.contains("<not-authorized/>"), "{wrong}");
    let throttled = run(true, false);
    assert!(throttled.contains("<temporary-auth-failure/>") && !throttled.contains("guessed"), "{throttled}");
    let stale = run(false, true);
    assert!(stale.contains("[guessed]") && stale.contains("<temporary-auth-failure/>"), "{stale}");
}

#[test]
fn after_sasl_the_header_gives_features_and_the_identity_is_the_authenticated_one() {
    let facts = Facts {
        carrier: TLS13,
        domain: Some("d.example".into()),
        failures: 0,
        user: Some(Proved {
            user: BareJid::parse("alice@d.example").unwrap(),
            salt: Bytes::new(),
            token: None,
        }),
    };
    let mut talk = Talk::new(TLS12);
    talk.negotiation.state = Some(Next::Header(ExpectHeader::new(facts.clone())));
    let said = talk.say(HEADER);
    assert!(said.contains("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:3'/>"));
    assert!(said.contains("<extra xmlns='x'/>") && said.contains("<max-bytes>262144</max-bytes>"));
    assert!(said.ends_with("[user alice@d.example]\n"), "{said}");
    let mut talk = Talk::new(TLS12);
    talk.negotiation.state = Some(Next::Header(ExpectHeader::new(facts)));
    let said = talk.say(&HEADER.replace("to=", "from='bob@d.example' to="));
    assert!(said.ends_with("[close invalid-from]\n"), "{said}");
}

#[test]
fn malformed_xml_and_the_end_of_the_stream() {
    assert!(Talk::new(TLS12).say("<!DOCTYPE x>").ends_with("[close restricted-xml]\n"));
    let mut talk = Talk::new(TLS12);
    talk.say(HEADER);
    assert_eq!(talk.say("</stream:stream>"), "[end]\n");
}
