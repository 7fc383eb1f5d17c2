//! Whether the machine itself stood still while scenarios were played: then the nodes did too, both at once and for longer
//! than a lease, which no scenario is about and `available` does not cover.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// From here on it counts: the lease is three seconds, and part of it has passed when the machine stops.
const COUNTS: Duration = Duration::from_millis(1_500);

/// When the machine went on, and how long it had stood still.
type Stops = Arc<Mutex<Vec<(Instant, Duration, &'static str)>>>;

/// Looks at the processor and the disk until it is dropped.
#[derive(Debug)]
pub struct Machine {
    stops: Stops,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Machine {
    /// Begins to look; the disk is that of temporary files, where the nodes' data are.
    ///
    /// # Errors
    /// There is no place for a temporary file.
    pub fn watch() -> io::Result<Machine> {
        let mut file = tempfile::tempfile()?;
        let mut machine = Machine { stops: Stops::default(), over: Arc::default(), threads: Vec::new() };
        machine.look("the machine", Duration::from_millis(50), || {});
        machine.look("the disk", Duration::from_millis(200), move || write(&mut file));
        Ok(machine)
    }

    fn look(&mut self, what: &'static str, pause: Duration, mut work: impl FnMut() + Send + 'static) {
        let (stops, over) = (self.stops.clone(), self.over.clone());
        self.threads.push(std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                std::thread::sleep(pause);
                work();
                let stood = begun.elapsed().saturating_sub(pause);
                if stood >= COUNTS {
                    let mut stops = stops.lock().unwrap_or_else(PoisonError::into_inner);
                    stops.push((Instant::now(), stood, what));
                }
            }
        }));
    }

    /// The longest standstill since then, in words.
    pub fn stood_still_since(&self, begun: Instant) -> Option<String> {
        let stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = stops.iter().filter(|(end, ..)| *end >= begun).max_by_key(|(_, stood, _)| *stood)?;
        Some(format!("{} stood still for {:.1} s", longest.2, longest.1.as_secs_f64()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// As a log does: a little, and wait until the disk has it. An error shows elsewhere.
fn write(file: &mut File) {
    let _ = file.rewind().and_then(|()| file.write_all(&[0; 4096])).and_then(|()| file.sync_data());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_told_to_those_it_touched() {
        let mut machine = Machine { stops: Stops::default(), over: Arc::default(), threads: Vec::new() };
        let begun = Instant::now();
        let over = machine.over.clone();
        machine.look("the test", Duration::ZERO, move || {
            std::thread::sleep(COUNTS);
            over.store(true, Ordering::Relaxed);
        });
        machine.threads.pop().unwrap().join().unwrap();
        assert_eq!(machine.stood_still_since(begun).as_deref(), Some("the test stood still for 1.5 s"));
        assert_eq!(machine.stood_still_since(Instant::now()), None);
    }
}
