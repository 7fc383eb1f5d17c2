//! A disk that keeps the node's own thread waiting. Who leads is on the disk before the node goes on (R0), so that thread
//! writes it itself; until it is there it sends no beacon, answers nobody, and does not see how long it takes. Another thread
//! does. Where the peer can go on the node ends, as one whose log stands still does ([`crate::node`]); one that leads somebody
//! alone waits for its disk.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::chronicle::Chronicle;
use super::worker::LAST_WORDS;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// From here on it is told (3 s).
const STALLED_LOOKS: u32 = 12;
/// From here on the node gives up (5 s).
const GIVE_UP_LOOKS: u32 = 20;

const WHY: &str = "its disk has not answered for 5 s when who leads was written, and the peer can go on";

/// The write that the node's thread waits for, if it does.
#[derive(Debug, Default)]
pub struct Watchdog(Mutex<Option<Write>>);

#[derive(Debug)]
struct Write {
    /// How often it was seen: a process that stood still itself has learned nothing about its disk.
    looks: u32,
    peer_goes_on: bool,
}

/// What a look has found that is new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Nothing,
    Stalled,
    GivesUp,
}

impl Watchdog {
    /// Writes, under the eyes of the other thread. `peer_goes_on`: the peer can serve everybody if this node ends meanwhile.
    pub fn during<T>(&self, peer_goes_on: bool, write: impl FnOnce() -> T) -> T {
        *self.under_way() = Some(Write { looks: 0, peer_goes_on });
        let done = write();
        *self.under_way() = None;
        done
    }

    fn under_way(&self) -> MutexGuard<'_, Option<Write>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> Found {
        let mut under_way = self.under_way();
        let Some(write) = &mut *under_way else { return Found::Nothing };
        write.looks = write.looks.saturating_add(1);
        match write.looks {
            STALLED_LOOKS => Found::Stalled,
            GIVE_UP_LOOKS if write.peer_goes_on => Found::GivesUp,
            _ => Found::Nothing,
        }
    }

    fn look_for_ever(&self, chronicle: &Chronicle) {
        loop {
            thread::sleep(LOOK);
            match self.look() {
                Found::Nothing => {}
                Found::Stalled => chronicle.tell(
                    "disk-stalled",
                    "the disk of this node does not answer: who leads is not written, and nobody is served until it is",
                ),
                Found::GivesUp => give_up(chronicle),
            }
        }
    }
}

/// Looks for as long as the process lives, on a thread of its own.
pub fn start(watchdog: Arc<Watchdog>, chronicle: Arc<Chronicle>) -> io::Result<()> {
    let look = move || watchdog.look_for_ever(&chronicle);
    thread::Builder::new().name("watchdog".into()).spawn(look)?;
    Ok(())
}

/// Ends the process. What the node's thread waits for stands between it and everything that it would release.
fn give_up(chronicle: &Chronicle) -> ! {
    chronicle.tell("gave-up", format!("this node gives up: {WHY}"));
    chronicle.flush(LAST_WORDS);
    eprintln!("tandem: fatal: {WHY}. The process ends; the other node serves.");
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_takes_long_is_told_and_ends_the_node_where_the_peer_goes_on() {
        for (peer_goes_on, end) in [(true, Some((20, Found::GivesUp))), (false, None)] {
            let watchdog = Watchdog::default();
            let found: Vec<(u32, Found)> = watchdog.during(peer_goes_on, || {
                let looks = (1..=100).map(|look| (look, watchdog.look()));
                looks.filter(|(_, found)| *found != Found::Nothing).collect()
            });
            let wanted: Vec<(u32, Found)> = [Some((12, Found::Stalled)), end].into_iter().flatten().collect();
            assert_eq!(found, wanted);
            assert_eq!(watchdog.look(), Found::Nothing, "it is written");
        }
    }

    #[test]
    fn many_writes_that_each_take_less_are_well() {
        let watchdog = Watchdog::default();
        for _ in 0..10 {
            let well = || (1..STALLED_LOOKS).all(|_| watchdog.look() == Found::Nothing);
            assert!(watchdog.during(true, well));
        }
        assert!((0..100).all(|_| watchdog.look() == Found::Nothing), "nothing is written");
    }
}
