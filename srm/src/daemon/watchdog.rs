//! A disk that keeps the node's own thread waiting. Who leads is on the disk before the node goes on (R0), so that thread
//! writes it itself; until it is there it sends no beacon, answers nobody, and does not see how long it takes. Another thread
//! does. Where the peer can go on the node ends, as one whose log stands still does ([`crate::node`]); one that leads somebody
//! alone waits for its disk, as one does whose peer is not there or takes nobody over. The same holds for the crashes that are
//! remembered, for what the flap guard counts, and for a log that has to be on the disk before the node goes on.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::chronicle::Chronicle;
use super::metrics::Metrics;
use super::worker::LAST_WORDS;
use crate::node::Event;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// From here on it is told (3 s).
const STALLED_LOOKS: u32 = 12;
/// From here on the node gives up (5 s).
const GIVE_UP_LOOKS: u32 = 20;

/// The write that the node's thread waits for, if it does.
#[derive(Debug, Default)]
pub struct Watchdog(Mutex<Option<Write>>);

#[derive(Debug)]
struct Write {
    /// What is written.
    what: &'static str,
    /// How often it was seen: a process that stood still itself has learned nothing about its disk.
    looks: u32,
    peer_goes_on: bool,
}

/// What a look has found that is new, and what is not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Nothing,
    Stalled(&'static str),
    GivesUp(&'static str),
}

impl Watchdog {
    /// Writes, under the eyes of the other thread. `peer_goes_on`: the peer can serve everybody if this node ends meanwhile.
    pub fn during<T>(&self, what: &'static str, peer_goes_on: bool, write: impl FnOnce() -> T) -> T {
        *self.under_way() = Some(Write { what, looks: 0, peer_goes_on });
        let done = write();
        *self.under_way() = None;
        done
    }

    /// What is written now.
    #[cfg(test)]
    pub(super) fn writes(&self) -> Option<&'static str> {
        self.under_way().as_ref().map(|write| write.what)
    }

    fn under_way(&self) -> MutexGuard<'_, Option<Write>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> Found {
        let mut under_way = self.under_way();
        let Some(write) = &mut *under_way else { return Found::Nothing };
        write.looks = write.looks.saturating_add(1);
        match write.looks {
            STALLED_LOOKS => Found::Stalled(write.what),
            GIVE_UP_LOOKS if write.peer_goes_on => Found::GivesUp(write.what),
            _ => Found::Nothing,
        }
    }

    fn look_for_ever(&self, chronicle: &Chronicle, metrics: &Metrics) {
        loop {
            thread::sleep(LOOK);
            tell(self.look(), chronicle, metrics);
        }
    }
}

/// Looks for as long as the process lives, on a thread of its own.
pub fn start(watchdog: Arc<Watchdog>, chronicle: Arc<Chronicle>, metrics: Arc<Metrics>) -> io::Result<()> {
    let look = move || watchdog.look_for_ever(&chronicle, &metrics);
    thread::Builder::new().name("watchdog".into()).spawn(look)?;
    Ok(())
}

/// The node's thread, which tells and counts where the log stands still, waits.
fn tell(found: Found, chronicle: &Chronicle, metrics: &Metrics) {
    match found {
        Found::Nothing => {}
        Found::Stalled(what) => {
            metrics.event(&Event::DiskStalled);
            let is = "the disk of this node does not answer";
            let text = format!("{is}: {what} is not written, and nobody is served until it is");
            chronicle.tell("disk-stalled", text);
        }
        Found::GivesUp(what) => give_up(what, chronicle),
    }
}

/// Ends the process. What the node's thread waits for stands between it and everything that it would release.
fn give_up(what: &str, chronicle: &Chronicle) -> ! {
    let why = format!("its disk has not answered for 5 s when {what} was written, and the peer can go on");
    chronicle.tell("gave-up", format!("this node gives up: {why}"));
    chronicle.flush(LAST_WORDS);
    eprintln!("tandem: fatal: {why}. The process ends; the other node serves.");
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHAT: &str = "who leads";

    #[test]
    fn a_write_that_takes_long_is_told_and_ends_the_node_where_the_peer_goes_on() {
        for (peer_goes_on, end) in [(true, Some((20, Found::GivesUp(WHAT)))), (false, None)] {
            let watchdog = Watchdog::default();
            let found: Vec<(u32, Found)> = watchdog.during(WHAT, peer_goes_on, || {
                let looks = (1..=100).map(|look| (look, watchdog.look()));
                looks.filter(|(_, found)| *found != Found::Nothing).collect()
            });
            let wanted: Vec<(u32, Found)> =
                [Some((12, Found::Stalled(WHAT))), end].into_iter().flatten().collect();
            assert_eq!(found, wanted);
            assert_eq!(watchdog.look(), Found::Nothing, "it is written");
        }
    }

    #[test]
    fn many_writes_that_each_take_less_are_well() {
        let watchdog = Watchdog::default();
        for _ in 0..10 {
            let well = || (1..STALLED_LOOKS).all(|_| watchdog.look() == Found::Nothing);
            assert!(watchdog.during(WHAT, true, well));
        }
        assert!((0..100).all(|_| watchdog.look() == Found::Nothing), "nothing is written");
    }

    #[test]
    fn a_disk_that_stands_still_is_told_with_what_is_not_written_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let chronicle = Chronicle::start(folder.path(), "a", Default::default()).unwrap();
        let metrics = Metrics::new();
        tell(Found::Nothing, &chronicle, &metrics);
        tell(Found::Stalled("what the flap guard counts"), &chronicle, &metrics);
        chronicle.flush(Duration::from_secs(60));
        let told = chronicle.since(0, 10);
        assert_eq!(told.iter().map(|record| &*record.event).collect::<Vec<_>>(), ["disk-stalled"]);
        assert!(told[0].text.contains("what the flap guard counts is not written"), "{}", told[0].text);
        assert_eq!(metrics.counted("disk_stalled"), 1);
    }
}
