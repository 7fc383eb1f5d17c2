//! The probes of the critical services: each has its service do its work once. What waits for somebody else, a peer that does
//! not answer, a node that may let nothing go, says nothing about the service.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use session_mover::store::{Found, Watch};
use tokio::sync::oneshot;
use xmpp_core::negotiate::Lookup;
use xmpp_core::net::{Inbox, ToConn};
use xmpp_core::ns;
use xmpp_core::sasl::ScramHash;
use xmpp_core::stanza::Stanza;

use super::accounts::Accounts;
use super::worker::{ToNode, Want};
use crate::node::{In, Service};
use crate::sockets::boottime_ms;

/// How long a probe may take.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// How long a store that nothing is written to is believed to take what it is given.
const STORE_PERIOD: Duration = Duration::from_secs(30);
/// How long the node's thread may take to say how far it is.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes that wait in the own queue at most.
const QUEUED: usize = 16 << 10;

/// What a probe came to; `None`: nothing can be said now.
pub(super) type Outcome = Option<Result<(), String>>;

/// What the probes need.
pub(super) struct Probes {
    domain: String,
    accounts: Arc<Accounts>,
    to_node: Sender<ToNode>,
    /// The node serves its users now.
    ready: Arc<AtomicBool>,
    store: Watch,
    /// How often the store had written something, and since when that has been so.
    written: Mutex<(u64, Instant)>,
    /// Where the answers to what this node says to itself come.
    inbox: Mutex<Arc<Inbox>>,
    /// Stanzas to itself so far.
    loops: AtomicU64,
    /// When the node's thread last went round, by the clock that counts sleep.
    heart: Arc<AtomicU64>,
    /// How long each may take: [`LIMIT`].
    limit: Duration,
}

impl Probes {
    pub(super) fn new(
        domain: &str,
        accounts: Arc<Accounts>,
        to_node: Sender<ToNode>,
        ready: Arc<AtomicBool>,
        store: Watch,
        heart: Arc<AtomicU64>,
    ) -> Probes {
        let (sender, inbox) = Inbox::new(QUEUED);
        let _ = to_node.send(ToNode::Inbox(sender));
        Probes {
            domain: domain.to_owned(),
            accounts,
            to_node,
            ready,
            store,
            written: Mutex::new((0, Instant::now())),
            inbox: Mutex::new(Arc::new(inbox)),
            loops: AtomicU64::new(0),
            heart,
            limit: LIMIT,
        }
    }

    /// Has the service do its work.
    pub(super) async fn of(&self, service: Service) -> Outcome {
        match service {
            Service::Database => self.database().await,
            Service::PresenceEngine => match self.ask(Want::Turn, self.limit).await {
                Some(()) => Some(Ok(())),
                // It goes round, and much waits before this question: that is load.
                None if self.stands_still() < self.limit => None,
                None => Some(Err(late("a turn"))),
            },
            Service::Router => self.router().await,
            Service::Authentication => self.authentication().await,
        }
    }

    /// It begins anew, as far as that is the shell's.
    pub(super) fn restart(&self, service: Service) {
        match service {
            Service::Database => self.store.restart(),
            Service::Router => self.new_inbox(),
            Service::PresenceEngine | Service::Authentication => {}
        }
        let _ = self.to_node.send(ToNode::In(In::Restart(service)));
    }

    /// For how long the node's thread has not gone round.
    pub(super) fn stands_still(&self) -> Duration {
        Duration::from_millis(boottime_ms().saturating_sub(self.heart.load(Ordering::Relaxed)))
    }

    fn new_inbox(&self) {
        let (sender, inbox) = Inbox::new(QUEUED);
        *self.inbox.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(inbox);
        let _ = self.to_node.send(ToNode::Inbox(sender));
    }

