//! What time brings: sessions that nobody resumed end, waits are over.

use super::{Engine, Output};
use crate::ids::SmId;

/// How often lost sessions are looked through, in milliseconds.
const SWEEP_MS: u64 = 1_000;

impl Engine {
    pub(super) fn tick(&mut self, out: &mut Vec<Output>) {
        let now = self.turn.now_ms;
        self.edge.tick();
        self.answer_held(out);
        self.sweep_fronts(out);
        self.sweep_remote(out);
        if now < self.next_sweep_ms {
            return;
        }
        self.next_sweep_ms = now + SWEEP_MS;
        self.edge.forget_parks(now);
        self.call_off_overdue(out);
        self.drop_all_early(out);
        for id in self.waited_for(now) {
            if self.edge.conn_of(id).is_none() {
                self.detach(id, true, out);
            }
        }
        self.lapse(out);
    }

    /// Sessions without a stream whose client did not come in time. Since when each has none is said by the clock of the node
    /// that had it then: where that is over when this node first sees it, it is waited for from here on. So nothing ends by a
    /// clock that is ahead, nor by a time in which no client could come, both nodes being down.
    fn waited_for(&mut self, now: u64) -> Vec<SmId> {
        let mut seen = std::mem::take(&mut self.waiting_since);
        seen.retain(|id, _| self.state.session(*id).is_some_and(|s| s.detached_ms.is_some()));
        let mut ended = Vec::new();
        for (id, s) in self.state.timed() {
            let Some(at) = s.detached_ms else { continue };
            let over = |since: u64| now >= since.saturating_add(s.resume_ms);
            let (of, since) = *seen.entry(id).or_insert((at, if over(at) { now } else { at }));
            // It had a stream in between.
            let since = if of == at { since } else { at };
            seen.insert(id, (at, since));
            if over(since) {
                ended.push(id);
            }
        }
        self.waiting_since = seen;
        ended
    }
}
