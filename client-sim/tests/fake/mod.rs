//! Two make-believe nodes with one common memory: what a perfect pair looks like to its clients. Just enough of XMPP for
//! the clients here, and it trusts them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use xmpp_core::dual::{Dual, Epoch, Peer};
use xmpp_core::sasl::{Mechanism, ScramCredentials, ScramHash, ScramServer, Site};
use xmpp_core::sm::{Handled, Sm};
use xmpp_core::tls::{Authority, Identity, c2s_client, c2s_server};
use xmpp_core::xml::{Event, Framer, Limits};
use xmpp_core::{Kind, Stanza, StreamError, ns};

pub const DOMAIN: &str = "example.org";
pub const PASSWORD: &str = "secret";
const HEADER: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
                      from='example.org' id='s' version='1.0'>";

#[derive(Clone, Copy, PartialEq)]
enum Health {
    Up,
    Dead,
    /// Its sockets are open and nobody is behind them.
    Frozen,
}

type Outbox = mpsc::UnboundedSender<Bytes>;

pub struct Pair {
    pub places: Vec<Peer>,
    pub client_tls: Arc<rustls::ClientConfig>,
    acceptor: TlsAcceptor,
    credentials: ScramCredentials,
    memory: Mutex<Memory>,
    health: Vec<watch::Sender<Health>>,
}

#[derive(Default)]
struct Memory {
    next: u64,
    term: u64,
    moves: u32,
    owner: BTreeMap<String, usize>,
    sessions: BTreeMap<String, Session>,
    /// Every resume is answered by `handled-count-too-high`.
    counts_lost: bool,
    /// What waits for users that have never been here.
    offline: BTreeMap<String, VecDeque<Bytes>>,
}

struct Session {
    user: String,
    handled: u32,
    sent_before: u32,
    queue: VecDeque<Bytes>,
    main: Option<(u64, usize, Outbox)>,
    parked: Option<(u64, usize, Outbox)>,
}

/// What a connection knows of itself.
struct Stream {
    number: u64,
    node: usize,
    outbox: Outbox,
    scram: Option<ScramServer>,
    user: Option<String>,
    sm_id: Option<String>,
}

impl Pair {
    /// Two nodes, `a` and `b`, for users whose homes are these.
    pub async fn start(homes: &[usize]) -> Arc<Pair> {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![DOMAIN.into()]).unwrap().signed_by(&key, &ca).unwrap();
        let identity = Identity::from_pem(&cert.pem(), &key.serialize_pem()).unwrap();
        let mut listeners = Vec::new();
        let mut places = Vec::new();
        for node in ["a", "b"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            // One of them with STARTTLS.
            let direct_tls = node == "a";
            places.push(Peer { node: node.into(), host: "127.0.0.1".into(), port, direct_tls });
            listeners.push(listener);
        }
        let owner = homes.iter().enumerate().map(|(user, home)| (format!("u{user}"), *home)).collect();
        let pair = Arc::new(Pair {
            places,
            client_tls: c2s_client(&Authority::from_pem(&ca.pem()).unwrap()).unwrap(),
            acceptor: TlsAcceptor::from(c2s_server(&identity, None).unwrap().config),
            credentials: ScramCredentials::derive(ScramHash::Sha256, PASSWORD, b"sixteen bytes...", 4096)
                .unwrap(),
            memory: Mutex::new(Memory { owner, term: 2, ..Memory::default() }),
            health: (0..2).map(|_| watch::channel(Health::Up).0).collect(),
        });
        for (node, listener) in listeners.into_iter().enumerate() {
            Arc::clone(&pair).listen(node, listener);
        }
        pair
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    fn listen(self: Arc<Self>, node: usize, listener: TcpListener) {
        tokio::spawn(async move {
            let mut health = self.health[node].subscribe();
            loop {
                tokio::select! {
                    _ = health.wait_for(|health| *health != Health::Up) => break,
                    Ok((tcp, _)) = listener.accept() => {
                        tokio::spawn(Arc::clone(&self).serve_while_up(node, tcp));
                    }
                }
            }
            if *health.borrow() == Health::Frozen {
                std::future::pending::<()>().await;
            }
        });
    }

    async fn serve_while_up(self: Arc<Self>, node: usize, tcp: TcpStream) {
        let mut health = self.health[node].subscribe();
        let mut serving = Box::pin(Arc::clone(&self).serve(node, tcp));
        tokio::select! {
            _ = health.wait_for(|health| *health != Health::Up) => {}
            () = &mut serving => return,
        }
        if *health.borrow() == Health::Frozen {
            std::future::pending::<()>().await;
        }
    }

