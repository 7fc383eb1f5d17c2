//! What a panic costs. In a task that serves one client: that client's stream; in one request of the operator's: that request;
//! while a receiver is told of an event: that attempt.
//! Anywhere else the process, at once: a half-dead node is worse than a dead one, whose peer serves. Nothing is unwound first. That would drop the senders of
//! all connections, and their tasks would end streams in good order whose sessions are to go on.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{panic, process, thread};

use super::{crashes, store};

/// Name of the node's thread.
pub const NODE: &str = "node";
/// Name of the threads that serve sockets, where tasks that must not panic are [`vital`].
pub const IO: &str = "tandem-io";

/// From now on a panic outside of the threads for sockets ends the process. `handled`: what the node's thread handles, which
/// is noted in `data` (D15).
pub fn end_the_process(data: PathBuf, handled: Arc<AtomicU64>) {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        report(info);
        let here = thread::current();
        if here.name() == Some(NODE) {
            crashes::panicked(&data, handled.load(Ordering::Relaxed));
        }
        // What an engine of the store does is caught, and costs the store.
        if here.name() != Some(IO) && here.name() != Some(store::THREAD) {
            fatal(here.name().unwrap_or("without a name"));
        }
    }));
}

/// Runs, on the threads for sockets, what a node cannot be without: a panic in it ends the process. `what` it is stands in
/// the last words, and a test may have it panic by that name.
pub fn vital<F>(what: &'static str, runs: F)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let task = match crashes::task_trap() {
        None => tokio::spawn(async { drop(runs.await) }),
        Some(trap) => tokio::spawn(async move {
            tokio::select! {
                _ = runs => {}
                () = crashes::trapped(what, &trap) => {}
            }
        }),
    };
    tokio::spawn(async move {
        if task.await.is_err_and(|error| error.is_panic()) {
            fatal(what);
        }
    });
}

fn fatal(what: &str) -> ! {
    eprintln!(
        "tandem: fatal: a bug ended {what:?}. The process ends; the other node serves. Please report the lines above."
    );
    process::abort();
}
