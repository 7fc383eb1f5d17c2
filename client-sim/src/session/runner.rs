//! The task of one client. All decisions about the two streams are the machine's; here is only what it takes to carry
//! them out, and stream management.

mod seek;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use xmpp_core::dual::Dual;
use xmpp_core::sm::{Handled, Sm};
use xmpp_core::{Kind, Stanza, ns};

use super::{Command, Event, Observer, Options, Status};
use crate::conn::{Account, Conn, ConnError, Features};
use crate::dual::{DualClient, FlipCause, Input, Output, Timer};
use crate::plain::{self, Established, random_within};
use crate::silence::Silence;
use crate::sm::{Outgoing, SmQueue};

use seek::Seeking;

/// How often the clock-driven part looks around.
const TICK: Duration = Duration::from_secs(1);
/// Bytes waiting on a stream above which no more stanzas are added to it.
const MAX_UNSENT: usize = 256 * 1024;

/// How long a server has for its half of an orderly end.
const PATIENCE: Duration = Duration::from_secs(1);

type Task<T> = Pin<Box<dyn Future<Output = Result<T, ConnError>> + Send>>;

pub(super) struct Runner {
    options: Options,
    observer: Arc<dyn Observer>,
    inbox: mpsc::UnboundedReceiver<Command>,
    status: Arc<Status>,
    machine: DualClient,
    /// What the machine is still to be told.
    inputs: VecDeque<Input>,
    sm: SmQueue,
    sm_id: Option<String>,
    /// The one-time token of the session that was told last.
    token: Option<String>,
    /// The `h` of the `<resumed/>` or `<failed/>` the machine is being told of.
    told_h: Option<u32>,
    rng: StdRng,
    begun: Instant,
    main: Option<Conn>,
    main_node: String,
    parked: Option<Conn>,
    /// The parked stream was the main one before a hand-over.
    parked_was_main: bool,
    was_parked: bool,
    was_bound: bool,
    /// A session was begun and is not known to be gone.
    in_session: bool,
    read: bool,
    write: bool,
    seeking: Option<Seeking>,
    parking: Option<Task<(Conn, Features)>>,
    timers: BTreeMap<Timer, Instant>,
    tick: Interval,
    silence: Silence,
    asked: bool,
    kept_alive: Instant,
}

/// What the task was woken by.
enum Woken {
    Main(Result<Stanza, ConnError>),
    Parked(Result<Stanza, ConnError>),
    Sought(Result<Established, ConnError>),
    Opened(Result<(Conn, Features), ConnError>),
    Command(Option<Command>),
    Timer(Timer),
    Tick,
}