    /// A commit to the log; and the store, which is written behind, gets on.
    async fn database(&self) -> Outcome {
        if self.ask(Want::Commit, self.limit).await.is_none() {
            // A thread that makes no turns commits nothing; that is for the engine's probe to say.
            self.ask(Want::Turn, LOOK).await?;
            return Some(Err(late("a commit to the log")));
        }
        match self.store.look() {
            Found::Wrong(why) => Some(Err(format!(
                "the store cannot be used: {why}; see that its disk has room and can be written, below the data folder, or \
                 restart the node"
            ))),
            Found::Well(written) => {
                let now = Instant::now();
                let mut seen = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.0 != written {
                    *seen = (written, now);
                } else if now - seen.1 >= STORE_PERIOD {
                    self.store.probe();
                }
                Some(Ok(()))
            }
        }
    }

    /// A request of this node to itself, answered by the engine, let go like any stanza, and read from a queue as clients
    /// have.
    async fn router(&self) -> Outcome {
        // A node that may let nothing go does not have a broken router.
        if !self.ready.load(Ordering::Relaxed) {
            return None;
        }
        let id = format!("loop-{}", self.loops.fetch_add(1, Ordering::Relaxed));
        let request = format!(
            "<iq xmlns='{}' type='get' id='{id}' to='{}'><ping xmlns='urn:xmpp:ping'/></iq>",
            ns::CLIENT,
            self.domain
        );
        let stanza = match Stanza::parse(request.as_bytes()) {
            Ok(stanza) => stanza,
            Err(error) => return Some(Err(format!("a stanza to itself cannot be read: {error}"))),
        };
        self.to_node.send(ToNode::In(In::Loop(stanza))).ok()?;
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let comes = async {
            loop {
                match inbox.next().await {
                    Some(ToConn::Write(bytes)) => {
                        let answer = Stanza::from_bytes(bytes).ok().filter(|answer| answers(answer, &id));
                        if let Some(answer) = answer {
                            return Some(answer.head.type_.as_deref() == Some("result"));
                        }
                    }
                    _ => return None,
                }
            }
        };
        match tokio::time::timeout(self.limit, comes).await {
            Ok(Some(true)) => Some(Ok(())),
            Ok(Some(false)) => Some(Err("a stanza of this node to itself came back as an error".to_owned())),
            Ok(None) => {
                // It overflowed while nothing could be let go, unless it is another one by now.
                if Arc::ptr_eq(&inbox, &self.inbox.lock().unwrap_or_else(PoisonError::into_inner)) {
                    self.new_inbox();
                }
                None
            }
            Err(_) => {
                self.ask(Want::LetGo, LOOK).await?;
                self.ready.load(Ordering::Relaxed).then(|| Err(late("a stanza of this node to itself")))
            }
        }
    }

    async fn authentication(&self) -> Outcome {
        let accounts = self.accounts.clone();
        self.look_up(move || accounts.lookup("probe", None, ScramHash::Sha256)).await
    }

    async fn look_up(&self, work: impl FnOnce() -> Lookup + Send + 'static) -> Outcome {
        match tokio::time::timeout(self.limit, tokio::task::spawn_blocking(work)).await {
            // It was stopped.
            Ok(Ok(Lookup::Unavailable)) => None,
            Ok(Ok(_)) => Some(Ok(())),
            Ok(Err(_)) => Some(Err("a look-up of credentials met a bug: see the log".to_owned())),
            Err(_) => Some(Err(late("a look-up of credentials"))),
        }
    }

    async fn ask(&self, want: Want, limit: Duration) -> Option<()> {
        let (tell, told) = oneshot::channel();
        self.to_node.send(ToNode::Probe(want, tell)).ok()?;
        tokio::time::timeout(limit, told).await.ok()?.ok()
    }
}

fn answers(answer: &Stanza, id: &str) -> bool {
    answer.head.id.as_deref() == Some(id)
}

