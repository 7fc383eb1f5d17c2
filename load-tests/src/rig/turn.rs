//! Which tests with processes run beside each other: as many as threads of the test program begin, within this limit.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use tokio::sync::{Semaphore, SemaphorePermit};

/// They wait more than they compute: so many have room at once.
static ROOM: LazyLock<u32> = LazyLock::new(|| {
    let cores = available_parallelism().map_or(1, |cores| cores.get());
    u32::try_from(cores).unwrap_or(u32::MAX).saturating_add(1).min(16)
});

static TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(*ROOM as usize));

/// The turn of a test; the next one's comes when it is dropped.
pub type Turn = SemaphorePermit<'static>;

/// Waits for the turn of a test that starts processes.
pub async fn turn() -> Turn {
    TURNS.acquire().await.expect("never closed")
}

/// The same for a test that measures times of milliseconds: no other runs beside it.
pub async fn alone() -> Turn {
    TURNS.acquire_many(*ROOM).await.expect("never closed")
}