    /// The node dies; the other takes its users and says so to those that are parked.
    pub fn kill(&self, node: usize) {
        self.health[node].send_replace(Health::Dead);
        let memory = &mut *self.memory();
        memory.take_over(node);
        let take = Dual::Take { epoch: Epoch { term: memory.term, moves: 0 } }.to_bytes();
        for session in memory.sessions.values_mut() {
            session.parked.take_if(|(_, at, _)| *at == node);
            if session.main.take_if(|(_, at, _)| *at == node).is_some()
                && let Some((_, _, parked)) = &session.parked
            {
                let _ = parked.send(take.clone());
            }
        }
    }

    /// The node falls silent with all its sockets open; the other takes its users and waits for them to notice.
    pub fn freeze(&self, node: usize) {
        self.health[node].send_replace(Health::Frozen);
        let memory = &mut *self.memory();
        memory.take_over(node);
        for session in memory.sessions.values_mut() {
            session.main.take_if(|(_, at, _)| *at == node);
        }
    }

    pub async fn restart(self: &Arc<Self>, node: usize) {
        self.health[node].send_replace(Health::Up);
        let port = self.places[node].port;
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        Arc::clone(self).listen(node, listener);
    }

    /// Hands every session that is parked at `node` over to it.
    pub fn hand_over_to(&self, node: usize) {
        let memory = &mut *self.memory();
        memory.moves += 1;
        let epoch = Epoch { term: memory.term, moves: memory.moves };
        let moving = Dual::Moving { epoch, to: self.places[node].node.clone() }.to_bytes();
        for session in memory.sessions.values_mut() {
            if session.parked.as_ref().is_some_and(|(_, at, _)| *at == node)
                && let Some((number, at, main)) = session.main.take()
            {
                let _ = main.send(moving.clone());
                // The answer to a request that was on its way; clients must not take it for the new stream's.
                let _ = main.send(Sm::Answer { h: Handled(session.handled) }.to_bytes());
                memory.owner.insert(session.user.clone(), node);
                // The stream that is parked now becomes the main one by its resume.
                session.parked = Some((number, at, main));
            }
        }
    }

    /// From now on no client's count fits.
    pub fn lose_counts(&self) {
        self.memory().counts_lost = true;
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.memory().sessions.len()
    }

    async fn serve(self: Arc<Self>, node: usize, tcp: TcpStream) {
        let _ = tcp.set_nodelay(true);
        let tcp = if self.places[node].direct_tls { Some(tcp) } else { starttls(tcp).await };
        let Some(tcp) = tcp else { return };
        let Ok(mut tls) = self.acceptor.accept(tcp).await else { return };
        let (outbox, mut out) = mpsc::unbounded_channel();
        let number = {
            let mut memory = self.memory();
            memory.next += 1;
            memory.next
        };
        let mut stream = Stream { number, node, outbox, scram: None, user: None, sm_id: None };
        let mut framer = Framer::new(Limits::S2S);
        let mut space = [0; 4096];
        loop {
            tokio::select! {
                Some(bytes) = out.recv() => {
                    if tls.write_all(&bytes).await.is_err() || tls.flush().await.is_err() {
                        return self.gone(&stream);
                    }
                }
                read = tls.read(&mut space) => match read {
                    Ok(count) if count > 0 => framer.feed(&space[..count]),
                    _ => return self.gone(&stream),
                },
            }
            while let Some(event) = framer.next().unwrap() {
                match event {
                    Event::StreamOpen(_) => stream.say(features(stream.user.is_some())),
                    Event::StreamClose => return self.gone(&stream),
                    Event::Stanza(stanza) => {
                        if self.stanza(&mut stream, &stanza) {
                            framer.restart();
                        }
                    }
                }
            }
        }
    }

    /// A stream ended by itself.
    fn gone(&self, stream: &Stream) {
        for session in self.memory().sessions.values_mut() {
            session.main.take_if(|(number, _, _)| *number == stream.number);
            session.parked.take_if(|(number, _, _)| *number == stream.number);
        }
    }

