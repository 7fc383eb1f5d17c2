//! A whole negotiation, from the stream header to the resource binding, by a hostile client.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use xmpp_core::jid::BareJid;
use xmpp_core::negotiate::{Carrier, Checked, Config, Input, Lookup, Negotiation, Output, Turn};
use xmpp_core::ns;
use xmpp_core::sasl::{Bindings, Mechanism, PlainCheck, ScramCredentials, ScramHash, TokenKey, TokenName};
use xmpp_core::xml::{Event, Framer, Limits};

use super::scram::Honest;
use super::{DOMAIN, PASSWORD, ROUNDS, SALT};

/// Who has an account.
#[derive(Clone, Copy, PartialEq)]
enum World {
    /// juliet, with the password.
    Juliet,
    /// Everybody, and nobody's password is known.
    Everybody,
    /// Nobody.
    Nobody,
}

impl World {
    fn knows(self, user: &str) -> bool {
        self == World::Everybody || self == World::Juliet && user == "juliet"
    }

    fn lookup(self, user: &str, token: Option<TokenName>, hash: ScramHash) -> Lookup {
        if let Some(token) = token {
            let found = TokenKey::new(&[7; 32]).credentials(hash, user, SALT, token);
            return if self.knows(user) { Lookup::Found(found) } else { Lookup::Unknown(found) };
        }
        let derive = |password: &str| ScramCredentials::derive(hash, password, SALT, ROUNDS).expect("keys");
        match self {
            World::Juliet if user == "juliet" => Lookup::Found(derive(PASSWORD)),
            World::Juliet => Lookup::Unknown(ScramCredentials::fake(hash, b"secret", user, ROUNDS)),
            World::Everybody => Lookup::Found(derive("nobody knows it")),
            World::Nobody => Lookup::Unknown(derive("nobody knows it")),
        }
    }
}

/// Plays the lines, and twice more to see whether the answers tell who has an account.
pub(super) fn run(lines: &[&[u8]], bindings: Option<&Bindings>, clear: bool) {
    let mut server = Server::new(World::Juliet, bindings, clear);
    server.play(lines);
    if let Some(user) = &server.user {
        assert_eq!(user, &BareJid::new(Some("juliet"), DOMAIN).expect("a JID"), "let in as somebody else");
    }
    let mut told = Vec::new();
    for world in [World::Everybody, World::Nobody] {
        let mut server = Server::new(world, bindings, clear);
        server.play(lines);
        assert_eq!(server.user, None, "let in without a password");
        told.push(server.told);
    }
    assert_eq!(told[0], told[1], "the answers tell whether an account exists");
}

/// A server's half of a connection, and its client's view of it.
struct Server {
    world: World,
    config: Config,
    bindings: Option<Bindings>,
    negotiation: Negotiation,
    framer: Framer,
    /// The client reads what it is sent.
    client: Framer,
    entropy: u8,
    /// The client's exchange: mechanism and first message, then what an honest client would say.
    first: Option<(Mechanism, Vec<u8>)>,
    honest: Option<Honest>,
    failures: u32,
    over: bool,
    told: Vec<Bytes>,
    user: Option<BareJid>,
}

impl Server {
    fn new(world: World, bindings: Option<&Bindings>, clear: bool) -> Server {
        let bindings = bindings.cloned();
        let carrier = if clear { Carrier::Clear } else { Carrier::Tls { bindings: bindings.clone() } };
        let config = Config { plain: true, ..Config::new(DOMAIN) };
        Server {
            world,
            bindings,
            negotiation: Negotiation::new(carrier),
            framer: Framer::new(config.before_auth),
            client: Framer::new(Limits::S2S),
            config,
            entropy: 0,
            first: None,
            honest: None,
            failures: 0,
            over: false,
            told: Vec::new(),
            user: None,
        }
    }

