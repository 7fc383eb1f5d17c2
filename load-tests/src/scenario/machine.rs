//! Whether the machine itself stood still while scenarios were played: then the nodes did too, both at once and for longer
//! than a lease, which no scenario is about and `available` does not cover. (The disk does not matter: the nodes' are in
//! memory.)

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// From here on it counts: a node whose thread is late by so much takes it for a pause of its own, and counts anew for how long it has
/// heard nothing of its peer.
const COUNTS: Duration = Duration::from_millis(500);

/// How long it sleeps between two looks at the clock.
const PAUSE: Duration = Duration::from_millis(50);

/// When the machine went on, and how long it had stood still.
type Stops = Arc<Mutex<Vec<(Instant, Duration)>>>;

/// Looks at the processor until it is dropped.
#[derive(Debug)]
pub struct Machine {
    stops: Stops,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// Begins to look.
    pub fn watch() -> Machine {
        Machine::look(|| std::thread::sleep(PAUSE))
    }

    fn look(mut pause: impl FnMut() + Send + 'static) -> Machine {
        let (stops, over) = (Stops::default(), Arc::new(AtomicBool::new(false)));
        let (found, ends) = (stops.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let begun = Instant::now();
                pause();
                let stood = begun.elapsed().saturating_sub(PAUSE);
                if stood >= COUNTS {
                    found.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), stood));
                }
            }
        });
        Machine { stops, over, thread: Some(thread) }
    }

    /// The longest standstill since then.
    pub fn stood_still_since(&self, begun: Instant) -> Option<Duration> {
        let stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        stops.iter().filter(|(end, _)| *end >= begun).map(|(_, stood)| *stood).max()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_told_to_those_it_touched() {
        let begun = Instant::now();
        let (tell, told) = std::sync::mpsc::channel();
        let mut first = true;
        let machine = Machine::look(move || {
            std::thread::sleep(if first { COUNTS + PAUSE } else { PAUSE });
            first = false;
            let _ = tell.send(());
        });
        // The second pause begins after the first was looked at.
        told.recv().unwrap();
        told.recv().unwrap();
        assert!(machine.stood_still_since(begun).is_some_and(|stood| stood >= COUNTS));
        assert_eq!(machine.stood_still_since(Instant::now()), None);
    }
}
