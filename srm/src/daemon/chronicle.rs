//! Keeps the events: a thread of its own numbers them, puts them on the disk and into the log, and wakes who waits for them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::timeout;

use super::movers::Movers;
use super::notices::Notices;
use super::worker::now_ms;
use crate::config::Config;
use crate::events::journal::{Journal, RECENT};
use crate::events::{Record, Severity, kinds};
use crate::notify::{Notifier, Post};

/// Events of this node.
pub struct Chronicle {
    node: String,
    tell: Mutex<Sender<Note>>,
    kept: Arc<Kept>,
    /// Who asked here for what moves users.
    pub(super) movers: Movers,
}

/// Starts the tasks that tell of events, as the configuration says. In the asynchronous runtime.
///
/// # Errors
/// A file that it names cannot be used.
pub fn notifier(config: &Config, notices: &Arc<Notices>) -> anyhow::Result<Notifier> {
    let post = Some(notices.clone() as Arc<dyn Post>);
    Notifier::start(&config.notify, &config.node.name, &config.node.domains[0], post)
}

enum Note {
    Record(Box<Record>),
    Flush(SyncSender<()>),
}

struct Kept {
    recent: Mutex<VecDeque<Record>>,
    last: watch::Sender<u64>,
    trouble: Mutex<Option<String>>,
    now: Mutex<Holds>,
    notifier: ArcSwapOption<Notifier>,
}

/// The row that holds, and the states that it names.
pub type Holds = (u32, BTreeMap<String, (String, String)>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Chronicle {
    /// Opens the files in the data folder of this node. Until it tells of another row, this one holds.
    ///
    /// # Errors
    /// They cannot be read or written.
    pub fn start(folder: &Path, node: &str, now: Holds) -> io::Result<Arc<Chronicle>> {
        let (journal, recent) = Journal::open(folder)?;
        let last = recent.back().map_or(0, |record| record.number);
        let kept = Arc::new(Kept {
            recent: Mutex::new(recent),
            last: watch::Sender::new(last),
            trouble: Mutex::default(),
            now: Mutex::new(now),
            notifier: ArcSwapOption::empty(),
        });
        let (tell, told) = channel();
        let keeper = kept.clone();
        thread::Builder::new().name("events".into()).spawn(move || keeper.keep(journal, &told))?;
        let (node, tell, movers) = (node.to_owned(), Mutex::new(tell), Movers::default());
        Ok(Arc::new(Chronicle { node, tell, kept, movers }))
    }

    /// Writes an event: node, time, and where they are not given the row that holds and the severity of its kind are added. Does
    /// not wait.
    pub fn write(&self, mut record: Record) {
        record.node.clone_from(&self.node);
        record.at_ms = now_ms();
        let mut now = lock(&self.kept.now);
        match record.row {
            Some(row) => *now = (row, record.states.clone()),
            None => (record.row, record.states) = (Some(now.0), now.1.clone()),
        }
        drop(now);
        if record.severity == Severity::default() {
            record.severity = kinds::severity(&record.event);
        }
        let _ = lock(&self.tell).send(Note::Record(Box::new(record)));
    }

    /// An event that is told by its text alone.
    pub fn tell(&self, event: &str, text: impl Into<String>) {
        self.write(Record { event: event.to_owned(), text: text.into(), ..Record::default() });
    }

    /// Waits until all that was written is on the disk, but no longer than this.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        let _ = lock(&self.tell).send(Note::Flush(done));
        let _ = wait.recv_timeout(limit);
    }

    /// The events after this number, the newest `limit` of them.
    pub fn since(&self, after: u64, limit: usize) -> Vec<Record> {
        let recent = lock(&self.kept.recent);
        let new: Vec<&Record> = recent.iter().filter(|record| record.number > after).collect();
        new[new.len().saturating_sub(limit)..].iter().map(|record| (*record).clone()).collect()
    }

    /// The number of the last event.
    pub fn last(&self) -> u64 {
        *self.kept.last.borrow()
    }

    /// Waits until there is an event after this number, but no longer than this.
    pub async fn wait(&self, after: u64, limit: Duration) {
        let mut last = self.kept.last.subscribe();
        let _ = timeout(limit, last.wait_for(|last| *last > after)).await;
    }

    /// Tells of events by this from now on. What the one before has not delivered yet is lost.
    pub fn notify_by(&self, notifier: Notifier) {
        self.kept.notifier.store(Some(Arc::new(notifier)));
    }

    /// Waits until everybody was told of all events, but no longer than this.
    pub async fn settle(&self, limit: Duration) {
        if let Some(notifier) = self.kept.notifier.load_full() {
            notifier.settle(limit).await;
        }
    }

    /// What is wrong with keeping them and telling of them.
    pub fn alarms(&self) -> Vec<String> {
        let kept = lock(&self.kept.trouble).clone();
        let kept = kept.map(|why| {
            format!("events are not kept ({why}): make room on the disk of [node] data, or repair it")
        });
        let told = self.kept.notifier.load_full().map(|notifier| notifier.troubles());
        kept.into_iter().chain(told.into_iter().flatten()).collect()
    }
}

