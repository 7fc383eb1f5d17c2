//! Whoever wants a drill to end before it is through: what it has changed is undone first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

/// As a shell shows a process that SIGINT has ended.
const INTERRUPTED: i32 = 130;

/// Whether SIGINT, SIGTERM or SIGHUP has come. The second one ends the process at once.
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on none of them ends the process.
    ///
    /// # Errors
    /// The system gives no thread, or no signals.
    pub(super) fn listen() -> io::Result<Stop> {
        let wanted = Arc::new(AtomicBool::new(false));
        let (ready, listens) = channel();
        let told = wanted.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            if let Err(error) = hear(&told, &ready) {
                let _ = ready.send(Err(error));
            }
        })?;
        listens.recv().unwrap_or_else(|_| Err(io::Error::other("the thread for signals has ended")))?;
        Ok(Stop(wanted))
    }

    /// Whether one has come.
    pub(super) fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn hear(told: &AtomicBool, ready: &Sender<io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(wait(told, ready))
}

async fn wait(told: &AtomicBool, ready: &Sender<io::Result<()>>) -> io::Result<()> {
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    // The terminal is gone.
    let mut hup = signal(SignalKind::hangup())?;
    let _ = ready.send(Ok(()));
    loop {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
        if told.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
    }
}