fn late(what: &str) -> String {
    format!("{what}: not within {} s", LIMIT.as_secs())
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::mpsc::{Receiver, channel};

    use bytes::Bytes;
    use session_mover::store::{Batch, Behind, Hooks, MemoryStore, NoStore, Store, StoreError};
    use xmpp_core::net::ConnSender;

    use super::*;

    /// A store in memory that cannot be made anew.
    pub(in crate::daemon) fn store() -> (Behind, Watch) {
        let none = || Err(StoreError("EROFS".into()));
        let hooks = Hooks {
            before: Box::new(|| ()),
            done: Box::new(|_| ()),
            anew: Box::new(none),
            open: Box::new(|| Ok(Box::new(MemoryStore::default()))),
        };
        let store = Behind::start(Box::new(MemoryStore::default()), hooks).unwrap();
        let watch = store.watch();
        (store, watch)
    }

    /// The heart of a node's thread that stands still.
    pub(in crate::daemon) fn still() -> Arc<AtomicU64> {
        Arc::default()
    }

    /// A node's thread that makes its turns, and of which a part may stand still.
    #[derive(Default)]
    struct Fake {
        commits: AtomicBool,
        loops: AtomicBool,
        lets_go: AtomicBool,
        /// It lets go at once what has waited for long.
        bursts: AtomicBool,
        /// What it was to do anew.
        restarts: AtomicU32,
    }

    impl Fake {
        fn run(&self, told: &Receiver<ToNode>) {
            let (mut held, mut own): (Vec<oneshot::Sender<()>>, Option<ConnSender>) = (Vec::new(), None);
            for told in told {
                match told {
                    ToNode::Probe(Want::Turn, answer) => _ = answer.send(()),
                    ToNode::Probe(want, answer) => {
                        let of = if want == Want::Commit { &self.commits } else { &self.lets_go };
                        match of.load(Ordering::Relaxed) {
                            true => _ = answer.send(()),
                            false if want == Want::Commit => held.push(answer),
                            false => {}
                        }
                    }
                    ToNode::Inbox(sender) => own = Some(sender),
                    ToNode::In(In::Loop(stanza)) if self.loops.load(Ordering::Relaxed) => {
                        let id = stanza.head.id.unwrap_or_default();
                        let answer = format!("<iq xmlns='jabber:client' type='result' id='{id}'/>");
                        let own = own.as_ref().unwrap();
                        if self.bursts.swap(false, Ordering::Relaxed) {
                            own.send(ToConn::Write(Bytes::from(vec![b' '; QUEUED + 1])));
                        }
                        own.send(ToConn::Write(Bytes::from(answer)));
                    }
                    ToNode::In(In::Restart(_)) => _ = self.restarts.fetch_add(1, Ordering::Relaxed),
                    _ => {}
                }
            }
        }
    }

    fn probes() -> (Probes, Arc<Fake>, Behind) {
        let (to_node, told) = channel();
        let fake = Arc::new(Fake::default());
        for works in [&fake.commits, &fake.loops, &fake.lets_go] {
            works.store(true, Ordering::Relaxed);
        }
        let (store, watch) = store();
        let ready = Arc::new(AtomicBool::new(true));
        let mut probes = Probes::new("d", Arc::new(Accounts::new([0; 32])), to_node, ready, watch, still());
        probes.limit = Duration::from_millis(200);
        let runs = fake.clone();
        std::thread::spawn(move || runs.run(&told));
        (probes, fake, store)
    }

    async fn fails(probes: &Probes, service: Service) -> String {
        probes.of(service).await.unwrap().unwrap_err()
    }

    #[tokio::test]
    async fn a_probe_measures_work() {
        let (probes, fake, _store) = probes();
        for service in Service::ALL {
            assert_eq!(probes.of(service).await, Some(Ok(())), "{}", service.name());
        }
        fake.loops.store(false, Ordering::Relaxed);
        assert!(
            fails(&probes, Service::Router).await.contains("a stanza of this node to itself: not within")
        );
        probes.restart(Service::Router);
        fake.loops.store(true, Ordering::Relaxed);
        assert_eq!(probes.of(Service::Router).await, Some(Ok(())), "by another queue");
        assert_eq!(fake.restarts.load(Ordering::Relaxed), 1);
        fake.commits.store(false, Ordering::Relaxed);
        assert!(fails(&probes, Service::Database).await.contains("a commit to the log: not within 5 s"));
    }

    #[tokio::test]
    async fn credentials_that_are_not_found_in_time_or_with_a_bug_are_a_failure_and_a_stop_is_none() {
        let (probes, _fake, _store) = probes();
        let (goes_on, waits) = channel::<()>();
        let late = probes.look_up(move || {
            let _ = waits.recv();
            Lookup::Unavailable
        });
        assert_eq!(late.await, Some(Err("a look-up of credentials: not within 5 s".to_owned())));
        drop(goes_on);
        let met = probes.look_up(|| panic!("a bug")).await;
        assert!(met.is_some_and(|met| met.is_err_and(|why| why.contains("met a bug"))));
        assert_eq!(probes.look_up(|| Lookup::Unavailable).await, None);
    }

    #[tokio::test]
    async fn a_queue_that_overflowed_says_nothing_once_and_is_replaced() {
        let (probes, fake, _store) = probes();
        fake.bursts.store(true, Ordering::Relaxed);
        assert_eq!(probes.of(Service::Router).await, None);
        assert_eq!(probes.of(Service::Router).await, Some(Ok(())));
        assert_eq!(fake.restarts.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_waits_for_a_disk_or_a_peer_is_not_lost() {
        let (probes, fake, _store) = probes();
        fake.loops.store(false, Ordering::Relaxed);
        fake.lets_go.store(false, Ordering::Relaxed);
        assert_eq!(probes.of(Service::Router).await, None, "it may not be let go yet");
        fake.lets_go.store(true, Ordering::Relaxed);
        probes.ready.store(false, Ordering::Relaxed);
        assert_eq!(probes.of(Service::Router).await, None, "nothing may be let go here");
    }

    #[tokio::test]
    async fn an_engine_without_turns_is_not_a_broken_disk_or_router() {
        let (to_node, _told) = channel();
        let ready = Arc::new(AtomicBool::new(true));
        let (_store, watch) = store();
        let mut probes = Probes::new("d", Arc::new(Accounts::new([0; 32])), to_node, ready, watch, still());
        probes.limit = Duration::from_millis(200);
        assert!(fails(&probes, Service::PresenceEngine).await.contains("a turn: not within 5 s"));
        probes.heart.store(boottime_ms() + 60_000, Ordering::Relaxed);
        assert_eq!(probes.of(Service::PresenceEngine).await, None, "it goes round: that is load");
        assert_eq!(probes.of(Service::Database).await, None);
        assert_eq!(probes.of(Service::Router).await, None);
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_written_is_a_failing_database() {
        /// Takes nothing.
        struct Full;
        impl Store for Full {
            fn mark(&mut self) -> Result<Option<Bytes>, StoreError> {
                NoStore.mark()
            }
            fn scan(&mut self, _: &[u8], _: usize) -> Result<session_mover::store::Pairs, StoreError> {
                Ok(Vec::new())
            }
            fn write(&mut self, _: Batch) -> Result<(), StoreError> {
                Err(StoreError("ENOSPC".into()))
            }
            fn flush(&mut self) -> Result<(), StoreError> {
                Ok(())
            }
            fn clear(&mut self) -> Result<(), StoreError> {
                Ok(())
            }
        }
        let (told, done) = channel();
        let hooks = Hooks {
            before: Box::new(|| ()),
            done: Box::new(move |result| _ = told.send(result)),
            anew: Box::new(|| Err(StoreError("EROFS".into()))),
            open: Box::new(|| Ok(Box::new(Full))),
        };
        let (mut probes, _fake, _) = probes();
        let mut behind = Behind::start(Box::new(Full), hooks).unwrap();
        probes.store = behind.watch();
        assert_eq!(probes.of(Service::Database).await, Some(Ok(())));
        behind.checkpoint(Batch { pairs: Vec::new(), mark: Bytes::from_static(b"m") });
        let why = done.recv().unwrap().unwrap_err();
        assert_eq!(why.0, "ENOSPC; a new one cannot be made: EROFS");
        let why = fails(&probes, Service::Database).await;
        assert!(
            why.starts_with("the store cannot be used: there is none: EROFS; see that its disk"),
            "{why}"
        );
        assert!(
            super::super::store::alarm(&probes.store).unwrap().contains("tandem service restart database")
        );
    }
}