impl Runner {
    pub(super) fn new(
        options: Options,
        observer: Arc<dyn Observer>,
        inbox: mpsc::UnboundedReceiver<Command>,
        status: Arc<Status>,
    ) -> Self {
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(options.seed);
        // Clients that start together shall not look around together.
        let first_tick = now + random_within(&(Duration::ZERO..=TICK), &mut rng);
        let mut tick = interval_at(first_tick, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Runner {
            sm: SmQueue::new(options.ack_every),
            options,
            observer,
            inbox,
            status,
            machine: DualClient::new(),
            inputs: VecDeque::new(),
            sm_id: None,
            token: None,
            told_h: None,
            rng,
            begun: now,
            main: None,
            main_node: String::new(),
            parked: None,
            parked_was_main: false,
            was_parked: false,
            was_bound: false,
            in_session: false,
            read: true,
            write: true,
            seeking: None,
            parking: None,
            timers: BTreeMap::new(),
            tick,
            silence: Silence::new(Duration::ZERO),
            asked: false,
            kept_alive: now,
        }
    }

    pub(super) async fn run(mut self) {
        let first = self.options.first.clone();
        self.seek(first.as_deref());
        loop {
            match self.woken().await {
                Woken::Main(Ok(stanza)) => self.main_said(stanza),
                Woken::Main(Err(error)) if error.ends_session() => {
                    self.main_ends(&error.to_string(), Input::Gone)
                }
                Woken::Main(Err(error)) => self.main_died(&error.to_string()),
                Woken::Parked(Ok(stanza)) => self.parked_said(&stanza),
                Woken::Parked(Err(error)) => {
                    self.parked = None;
                    self.feed(if error.ends_session() { Input::Gone } else { Input::ParkedDied });
                }
                Woken::Sought(Ok(established)) => self.established(established),
                Woken::Sought(Err(error)) => self.attempt_failed(&error),
                Woken::Opened(Ok((conn, _))) => {
                    self.parking = None;
                    self.parked = Some(conn);
                    self.parked_was_main = false;
                    self.feed(Input::ParkedOpen);
                }
                Woken::Opened(Err(error)) => {
                    self.parking = None;
                    self.tell(Event::ParkFailed { reason: error.to_string() });
                    self.feed(Input::ParkedDied);
                }
                Woken::Command(Some(Command::Stop(done))) => return self.stop(done).await,
                Woken::Command(Some(command)) => self.command(command),
                Woken::Command(None) => return,
                Woken::Timer(timer) => {
                    self.timers.remove(&timer);
                    self.feed(Input::Timer(timer));
                }
                Woken::Tick => self.look_around(),
            }
            self.pump();
            self.show();
        }
    }

    /// Waits for whatever comes first. Everything in here may be dropped and asked again.
    async fn woken(&mut self) -> Woken {
        let next = self.timers.iter().min_by_key(|(_, at)| **at).map(|(timer, at)| (*timer, *at));
        let timer = async {
            match next {
                Some((timer, at)) => {
                    sleep_until(at).await;
                    timer
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            got = receive(&mut self.main, self.read) => Woken::Main(got),
            got = receive(&mut self.parked, true) => Woken::Parked(got),
            got = finish(self.seeking.as_mut().map(|seeking| &mut seeking.attempt)) => Woken::Sought(got),
            got = finish(self.parking.as_mut()) => Woken::Opened(got),
            command = self.inbox.recv() => Woken::Command(command),
            timer = timer => Woken::Timer(timer),
            _ = self.tick.tick() => Woken::Tick,
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Send(stanza) => self.sm.push(stanza),
            Command::BreakMain => self.main_died("broken on purpose"),
            Command::BreakParked => {
                if self.parked.take().is_some() {
                    self.feed(Input::ParkedDied);
                }
            }
            Command::Stop(_) => {}
        }
    }

    async fn stop(self, done: oneshot::Sender<()>) {
        if let Some(parked) = self.parked {
            parked.close(PATIENCE).await;
        }
        if let Some(mut main) = self.main {
            // What came and was not counted would count as undelivered, and go to another resource.
            if self.sm_id.is_some() {
                main.send(&Sm::Answer { h: Handled(self.sm.inbound()) }.to_bytes());
            }
            main.close(PATIENCE).await;
        }
        let _ = done.send(());
    }

    fn tell(&self, event: Event) {
        self.observer.event(event);
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Tells the machine and does what it says, in order.
    fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let mut outputs = Vec::new();
            self.machine.on(self.now(), input, &mut outputs);
            for output in outputs {
                self.perform(output);
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Main(said) => send(&mut self.main, &said.to_bytes()),
            Output::Parked(said) => send(&mut self.parked, &said.to_bytes()),
            Output::Resume { previd, told } => {
                let told = self.machine.numbered(told);
                let resume =
                    Sm::Resume { previd: previd.as_str().into(), h: Handled(self.sm.inbound()), told };
                send(&mut self.parked, &resume.to_bytes());
            }
            Output::MainMode { read, write } => {
                if read && !self.read {
                    // An answer to what was asked before would have come by now, if it was read.
                    self.asked = false;
                }
                self.silence.read(self.begun.elapsed(), read);
                (self.read, self.write) = (read, write);
            }
            Output::CloseMain => self.main = None,
            Output::ConnectParked(place) => {
                let (dialer, account) = (self.options.dialer.clone(), self.options.account.clone());
                let token = self.by_token();
                self.parking = Some(Box::pin(async move {
                    if let Some(token) = token {
                        match dialer.login(&place, &token).await {
                            Err(error) if error.is_token_dead() => {}
                            other => return other,
                        }
                    }
                    dialer.login(&place, &account).await
                }));
            }
            Output::CloseParked => (self.parked, self.parking) = (None, None),
            Output::Flip { cause, keep_old } => self.flip(cause, keep_old),
            Output::Reconnect { first, anew } => {
                if anew {
                    let h = self.told_h.take();
                    self.end_session(h);
                }
                self.seek(first.as_deref());
            }
            Output::StopReconnect => self.seeking = None,
            Output::SetTimer(timer, after) => {
                self.timers.insert(timer, Instant::now() + after);
            }
            Output::SetRandomTimer(timer, lower, upper) => {
                let after = random_within(&(lower..=upper), &mut self.rng);
                self.timers.insert(timer, Instant::now() + after);
            }
            Output::CancelTimer(timer) => {
                self.timers.remove(&timer);
            }
        }
    }

    /// `<resumed/>` came on the parked stream: it is the main one from here on.
    fn flip(&mut self, cause: FlipCause, keep_old: bool) {
        let old = std::mem::replace(&mut self.main, self.parked.take());
        self.parked = old.filter(|_| keep_old);
        self.parked_was_main = keep_old;
        (self.read, self.write) = (true, true);
        self.new_stream();
        let to = self.machine.main_node().unwrap_or_default().to_owned();
        let from = std::mem::replace(&mut self.main_node, to.clone());
        self.tell(Event::Flipped { from, to, cause });
        if !self.told_h.take().is_some_and(|h| self.resumed(h)) {
            self.inputs.push_back(Input::Gone);
        }
    }

    /// The main stream's silence counts from now.
    fn new_stream(&mut self) {
        self.silence = Silence::new(self.begun.elapsed());
        self.asked = false;
    }

    /// What the new stream's server has of ours; the rest goes out again with the next `pump`. False if its count cannot
    /// be: then the session is as good as gone.
    fn resumed(&mut self, h: u32) -> bool {
        match self.sm.resumed(h) {
            Ok(acknowledged) => self.acknowledged(acknowledged),
            Err(bad) => {
                self.tell(Event::Error(format!("<resumed/>: {bad}")));
                return false;
            }
        }
        true
    }

    /// The session cannot be had back. What the server had counted is acknowledged, what survives goes out again in
    /// the next one, and of the rest nobody knows: the observer is told.
    fn end_session(&mut self, failed_h: Option<u32>) {
        (self.sm_id, self.token) = (None, None);
        let ended = self.sm.begin_anew(failed_h);
        self.acknowledged(ended.acknowledged);
        if std::mem::take(&mut self.in_session) {
            let ids = |ids: &mut dyn Iterator<Item = &str>| -> Vec<String> {
                ids.filter(|id| !id.is_empty()).map(str::to_owned).collect()
            };
            let unknown = ids(&mut ended.unknown.iter().map(|stanza| stanza.id.as_str()));
            let again = ids(&mut self.sm.waiting());
            self.tell(Event::SessionGone { again, unknown });
        }
    }

    fn acknowledged(&self, stanzas: Vec<Outgoing>) {
        for stanza in stanzas {
            self.tell(Event::Acknowledged { id: stanza.id });
        }
    }

    fn main_died(&mut self, reason: &str) {
        self.main_ends(reason, Input::MainDied);
    }

    fn main_ends(&mut self, reason: &str, means: Input) {
        if self.main.take().is_some() {
            self.tell(Event::MainLost { node: self.main_node.clone(), reason: reason.to_owned() });
            self.feed(means);
        }
    }

    fn main_said(&mut self, stanza: Stanza) {
        let now = self.now();
        self.silence.heard(now);
        self.machine.main_heard(now);
        if stanza.head.kind != Kind::Other {
            let approval = || plain::approve(&stanza).filter(|_| self.options.approve);
            let answer = plain::answer_request(&stanza).filter(|_| self.options.answer);
            if let Some(answer) = answer.or_else(approval) {
                self.sm.push(Outgoing { id: String::new(), bytes: answer, survives: false });
            }
            self.tell(Event::Stanza(stanza));
            return self.sm.handled();
        }
        match (Sm::parse(&stanza), Dual::parse(&stanza)) {
            (Ok(Some(Sm::Request)), _) => {
                send(&mut self.main, &Sm::Answer { h: Handled(self.sm.inbound()) }.to_bytes());
            }
            (Ok(Some(Sm::Answer { h })), _) => {
                self.asked = false;
                match self.sm.acknowledge(h.0) {
                    Ok(acknowledged) => self.acknowledged(acknowledged),
                    Err(bad) => {
                        self.tell(Event::Error(format!("<a/>: {bad}")));
                        self.main_died("the server cannot count");
                    }
                }
            }
            (_, Ok(Some(said))) => {
                self.take_token(&said);
                self.feed(Input::Main(said));
            }
            (Err(error), _) | (_, Err(error)) => self.tell(Event::Error(error.to_string())),
            _ => {}
        }
    }

    fn parked_said(&mut self, stanza: &Stanza) {
        if stanza.head.ns == ns::SM {
            match Sm::parse(stanza) {
                Ok(Some(Sm::Resumed { h, .. })) => {
                    self.told_h = Some(h.0);
                    self.feed(Input::Resumed);
                }
                Ok(Some(Sm::Failed { h, .. })) => {
                    self.told_h = h.map(|h| h.0);
                    self.feed(Input::Failed);
                }
                // Said behind `<moving/>`, of a count that is no longer kept there: the `<resumed/>` had the last word.
                Ok(Some(Sm::Answer { .. } | Sm::Request)) if self.parked_was_main => {}
                other => self.tell(Event::Error(format!("on the parked stream: {other:?}"))),
            }
            return;
        }
        match Dual::parse(stanza) {
            Ok(Some(said)) => {
                self.take_token(&said);
                self.feed(Input::Parked(said));
            }
            Ok(None) => self.tell(Event::Error(format!("<{}/> on the parked stream", stanza.head.name))),
            Err(error) => self.tell(Event::Error(error.to_string())),
        }
    }

    /// The account by its newest one-time token, which is tried once: what comes of it brings the next, or it is of no use.
    fn by_token(&mut self) -> Option<Account> {
        let token = self.token.take()?;
        self.options.account.by_token(self.sm_id.as_ref()?, &token)
    }

    fn take_token(&mut self, said: &Dual) {
        if let Dual::Offer { token: Some(token), .. } | Dual::Parked { token: Some(token), .. } = said {
            self.token = Some(token.as_str().to_owned());
        }
    }

    /// Once a second: is the main stream alive, is something unacknowledged, is the parked stream warm?
    fn look_around(&mut self) {
        let silent = self.silence.length(self.now());
        if self.main.is_some() && self.read {
            if self.silence.is_over(self.now(), self.options.silence) {
                return self.main_died(&format!("silent for {} s", silent.as_secs()));
            }
            if !self.asked && (self.sm.in_flight() > 0 || silent >= self.options.silence / 2) {
                self.ask();
            }
        }
        if self.kept_alive.elapsed() >= self.options.keepalive {
            self.kept_alive = Instant::now();
            send(&mut self.parked, b" ");
        }
    }

    fn ask(&mut self) {
        self.asked = true;
        self.sm.requested();
        send(&mut self.main, &Sm::Request.to_bytes());
    }

    /// Puts on the wire what may go there.
    fn pump(&mut self) {
        while self.write && self.main.as_ref().is_some_and(|main| main.unsent() < MAX_UNSENT) {
            let Some(bytes) = self.sm.write_next() else { return };
            send(&mut self.main, &bytes);
            if self.sm.take_request() {
                self.ask();
            }
        }
    }

    fn show(&mut self) {
        let parked = self.machine.is_parked();
        if parked != self.was_parked {
            self.was_parked = parked;
            match self.machine.parked_node() {
                Some(node) => self.tell(Event::Parked { node: node.to_owned() }),
                None => self.tell(Event::Unparked),
            }
        }
        self.status.backlog.store(self.sm.backlog(), Ordering::Relaxed);
        self.status.up.store(self.machine.is_up(), Ordering::Relaxed);
        self.status.parked.store(parked, Ordering::Relaxed);
    }
}

fn send(conn: &mut Option<Conn>, bytes: &[u8]) {
    if let Some(conn) = conn {
        conn.send(bytes);
    }
}

/// The next stanza of a stream that is there and may be read. Nobody else is kept waiting.
async fn receive(conn: &mut Option<Conn>, read: bool) -> Result<Stanza, ConnError> {
    match conn {
        Some(conn) if read => conn.recv().await,
        _ => std::future::pending().await,
    }
}

async fn finish<T>(task: Option<&mut Task<T>>) -> Result<T, ConnError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