    /// True if the stream restarts.
    fn stanza(&self, stream: &mut Stream, stanza: &Stanza) -> bool {
        if stanza.head.ns == ns::SASL {
            return self.sasl(stream, stanza);
        }
        let memory = &mut *self.memory();
        if let Ok(Some(sm)) = Sm::parse(stanza) {
            self.sm(memory, stream, sm);
        } else if let Ok(Some(dual)) = Dual::parse(stanza) {
            self.dual(memory, stream, dual);
        } else if stanza.head.id.as_deref() == Some("bind") {
            let user = stream.user.clone().unwrap();
            if let Some(error) = self.elsewhere(memory, stream) {
                stream.say(error.to_bytes());
                return false;
            }
            stream.say(format!(
                "<iq type='result' id='bind'><bind xmlns='{}'><jid>{user}@{DOMAIN}/sim</jid></bind></iq>",
                ns::BIND
            ));
        } else if let Some(sm_id) = &stream.sm_id
            && let Some(session) = memory.sessions.get_mut(sm_id)
            && session.main.as_ref().is_some_and(|(number, _, _)| *number == stream.number)
        {
            session.handled = session.handled.wrapping_add(1);
            let from = stream.user.as_deref().unwrap();
            match (stanza.head.kind, stanza.head.type_.as_deref(), &stanza.head.to) {
                (Kind::Message, _, Some(to)) | (Kind::Presence, Some("subscribe"), Some(to)) => {
                    deliver(memory, from, to.local().unwrap(), stanza);
                }
                // The only presence there ever is: that of who consents.
                (Kind::Presence, Some("subscribed"), Some(to)) => {
                    deliver(memory, from, to.local().unwrap(), &Stanza::parse(b"<presence/>").unwrap());
                }
                _ => {}
            }
        }
        false
    }

    fn sasl(&self, stream: &mut Stream, stanza: &Stanza) -> bool {
        let message = BASE64.decode(stanza.text()).unwrap();
        match stream.scram.take() {
            None => {
                let mut scram = ScramServer::start(MECHANISM, &message, Site::default()).unwrap();
                let challenge = BASE64.encode(scram.challenge(&self.credentials, rand::random()));
                stream.say(format!("<challenge xmlns='{}'>{challenge}</challenge>", ns::SASL));
                stream.scram = Some(scram);
                false
            }
            Some(scram) => {
                stream.user = Some(scram.username().to_owned());
                let (answer, proved) = match scram.finish(&message) {
                    Ok(last) => {
                        (format!("<success xmlns='{}'>{}</success>", ns::SASL, BASE64.encode(last)), true)
                    }
                    Err(error) => {
                        (format!("<failure xmlns='{}'><{}/></failure>", ns::SASL, error.condition()), false)
                    }
                };
                stream.say(answer);
                proved
            }
        }
    }

    fn sm(&self, memory: &mut Memory, stream: &mut Stream, sm: Sm) {
        let own = (stream.number, stream.node, stream.outbox.clone());
        match sm {
            Sm::Enable { .. } => {
                let sm_id = format!("sm-{}", stream.number);
                let user = stream.user.clone().unwrap();
                let queue = memory.offline.remove(&user).unwrap_or_default();
                let session =
                    Session { user, handled: 0, sent_before: 0, queue, main: Some(own), parked: None };
                let id = Some(sm_id.as_str().into());
                stream.say(Sm::Enabled { id, max_s: Some(300), location: None }.to_bytes());
                session.queue.iter().for_each(|bytes| stream.say(bytes.clone()));
                memory.sessions.insert(sm_id.clone(), session);
                stream.sm_id = Some(sm_id);
            }
            Sm::Resume { previd, h, .. } => {
                if let Some(error) = self.elsewhere(memory, stream) {
                    return stream.say(error.to_bytes());
                }
                if memory.counts_lost {
                    return stream.say(StreamError::handled_count_too_high(h.0, 0).to_bytes());
                }
                let session = memory.sessions.get_mut(previd.as_str()).unwrap();
                session.parked.take_if(|(number, _, _)| *number == stream.number);
                session.main = Some(own);
                session.trim(h);
                stream.sm_id = Some(previd.as_str().into());
                stream.say(Sm::Resumed { previd, h: Handled(session.handled) }.to_bytes());
                session.queue.iter().for_each(|bytes| {
                    stream.say(bytes.clone());
                });
                let offer = self.offer(memory, stream.node);
                stream.say(offer);
            }
            Sm::Request => {
                let session = &memory.sessions[stream.sm_id.as_deref().unwrap()];
                stream.say(Sm::Answer { h: Handled(session.handled) }.to_bytes());
            }
            Sm::Answer { h } => {
                memory.sessions.get_mut(stream.sm_id.as_deref().unwrap()).unwrap().trim(h);
            }
            other => panic!("{other:?}"),
        }
    }