    fn play(&mut self, lines: &[&[u8]]) {
        for line in lines {
            let bytes = self.bytes_of(line);
            self.framer.feed(&bytes);
            while !self.over {
                let input = match self.framer.next() {
                    Ok(Some(Event::StreamOpen(header))) => Input::Header(header),
                    Ok(Some(Event::Stanza(stanza))) => Input::Element(stanza),
                    Ok(Some(Event::StreamClose)) => Input::End,
                    Ok(None) => break,
                    Err(error) => Input::Fault(error),
                };
                self.handle(input);
            }
        }
        if self.over {
            let before = self.told.len();
            self.handle(Input::End);
            assert_eq!(self.told.len(), before, "nothing is said after the end");
        }
    }

    /// What a line is on the wire.
    fn bytes_of(&mut self, line: &[u8]) -> Vec<u8> {
        match line.split_first() {
            Some((b'?', rest)) => {
                let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
                let (name, message) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
                let name = String::from_utf8_lossy(name);
                self.first = Mechanism::parse(&name).map(|mechanism| (mechanism, message.to_vec()));
                let data = STANDARD.encode(message);
                format!("<auth xmlns='{}' mechanism='{name}'>{data}</auth>", ns::SASL).into_bytes()
            }
            Some((b'!', message)) => {
                let message = self.honest.as_ref().map_or(message.to_vec(), |honest| honest.fill(message));
                let data = STANDARD.encode(message);
                format!("<response xmlns='{}'>{data}</response>", ns::SASL).into_bytes()
            }
            _ => line.to_vec(),
        }
    }

    fn handle(&mut self, input: Input) {
        let mut out = Vec::new();
        self.entropy = self.entropy.wrapping_add(1);
        let mut turn = Turn {
            config: &self.config,
            entropy: [self.entropy; 18],
            throttled: false,
            stale: false,
            features: &Bytes::new,
            out: &mut out,
        };
        self.negotiation.handle(input, &mut turn);
        for output in out {
            self.obey(output);
        }
    }

    fn obey(&mut self, output: Output) {
        assert!(!self.over, "{output:?} after the end");
        match output {
            Output::Send(bytes) => self.tell(bytes),
            Output::StartTls => {
                self.framer.discard_buffered();
                self.framer.restart();
                self.client.restart();
                let bindings = self.bindings.clone();
                self.handle(Input::TlsReady { bindings });
            }
            Output::Restart => {
                self.framer.restart();
                self.framer.set_limits(self.config.after_auth);
                self.client.restart();
            }
            Output::Lookup { user, token, hash } => {
                self.handle(Input::Credentials(self.world.lookup(&user, token, hash)));
            }
            Output::Check(check) => self.check(&check),
            Output::Guessed => self.told.push(Bytes::from_static(b"guessed")),
            Output::Authenticated(proved) => {
                self.user = Some(proved.user);
                self.over = true;
            }
            Output::End => self.over = true,
            Output::Close(error) => {
                self.tell(error.to_bytes());
                self.over = true;
            }
        }
    }

    fn check(&mut self, check: &PlainCheck) {
        let checked = if check.holds() { Checked::Holds } else { Checked::Wrong };
        self.handle(Input::Checked(checked));
    }

    /// The client reads it: whole elements, nothing that it could not.
    fn tell(&mut self, bytes: Bytes) {
        self.client.feed(&bytes);
        loop {
            match self.client.next() {
                Ok(Some(Event::Stanza(stanza))) if stanza.head.is(ns::SASL, "challenge") => {
                    let challenge = STANDARD.decode(stanza.text()).expect("base64");
                    self.honest = self.first.as_ref().and_then(|(mechanism, first)| {
                        let text = std::str::from_utf8(first).ok()?;
                        Honest::new(*mechanism, text, &challenge, self.bindings.as_ref())
                    });
                }
                Ok(Some(Event::Stanza(stanza))) if stanza.head.is(ns::SASL, "failure") => {
                    self.failures += 1;
                    assert!(self.failures <= self.config.auth_attempts, "guesses without end");
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => panic!("{error:?} in {bytes:?}"),
            }
        }
        assert_eq!(self.client.buffered(), 0, "half an element: {bytes:?}");
        self.told.push(bytes);
    }
}
