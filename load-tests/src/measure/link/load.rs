//! Messages at a fixed rate, or as many as are taken, and how long each took.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::measure::client::{Client, Heard};

/// Longest wait for what is still under way when nobody writes any more.
const DRAIN: Duration = Duration::from_secs(20);

/// How much is written.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// So many messages a second, of all clients together, whatever becomes of them.
    Rate(f64),
    /// As many as are acknowledged: each client has so many that are not.
    Window(usize),
}

/// One time of writing.
struct Run {
    begun: Instant,
    until: Instant,
    /// Tells its messages from those of earlier runs, which may still come.
    number: u64,
    load: Load,
    body: String,
    over: watch::Sender<bool>,
    sent: AtomicU64,
    arrived: AtomicU64,
    acknowledged: AtomicU64,
}

impl Run {
    /// Messages that are somewhere on their way, or were not acknowledged yet.
    fn under_way(&self) -> u64 {
        let done = self.arrived.load(Ordering::Relaxed).min(self.acknowledged.load(Ordering::Relaxed));
        self.sent.load(Ordering::Relaxed).saturating_sub(done)
    }
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Messages that were written.
    pub sent: u64,
    /// How many of them were under way after half of the time, and at its end.
    pub under_way: [u64; 2],
    /// How many arrived in a second, in the second half of the time.
    pub rate: f64,
    /// From writing to arrival, each.
    pub arrival: Vec<Duration>,
    /// From writing to acknowledgement, each.
    pub acknowledgement: Vec<Duration>,
}

impl Outcome {
    /// Everything that was written arrived and was acknowledged.
    pub fn is_complete(&self) -> bool {
        self.arrival.len() as u64 >= self.sent && self.acknowledgement.len() as u64 >= self.sent
    }
}

/// A client, and what of its messages is not acknowledged.
pub struct Talker {
    client: Client,
    nth: usize,
    /// Stanzas that it has sent.
    sent: u32,
    /// The number of each that is not acknowledged, with its run and when it was written.
    waiting: VecDeque<(u32, u64, Instant)>,
}

#[derive(Default)]
struct Times {
    arrival: Vec<Duration>,
    acknowledgement: Vec<Duration>,
}

impl Talker {
    /// Somebody who has logged in a moment ago: presence was sent and acknowledged.
    pub fn new(nth: usize, client: Client) -> Talker {
        Talker { client, nth, sent: 1, waiting: VecDeque::new() }
    }

    /// The client, which is to write no more.
    pub fn into_client(self) -> Client {
        self.client
    }

    async fn talk(mut self, run: Arc<Run>, all: usize) -> anyhow::Result<(Talker, Times)> {
        let (over, mut times) = (ended(run.over.subscribe()), Times::default());
        tokio::pin!(over);
        let (every, most) = match run.load {
            Load::Rate(rate) => (Duration::from_secs_f64(all as f64 / rate), usize::MAX),
            Load::Window(most) => (Duration::ZERO, most),
        };
        // They begin one after the other, so that not all of them write at once.
        let mut next = run.begun + every.mul_f64(self.nth as f64 / all as f64);
        loop {
            let may = next < run.until && self.waiting.len() < most && Instant::now() < run.until;
            tokio::select! {
                stanza = self.client.hear_stanza() => self.hear(&stanza?, &run, &mut times)?,
                () = sleep_until(next.into()), if may => {
                    self.write(&run);
                    next += every;
                }
                () = &mut over => return Ok((self, times)),
            }
        }
    }

    fn write(&mut self, run: &Run) {
        let now = Instant::now();
        self.sent = self.sent.wrapping_add(1);
        self.waiting.push_back((self.sent, run.number, now));
        self.client.write(&format!("{}.{}", run.number, (now - run.begun).as_nanos()), &run.body);
        run.sent.fetch_add(1, Ordering::Relaxed);
    }