    fn elsewhere(&self, memory: &Memory, stream: &Stream) -> Option<StreamError> {
        let owner = memory.owner[stream.user.as_deref().unwrap()];
        let place = &self.places[owner];
        (owner != stream.node).then(|| StreamError::see_other_host(&format!("{}:{}", place.host, place.port)))
    }

    fn offer(&self, memory: &Memory, node: usize) -> Bytes {
        let epoch = Epoch { term: memory.term, moves: memory.moves };
        let peer = self.places[1 - node].clone();
        Dual::Offer { epoch, lower_s: 0, upper_s: 1, peer, token: None }.to_bytes()
    }

    fn dual(&self, memory: &mut Memory, stream: &mut Stream, dual: Dual) {
        match dual {
            Dual::Request => stream.say(self.offer(memory, stream.node)),
            Dual::Standby { sm_id } => {
                let session = memory.sessions.get_mut(sm_id.as_str()).unwrap();
                assert_eq!(Some(&session.user), stream.user.as_ref());
                session.parked = Some((stream.number, stream.node, stream.outbox.clone()));
                stream.say(
                    Dual::Parked { epoch: Epoch { term: memory.term, moves: 0 }, token: None }.to_bytes(),
                );
            }
            Dual::Lost if memory.owner[stream.user.as_deref().unwrap()] == stream.node => {
                stream.say(Dual::Take { epoch: Epoch { term: memory.term, moves: 0 } }.to_bytes());
            }
            Dual::Lost => stream.say(Dual::Stay.to_bytes()),
            other => panic!("{other:?}"),
        }
    }
}

impl Memory {
    fn take_over(&mut self, dead: usize) {
        self.term += 1;
        self.owner.values_mut().for_each(|owner| *owner = 1 - dead);
    }
}

impl Session {
    fn trim(&mut self, h: Handled) {
        let count = h.distance_from(Handled(self.sent_before)) as usize;
        assert!(count <= self.queue.len(), "the client counts what was never sent");
        self.queue.drain(..count);
        self.sent_before = h.0;
    }
}

impl Stream {
    fn say(&self, bytes: impl Into<Bytes>) {
        let _ = self.outbox.send(bytes.into());
    }
}

fn deliver(memory: &mut Memory, from: &str, to: &str, stanza: &Stanza) {
    let from = xmpp_core::Jid::new(Some(from), DOMAIN, Some("sim")).unwrap();
    let bytes = stanza.rewrite(Some(&from), None);
    if memory.sessions.values().all(|session| session.user != to) {
        memory.offline.entry(to.to_owned()).or_default().push_back(bytes.clone());
    }
    for session in memory.sessions.values_mut().filter(|session| session.user == to) {
        session.queue.push_back(bytes.clone());
        if let Some((_, _, outbox)) = &session.main {
            let _ = outbox.send(bytes.clone());
        }
    }
}

/// The part of a stream before TLS.
async fn starttls(mut tcp: TcpStream) -> Option<TcpStream> {
    let mut framer = Framer::new(Limits::BEFORE_AUTH);
    let mut space = [0; 1024];
    loop {
        let count = tcp.read(&mut space).await.ok().filter(|count| *count > 0)?;
        framer.feed(&space[..count]);
        while let Some(event) = framer.next().unwrap() {
            let answer = match event {
                Event::StreamOpen(_) => {
                    let offer = format!("<starttls xmlns='{}'><required/></starttls>", ns::TLS);
                    format!("{HEADER}<stream:features>{offer}</stream:features>")
                }
                Event::Stanza(stanza) if stanza.head.is(ns::TLS, "starttls") => {
                    tcp.write_all(format!("<proceed xmlns='{}'/>", ns::TLS).as_bytes()).await.ok()?;
                    return Some(tcp);
                }
                other => panic!("{other:?}"),
            };
            tcp.write_all(answer.as_bytes()).await.ok()?;
        }
    }
}

/// The one mechanism that these nodes offer: not even the best that the client knows.
const MECHANISM: Mechanism = Mechanism::Scram(ScramHash::Sha256);

fn features(authenticated: bool) -> String {
    let inside = if authenticated {
        format!("<bind xmlns='{}'/>{}{}", ns::BIND, xmpp_core::sm::FEATURE, xmpp_core::dual::FEATURE)
    } else {
        let mech = MECHANISM.name();
        format!("<mechanisms xmlns='{}'><mechanism>{mech}</mechanism></mechanisms>", ns::SASL)
    };
    format!("{HEADER}<stream:features>{inside}</stream:features>")
}

/// Waits for a condition with a deadline.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..400 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("not within 10 s: {what}");
}
