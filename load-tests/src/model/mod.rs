//! The safety core under `stateright`: the code of production, all interleavings within stated bounds.

mod world;

use std::time::Duration;

use stateright::{Checker, Model, Property};

pub use world::{Action, Bounds, Kind, World};

/// The model of one home group.
pub struct Group {
    /// What may happen.
    pub bounds: Bounds,
    /// Whether exactly one owner and no missing entry is expected at every moment (not so for `available` under false
    /// evidence, where what both released is merged).
    pub strong: bool,
    /// Whether every state must heal by itself to Pair once faults end (not so for `strict` alone).
    pub heals: bool,
}

impl Model for Group {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::start(&self.bounds)]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Action>) {
        state.actions(&self.bounds, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut next = last.clone();
        next.act(&self.bounds, action);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing acknowledged is destroyed, no term goes back", |_, s: &World| {
                s.broken.is_none()
            }),
            Property::always("one owner, which holds everything acknowledged", |m: &Group, s: &World| {
                !m.strong || !s.strong
            }),
            Property::always("heals to Pair when the faults end", |m: &Group, s: &World| {
                if !m.heals {
                    return true;
                }
                let mut healed = s.clone();
                healed.heal(&m.bounds);
                healed.is_pair() && healed.broken.is_none()
            }),
            Property::sometimes("a takeover is followed by Pair again", |_, s: &World| {
                s.is_pair()
                    && s.core(presence_engine::ids::NodeIx::B)
                        .is_some_and(|c| c.reg().primary == presence_engine::ids::NodeIx::B)
            }),
        ]
    }
}

/// What a search found.
#[derive(Debug)]
pub struct Found {
    /// Distinct states visited.
    pub states: usize,
    /// Whether the whole space within the bounds was searched.
    pub complete: bool,
    /// Broken properties, with the steps that lead there.
    pub failures: Vec<String>,
    /// Examples of `sometimes` properties that were reached.
    pub reached: Vec<String>,
}

/// Searches breadth first on `threads` threads; stops at `limit`, and then says so in `complete`.
pub fn search(group: Group, threads: usize, limit: Duration) -> Found {
    let started = std::time::Instant::now();
    let checker = group
        .checker()
        .threads(threads)
        .finish_when(stateright::HasDiscoveries::AnyFailures)
        .timeout(limit)
        .spawn_bfs()
        .join();
    let timed_out = started.elapsed() >= limit;
    let mut failures = Vec::new();
    let mut reached = Vec::new();
    for (name, path) in checker.discoveries() {
        let steps = path.clone().into_actions();
        match checker.discovery_classification(name) {
            stateright::DiscoveryClassification::Counterexample => {
                let last = path.last_state().clone();
                failures.push(format!("{name}: {} steps {steps:?}\n{last:#?}", steps.len()));
            }
            stateright::DiscoveryClassification::Example => reached.push(name.to_owned()),
        }
    }
    let complete = failures.is_empty() && !timed_out && checker.is_done();
    Found { states: checker.unique_state_count(), complete, failures, reached }
}
