//! What time brings: sessions that nobody resumed end, waits are over.

use super::{Engine, Output};
use crate::ids::SmId;
use crate::state::JsmSession;

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
        let over = |s: &JsmSession| s.detached_ms.is_some_and(|at| now >= at + s.resume_ms);
        let ended: Vec<SmId> = self.state.timed().filter(|(_, s)| over(s)).map(|(id, _)| id).collect();
        for id in ended {
            if self.edge.conn_of(id).is_none() {
                self.detach(id, true, out);
            }
        }
        self.lapse(out);
    }
}