impl Kept {
    fn keep(&self, mut journal: Journal, told: &Receiver<Note>) {
        while let Ok(first) = told.recv() {
            let mut records = Vec::new();
            let mut waiting = Vec::new();
            for note in std::iter::once(first).chain(told.try_iter()) {
                match note {
                    Note::Record(record) => records.push(*record),
                    Note::Flush(done) => waiting.push(done),
                }
            }
            if !records.is_empty() {
                let result = journal.append(&mut records);
                *lock(&self.trouble) = result.err().map(|error| error.to_string());
                self.publish(records);
            }
            for done in waiting {
                let _ = done.try_send(());
            }
        }
    }

    fn publish(&self, records: Vec<Record>) {
        records.iter().for_each(log);
        if let Some(notifier) = self.notifier.load_full() {
            records.iter().for_each(|record| notifier.tell(record));
        }
        let last = records.last().map_or(0, |record| record.number);
        let mut recent = lock(&self.recent);
        recent.extend(records);
        let more = recent.len().saturating_sub(RECENT);
        recent.drain(..more);
        drop(recent);
        self.last.send_replace(last);
    }
}

fn log(record: &Record) {
    let (event, id, row) = (record.event.as_str(), record.id(), record.row);
    match record.severity {
        Severity::Info | Severity::Notice => tracing::info!(event, id, row, "{}", record.text),
        Severity::Warning => tracing::warn!(event, id, row, "{}", record.text),
        Severity::Error | Severity::Critical => tracing::error!(event, id, row, "{}", record.text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_an_event_gets_it_when_it_is_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let chronicle = Chronicle::start(folder.path(), "a", Holds::default()).unwrap();
        let waiting = chronicle.clone();
        let waiter = tokio::spawn(async move {
            waiting.wait(1, Duration::from_secs(60)).await;
            waiting.since(1, 10)
        });
        chronicle.tell("started", "the process has started");
        chronicle.tell("peer-down", "b is gone");
        let got = waiter.await.unwrap();
        assert_eq!(got.len(), 1);
        assert_eq!((got[0].id().as_str(), got[0].severity), ("a-2", Severity::Error));
        assert_eq!(got[0].text, "b is gone");
        let (_, kept) = Journal::open(folder.path()).unwrap();
        assert_eq!(kept.back(), got.first());
        chronicle.wait(2, Duration::ZERO).await;
        assert_eq!((chronicle.since(2, 10), chronicle.since(0, 1).len()), (vec![], 1));
    }

    #[test]
    fn each_event_bears_the_row_that_holds_and_those_of_a_start_the_row_of_the_start() {
        let states = |state: &str| BTreeMap::from([("a".to_owned(), (state.to_owned(), String::new()))]);
        let folder = tempfile::tempdir().unwrap();
        let at_start = (101, states("Initializing"));
        let chronicle = Chronicle::start(folder.path(), "a", at_start.clone()).unwrap();
        let normal = (1, states("Normal"));
        chronicle.tell("started", "a has started");
        chronicle.tell("disk-stalled", "the disk does not answer");
        let (row, states) = normal.clone();
        let event = "state".to_owned();
        chronicle.write(Record { event, row: Some(row), states, ..Record::default() });
        chronicle.tell("reloaded", "the configuration was read");
        chronicle.flush(Duration::from_secs(60));
        let told = chronicle.since(0, 10).into_iter().map(|record| (record.row, record.states));
        let expected =
            [&at_start, &at_start, &normal, &normal].map(|(row, states)| (Some(*row), states.clone()));
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
}
