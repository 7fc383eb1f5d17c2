//! The lists of what a turn looks for are what a look through all connections would find, whatever happens to them.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::front::Front;
use super::*;
use crate::ids::Position;
use crate::record::Record;
use crate::state::Place;

/// Something that happens to a connection.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    Remove,
    Phase(Phase),
    Hold,
    Pop,
    TakeHeld,
    Lost(bool),
    Delivered,
    Answered,
    Ask,
    Tick,
    Front,
    Name,
    LoseOwner,
    TakeFront,
}

fn session(n: u8) -> SmId {
    SmId([n; 16])
}

fn conn(number: u64) -> Conn {
    Conn { node: NodeIx::A, number }
}

fn step() -> impl Strategy<Value = Step> {
    let phase = prop_oneof![
        Just(Phase::Fresh),
        (0..4u8).prop_map(|n| Phase::Bound(session(n))),
        (0..4u8, any::<bool>()).prop_map(|(n, was_main)| Phase::Parked { session: session(n), was_main }),
        Just(Phase::Front),
    ];
    prop_oneof![
        2 => Just(Step::Open),
        1 => Just(Step::Remove),
        3 => phase.prop_map(Step::Phase),
        2 => Just(Step::Hold),
        1 => Just(Step::Pop),
        1 => Just(Step::TakeHeld),
        1 => any::<bool>().prop_map(Step::Lost),
        3 => Just(Step::Delivered),
        2 => Just(Step::Answered),
        1 => Just(Step::Ask),
        1 => Just(Step::Tick),
        2 => Just(Step::Front),
        1 => Just(Step::Name),
        1 => Just(Step::LoseOwner),
        1 => Just(Step::TakeFront),
    ]
}

fn user() -> BareJid {
    BareJid::parse("romeo@example.org").unwrap()
}

fn opened() -> Opened {
    Opened { user: user(), salt: Bytes::new(), entropy: [0; 16], token: None }
}

/// Sessions of which half have stream management.
fn state() -> State {
    let mut state = State::default();
    let mut place = Place { log: NodeIx::A, at: Position::default(), forwards: 0 };
    let mut apply = |record| state.apply(&mut place, &record);
    apply(Record::UserAdd { user: user(), home: NodeIx::A, verifiers: Default::default() });
    for n in 0..4 {
        let (session, resource) = (session(n), format!("r{n}").into());
        apply(Record::Bind { session, user: user(), resource, at_ms: 0, effects: Vec::new() });
        if n % 2 == 0 {
            apply(Record::Enable { session, resume_ms: 1 });
        }
    }
    state
}

fn happen(edge: &mut Edge, step: Step, conn: Conn, now_ms: u64, state: &State) {
    let item = || Item::new(Stanza::parse(b"<message/>").unwrap());
    match step {
        Step::Open => edge.open(conn, opened()),
        Step::Remove => _ = edge.remove(conn),
        Step::Phase(phase) => edge.set_phase(conn, phase),
        Step::Hold => edge.hold(conn, Held::Element(Box::new(item())), now_ms),
        Step::Pop => _ = edge.pop_held(conn),
        Step::TakeHeld => _ = edge.take_held(conn),
        Step::Lost(on) => edge.set_lost(conn, on.then_some(now_ms)),
        Step::Delivered => edge.delivered(conn, state),
        Step::Answered => edge.answered(conn),
        Step::Ask => {
            let due = edge.conns.iter().filter(|(_, c)| c.is_to_be_asked());
            let due: Vec<Conn> = due.map(|(conn, _)| *conn).collect();
            assert!(edge.take_unasked().into_iter().eq(due));
        }
        Step::Tick => edge.tick(),
        Step::Front => edge.set_front(conn, Front::new(None, now_ms)),
        Step::Name => edge.name_front(Conn { number: 1_000 + now_ms, ..conn }, conn),
        Step::LoseOwner => _ = edge.lose_owner(conn, now_ms),
        Step::TakeFront => _ = edge.take_front(conn),
    }
}

proptest! {
    #[test]
    fn what_is_due_is_what_a_look_through_all_would_find(steps in vec((step(), 0..6u64), 0..200)) {
        let (mut edge, state) = (Edge::default(), state());
        for (now_ms, (step, number)) in steps.into_iter().enumerate() {
            happen(&mut edge, step, conn(number), now_ms as u64, &state);
            prop_assert!(edge.agrees(), "after {step:?} of {number}: {edge:?}");
        }
        let lost = edge.conns.iter().filter(|(_, c)| c.lost_ms.is_some_and(|at| at <= 100));
        prop_assert_eq!(edge.lost_before(100), lost.map(|(conn, _)| *conn).collect::<Vec<_>>());
        let mut holding: Vec<_> = edge.conns.iter().filter(|(_, c)| !c.held.is_empty()).collect();
        holding.sort_by_key(|(conn, c)| (c.held_ms, **conn));
        prop_assert_eq!(edge.holding(), holding.iter().map(|(conn, _)| **conn).collect::<Vec<_>>());
    }
}
