//! The safety core under `stateright`: the code of production, all interleavings within stated bounds.

mod bounds;
mod data;
mod heal;
mod operator;
mod witness;
mod world;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use presence_engine::ids::NodeIx;
use stateright::{Checker, Model, Property};

pub use bounds::{Bounds, Break, Kind, Left, Start};
pub use world::{Action, World};

/// Reached: B leads a Pair.
pub const TAKEN_OVER: &str = "a takeover is followed by Pair";
/// Reached: A leads a Pair by a value of the register that B issued.
pub const GIVEN_BACK: &str = "a give-back is followed by Pair";
/// Reached: two Solo copies met, and the group is Pair again.
pub const SETTLED: &str = "a conflict is settled and followed by Pair";
/// Reached: the witness lost its register and holds one again.
pub const RESEEDED: &str = "a witness that lost its register has it again";

/// The model of one home group.
pub struct Group {
    bounds: Bounds,
    /// The checker would put each later failure in the place of the first, which has the fewest steps.
    failed: AtomicBool,
}

impl Group {
    /// Whether a property is to be called kept: it is, or one was found broken before.
    fn kept(&self, holds: bool) -> bool {
        holds || self.failed.swap(true, Ordering::Relaxed)
    }
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
            Property::always(
                "nothing acknowledged is destroyed, no rule of a step is broken",
                |m: &Group, s: &World| m.kept(s.broken.is_none()),
            ),
            Property::always("one owner, which holds everything acknowledged", |m: &Group, s: &World| {
                m.kept(s.dual.is_none())
            }),
            Property::always("heals to Pair when the faults end", |m: &Group, s: &World| {
                if !m.bounds.heals {
                    return true;
                }
                let mut healed = s.clone();
                healed.heal(&m.bounds);
                m.kept(
                    healed.healed_pair(&m.bounds).is_some()
                        && healed.broken.is_none()
                        && healed.dual.is_none(),
                )
            }),
            Property::sometimes(TAKEN_OVER, |_, s: &World| {
                s.pair_under().is_some_and(|r| r.primary == NodeIx::B)
            }),
            Property::sometimes(GIVEN_BACK, |_, s: &World| {
                s.pair_under().is_some_and(|r| r.primary == NodeIx::A && r.term.0 % 2 == 1)
            }),
            Property::sometimes(SETTLED, |_, s: &World| s.pair_under().is_some_and(|r| r.settled.0 > 0)),
            Property::sometimes(RESEEDED, |m: &Group, s: &World| {
                s.left.forgets < m.bounds.left.forgets && s.register.is_some()
            }),
        ]
    }
}

/// What a search found.
#[derive(Debug)]
pub struct Found {
    /// Distinct states visited.
    pub states: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether the whole space within the bounds was searched.
    pub complete: bool,
    /// Broken properties, with the steps that lead there.
    pub failures: Vec<String>,
    /// Examples of `sometimes` properties that were reached.
    pub reached: Vec<&'static str>,
}

impl Found {
    /// What of this never happened in the states that were visited.
    pub fn missed(&self, reaches: &[&'static str]) -> Vec<&'static str> {
        reaches.iter().copied().filter(|what| !self.reached.contains(what)).collect()
    }
}

/// Searches breadth first on `threads` threads (one: a failure has the fewest steps); stops at `limit`, and then says so in `complete`.
pub fn search(bounds: Bounds, threads: usize, limit: Duration) -> Found {
    let started = Instant::now();
    let checker = Group { bounds, failed: AtomicBool::new(false) }
        .checker()
        .threads(threads)
        .finish_when(stateright::HasDiscoveries::AnyFailures)
        .timeout(limit)
        .spawn_bfs()
        .join();
    let took = started.elapsed();
    let mut failures = Vec::new();
    let mut reached = Vec::new();
    for (name, path) in checker.discoveries() {
        match checker.discovery_classification(name) {
            stateright::DiscoveryClassification::Counterexample => {
                let mut last = path.last_state().clone();
                let mut why = last.broken.or(last.dual);
                if why.is_none() {
                    last.heal(&bounds);
                    why = last
                        .broken
                        .or(last.dual)
                        .or(Some("does not heal: below, the last state after healing"));
                }
                let why = why.unwrap_or_default();
                let steps = path.into_actions();
                failures.push(format!("{name} ({why}): {} steps {steps:?}\n{last:#?}", steps.len()));
            }
            stateright::DiscoveryClassification::Example => reached.push(name),
        }
    }
    let complete = failures.is_empty() && took < limit && checker.is_done();
    Found { states: checker.unique_state_count(), took, complete, failures, reached }
}