    fn hear(&mut self, stanza: &xmpp_core::Stanza, run: &Run, times: &mut Times) -> anyhow::Result<()> {
        match self.client.understand(stanza)? {
            Heard::Message => {
                if let Some(written) = stanza.attr("id").and_then(|id| written(&id, run.number)) {
                    times.arrival.push(run.begun.elapsed().saturating_sub(written));
                    run.arrived.fetch_add(1, Ordering::Relaxed);
                }
            }
            Heard::Acknowledged(h) => {
                while let Some((_, number, at)) = self.waiting.pop_front_if(|(sent, ..)| *sent <= h) {
                    if number == run.number {
                        times.acknowledgement.push(at.elapsed());
                        run.acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            Heard::Asked | Heard::Offer | Heard::Other => {}
        }
        Ok(())
    }
}

/// When the message with this id was written, after the begin of this run; `None`: it is of another.
fn written(id: &str, number: u64) -> Option<Duration> {
    let (of, nanos) = id.split_once('.')?;
    (of.parse::<u64>().ok()? == number).then(|| nanos.parse().ok().map(Duration::from_nanos))?
}

async fn ended(mut over: watch::Receiver<bool>) {
    let _ = over.wait_for(|over| *over).await;
}

/// Everybody who talks.
pub struct Crowd {
    talkers: Vec<Talker>,
    runs: u64,
    body: String,
}

impl Crowd {
    /// Those who have just logged in, in the order of their numbers: each talks to one neighbour.
    pub fn new(clients: Vec<Client>, body: usize) -> Crowd {
        let talkers = clients.into_iter().enumerate().map(|(nth, client)| Talker::new(nth, client));
        Crowd { talkers: talkers.collect(), runs: 0, body: "x".repeat(body) }
    }

    /// All clients.
    pub fn into_clients(self) -> Vec<Client> {
        self.talkers.into_iter().map(Talker::into_client).collect()
    }

    /// They write for so long; then everybody waits for what is under way.
    pub async fn talk(&mut self, load: Load, time: Duration) -> anyhow::Result<Outcome> {
        self.runs += 1;
        let begun = Instant::now();
        let run = Arc::new(Run {
            begun,
            until: begun + time,
            number: self.runs,
            load,
            body: self.body.clone(),
            over: watch::Sender::new(false),
            sent: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
        });
        let all = self.talkers.len();
        let mut tasks: JoinSet<_> =
            self.talkers.drain(..).map(|talker| talker.talk(Arc::clone(&run), all)).collect();
        let seen = tokio::select! {
            seen = look(&run, time) => seen,
            early = tasks.join_next() => {
                early.context("there is nobody")?.context("a client panicked")??;
                anyhow::bail!("a client ended")
            }
        };
        run.over.send_replace(true);
        let mut outcome = Outcome { sent: run.sent.load(Ordering::Relaxed), ..seen };
        while let Some(done) = tasks.join_next().await {
            let (talker, times) = done.context("a client panicked")??;
            outcome.arrival.extend(times.arrival);
            outcome.acknowledgement.extend(times.acknowledgement);
            self.talkers.push(talker);
        }
        self.talkers.sort_by_key(|talker| talker.nth);
        Ok(outcome)
    }
}

/// Looks after half of the time and at its end, and waits until nothing is under way.
async fn look(run: &Run, time: Duration) -> Outcome {
    sleep(time / 2).await;
    let (half, since) = (run.under_way(), Instant::now());
    let arrived = run.arrived.load(Ordering::Relaxed);
    sleep(run.until.saturating_duration_since(since)).await;
    let end = run.under_way();
    let more = run.arrived.load(Ordering::Relaxed) - arrived;
    let rate = more as f64 / since.elapsed().as_secs_f64();
    while run.under_way() > 0 && run.until.elapsed() < DRAIN {
        sleep(Duration::from_millis(10)).await;
    }
    Outcome { under_way: [half, end], rate, ..Outcome::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_other_runs_are_not_timed() {
        assert_eq!(written("3.1500", 3), Some(Duration::from_nanos(1500)));
        assert_eq!(written("2.1500", 3), None);
        assert_eq!(written("m7", 3), None);
    }

    #[test]
    fn an_outcome_is_complete_when_all_came_and_were_acknowledged() {
        let times = |count| vec![Duration::ZERO; count];
        let outcome = |arrival, acknowledgement| Outcome {
            sent: 2,
            arrival: times(arrival),
            acknowledgement: times(acknowledgement),
            ..Outcome::default()
        };
        assert!(outcome(2, 2).is_complete());
        assert!(!outcome(1, 2).is_complete() && !outcome(2, 1).is_complete());
    }
}
