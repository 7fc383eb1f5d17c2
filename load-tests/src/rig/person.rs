//! Somebody at a client: what happens there is waited for, event by event.

use std::sync::Arc;
use std::time::Duration;

use client_sim::conn::Account;
use client_sim::session::{Event, Options, Session};
use srm::demo::pair::{DOMAIN, PASSWORD, Pair};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::last_lines;

/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(30);

/// An account of the nodes of a test, with the resource `r`.
pub fn account(user: &str) -> Account {
    Account {
        user: user.into(),
        domain: DOMAIN.into(),
        password: PASSWORD.into(),
        resource: Some("r".into()),
        keys: Arc::default(),
    }
}

/// A client whose events are read one after the other. It ends with this.
pub struct Person {
    /// The client.
    pub session: Session,
    events: UnboundedReceiver<Event>,
}

impl Person {
    /// The usual client, which goes to this node first.
    pub fn at(pair: &Pair, node: usize, user: &str) -> Person {
        Person::with(pair, node, user, |_| {})
    }

    /// The same with other options.
    pub fn with(pair: &Pair, node: usize, user: &str, change: impl FnOnce(&mut Options)) -> Person {
        let (tell, events) = unbounded_channel();
        let mut options = Options::new(account(user), pair.dialer().expect("a CA"), pair.places());
        options.first = Some(pair.made.nodes[node].name.clone());
        change(&mut options);
        Person { session: Session::spawn(options, Arc::new(tell)), events }
    }

    /// Reads on until this is found in an event.
    pub async fn next<T>(
        &mut self,
        pair: &Pair,
        what: &str,
        mut wanted: impl FnMut(&Event) -> Option<T>,
    ) -> T {
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                let event = self.events.recv().await.expect("the client runs");
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}\n{}", last_lines(pair)))
    }

    /// Until it has a session.
    pub async fn bound(&mut self, pair: &Pair) {
        self.next(pair, "bound", |event| matches!(event, Event::Bound { .. }).then_some(())).await;
    }

    /// Until it has a parked stream.
    pub async fn parked(&mut self, pair: &Pair) {
        self.next(pair, "parked", |event| matches!(event, Event::Parked { .. }).then_some(())).await;
    }
}
