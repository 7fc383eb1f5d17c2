//! The safety core, searched: every interleaving within the bounds of each test, on one thread. A search that runs out
//! of time fails. Steps of a counterexample are printed; `model` (the binary) takes the same bounds.

use std::time::Duration;

use load_tests::model::{
    Bounds, Break, GIVEN_BACK, Kind, Left, RESEEDED, SETTLED, Start, TAKEN_OVER, search,
};

const LIMIT: Duration = Duration::from_secs(100);
const NONE: Left = Bounds::new(Kind::Witness, Start::Home).left;

/// The whole space within `bounds` holds, and each of `reaches` happens somewhere in it.
fn holds(name: &str, bounds: Bounds, reaches: &[&'static str]) {
    let found = search(bounds, 1, LIMIT);
    println!("{name}: {} states in {:.1?}", found.states, found.took);
    assert!(found.failures.is_empty(), "{name}: {bounds:?}\n{}", found.failures.join("\n"));
    assert!(found.complete, "{name}: not finished in {LIMIT:?}, {} states", found.states);
    assert_eq!(found.missed(reaches), [""; 0], "{name}: never reached");
}

/// With one rule broken, the search says what comes of it.
fn finds(name: &str, broken: Break, bounds: Bounds, what: &str) {
    let found = search(Bounds { broken: Some(broken), ..bounds }, 1, LIMIT);
    println!("{name}: {} states in {:.1?}", found.states, found.took);
    let failures = found.failures.join("\n");
    assert!(failures.contains(what), "{name}: not found in {} states: {what}\n{failures}", found.states);
}

fn with(kind: Kind, start: Start, left: Left) -> Bounds {
    Bounds { left, ..Bounds::new(kind, start) }
}

/// `available` where both may have led alone: nothing is destroyed and it heals, but for a while there may be two.
fn merged(start: Start, left: Left) -> Bounds {
    Bounds { strong: false, ..with(Kind::Available, start, left) }
}

/// What cannot happen within the bounds is missed: nothing was shown of it.
#[test]
fn what_a_search_is_for_has_to_happen_in_it() {
    let found = search(with(Kind::Strict, Start::Home, Left { crashes: 1, ..NONE }), 1, LIMIT);
    assert!(found.complete, "{:?}", found.failures);
    assert_eq!(found.missed(&[TAKEN_OVER, SETTLED]), [TAKEN_OVER, SETTLED]);
    let found = search(with(Kind::Witness, Start::Home, Left { crashes: 1, lies: 1, ..NONE }), 1, LIMIT);
    assert_eq!(found.missed(&[TAKEN_OVER, RESEEDED]), [RESEEDED]);
}

#[test]
fn witness_crashes_and_evidence_true_or_false() {
    let left = Left { crashes: 2, ..NONE };
    holds("two crashes", with(Kind::Witness, Start::Home, left), &[TAKEN_OVER]);
    let left = Left { crashes: 1, lies: 1, ..NONE };
    holds("crash, lie", with(Kind::Witness, Start::Home, left), &[TAKEN_OVER]);
    let left = Left { crashes: 1, pauses: 1, lies: 1, ..NONE };
    holds("crash, pause, lie", with(Kind::Witness, Start::Home, left), &[TAKEN_OVER]);
}

#[test]
fn witness_power_loss_and_initialization() {
    let left = Left { power: 1, crashes: 1, init: 1, ..NONE };
    holds("power, crash, init", with(Kind::Witness, Start::TakenOver, left), &[TAKEN_OVER]);
    let left = Left { power: 1, crashes: 1, cuts: 1, ..NONE };
    holds("solo, power, crash, cut", with(Kind::Witness, Start::Solo, left), &[TAKEN_OVER]);
    let left = Left { power: 2, init: 1, ..NONE };
    let bounds = Bounds { peer_disk: true, ..with(Kind::Witness, Start::Home, left) };
    holds("peer-and-disk: two power losses, init", bounds, &[TAKEN_OVER]);
}

#[test]
fn witness_restarts_from_solo_with_late_requests() {
    let left = Left { crashes: 2, init: 1, ..NONE };
    holds("solo, crashes, init", with(Kind::Witness, Start::Solo, left), &[TAKEN_OVER]);
}

#[test]
fn witness_disks_and_register_copies_lost() {
    let left = Left { crashes: 1, disks: 1, init: 1, ..NONE };
    holds("crash, disk, init", with(Kind::Witness, Start::Home, left), &[TAKEN_OVER]);
    let left = Left { disks: 1, init: 1, ..NONE };
    let bounds = Bounds { peer_disk: true, ..with(Kind::Witness, Start::Home, left) };
    holds("peer-and-disk: disk, init", bounds, &[TAKEN_OVER]);
}

#[test]
fn witness_time_passes() {
    let left = Left { crashes: 1, ..NONE };
    let bounds = Bounds { ticks: 3, ..with(Kind::Witness, Start::Home, left) };
    holds("three ticks, crash", bounds, &[TAKEN_OVER]);
}

#[test]
fn witness_gives_back() {
    let left = Left { crashes: 1, power: 1, give_back: 1, ..NONE };
    let bounds = with(Kind::Witness, Start::TakenOver, left);
    holds("give-back, crash, power", bounds, &[GIVEN_BACK, TAKEN_OVER]);
}

#[test]
fn witness_overruled_by_the_operator() {
    let left = Left { crashes: 1, force: 1, ..NONE };
    holds("force-active, crash", with(Kind::Witness, Start::Home, left), &[TAKEN_OVER, SETTLED]);
    let left = Left { crashes: 1, overrule: 1, unsent: 1, ..NONE };
    holds("overruled, crash", with(Kind::Witness, Start::Home, left), &[TAKEN_OVER, SETTLED]);
}

#[test]
fn witness_out_of_reach() {
    let left = Left { crashes: 1, lies: 1, unsent: 2, ..NONE };
    holds("crash, lie, unsent", with(Kind::Witness, Start::Home, left), &[TAKEN_OVER]);
    let left = Left { crashes: 1, unsent: 1, init: 1, ..NONE };
    holds("solo, crash, init, unsent", with(Kind::Witness, Start::Solo, left), &[TAKEN_OVER]);
    let left = Left { unsent: 1, lies: 1, ..NONE };
    let bounds = Bounds { ticks: 3, ..with(Kind::Witness, Start::Home, left) };
    holds("three ticks, lie, unsent", bounds, &[TAKEN_OVER]);
}

#[test]
fn strict_waits_and_heals() {
    let left = Left { crashes: 2, pauses: 1, lies: 1, cuts: 1, ..NONE };
    holds("strict: crashes, pause, lie", with(Kind::Strict, Start::Home, left), &[]);
    let left = Left { crashes: 1, lies: 1, ..NONE };
    let bounds = Bounds { ticks: 4, ..with(Kind::Strict, Start::Home, left) };
    holds("strict: four ticks", bounds, &[]);
    let left = Left { crashes: 1, give_back: 1, power: 1, ..NONE };
    holds("strict: give-back, crash, power", with(Kind::Strict, Start::TakenOver, left), &[GIVEN_BACK]);
    let left = Left { crashes: 1, force: 1, pauses: 1, ..NONE };
    let bounds = Bounds { writes: 2, ..with(Kind::Strict, Start::Home, left) };
    holds("strict: force-active, crash, pause", bounds, &[TAKEN_OVER]);
}

/// `available` promises one owner with everything as long as evidence is true and no lease is lost: any crashes, power
/// losses, lost disks and give-backs, but no pause, no ticks, no initialization time-out (which promotes without
/// evidence), no lie.
#[test]
fn available_is_strong_on_true_evidence_without_lease_loss() {
    let left = Left { crashes: 2, disks: 1, ..NONE };
    holds("available: crashes, disk", with(Kind::Available, Start::Home, left), &[TAKEN_OVER]);
    let left = Left { crashes: 1, power: 1, cuts: 1, ..NONE };
    holds("available: crash, power, cut", with(Kind::Available, Start::Home, left), &[TAKEN_OVER]);
    let left = Left { crashes: 2, give_back: 1, ..NONE };
    holds("available: give-back, crashes", with(Kind::Available, Start::TakenOver, left), &[GIVEN_BACK]);
}

#[test]
fn available_destroys_nothing_and_settles() {
    let left = Left { crashes: 1, pauses: 1, lies: 1, ..NONE };
    let bounds = Bounds { writes: 2, ..merged(Start::Home, left) };
    holds("available: crash, pause, lie", bounds, &[TAKEN_OVER, SETTLED]);
    let left = Left { crashes: 1, lies: 1, give_back: 1, ..NONE };
    holds("available: lie, give-back, crash", merged(Start::TakenOver, left), &[GIVEN_BACK, SETTLED]);
    let left = Left { crashes: 2, pauses: 1, init: 1, ..NONE };
    holds("available: crashes, pause, init", merged(Start::Home, left), &[TAKEN_OVER, SETTLED]);
    // Two ticks are a lease: a node that stood still listens for as long before it goes on alone.
    let left = Left { pauses: 1, lies: 1, ..NONE };
    let bounds = Bounds { ticks: 2, ..merged(Start::Home, left) };
    holds("available: pause, lie, two ticks", bounds, &[TAKEN_OVER, SETTLED]);
    let left = Left { pauses: 1, lies: 1, ..NONE };
    let bounds = Bounds { writes: 2, ticks: 2, took_other: [true, true], ..merged(Start::Home, left) };
    holds("available: each took the other's group", bounds, &[SETTLED]);
    let left = Left { crashes: 1, ..NONE };
    holds("available: time passes", Bounds { ticks: 4, ..merged(Start::Home, left) }, &[SETTLED]);
    let left = Left { crashes: 1, force: 1, ..NONE };
    holds("available: force-active", merged(Start::Home, left), &[TAKEN_OVER, SETTLED]);
}

/// An empty witness grants nothing to a node that is alone with it: what it had granted, the other may have acted upon.
#[test]
fn witness_loses_its_register() {
    let left = Left { lies: 2, forgets: 1, ..NONE };
    let reaches = [TAKEN_OVER, RESEEDED];
    holds("two lies, register lost", with(Kind::Witness, Start::Home, left), &reaches);
    let left = Left { crashes: 1, lies: 1, forgets: 1, ..NONE };
    holds("crash, lie, register lost", with(Kind::Witness, Start::Home, left), &reaches);
}

#[test]
fn a_witness_that_forgot_and_grants_all_the_same_is_found() {
    let bounds = with(Kind::Witness, Start::Home, Left { lies: 2, forgets: 1, ..NONE });
    let two = "both acknowledge alone";
    finds("grants while it is empty", Break::EmptyGrants, bounds, two);
    finds("takes over what one node says", Break::SeededByOne, bounds, two);
    finds("an answer from before it was empty", Break::LateAnswer, bounds, two);
}

/// The operator's words excuse what they bring about, and nothing else.
#[test]
fn rules_that_are_broken_beside_the_operators_words_are_found() {
    let left = Left { lies: 2, force: 1, ..NONE };
    let bounds = with(Kind::Strict, Start::Home, left);
    finds("goes on alone before the word", Break::StrictGrants, bounds, "both acknowledge alone");
    let left = Left { crashes: 1, force: 1, ..NONE };
    let what = "set aside although only one node had acknowledged alone (R0)";
    finds("forgets what it acknowledged", Break::AloneForgotten, merged(Start::Home, left), what);
    let left = Left { crashes: 1, holds: 1, ..NONE };
    let bounds = with(Kind::Strict, Start::Home, left);
    finds("forgets the word", Break::HoldForgotten, bounds, "whoever was forced inactive serves");
}

/// Who is forced inactive serves nobody, over a restart too; the other takes its place by evidence or by the operator's
/// word, and once both words are taken back everything heals.
#[test]
fn forced_inactive_and_active() {
    let left = Left { holds: 1, crashes: 1, lies: 1, ..NONE };
    holds("witness: force-inactive, crash, lie", with(Kind::Witness, Start::Home, left), &[TAKEN_OVER]);
    holds("strict: force-inactive, crash", with(Kind::Strict, Start::Home, Left { lies: 0, ..left }), &[]);
    let left = Left { holds: 1, force: 1, crashes: 1, ..NONE };
    let bounds = with(Kind::Strict, Start::Home, left);
    holds("strict: force-inactive, force-active, crash", bounds, &[TAKEN_OVER]);
    let left = Left { holds: 2, pauses: 1, lies: 1, ..NONE };
    holds("available: force-inactive on both, pause, lie", merged(Start::Home, left), &[TAKEN_OVER]);
    let bounds = Bounds { ticks: 2, ..merged(Start::Solo, Left { holds: 1, crashes: 1, ..NONE }) };
    holds("available: solo, force-inactive, crash, two ticks", bounds, &[TAKEN_OVER, SETTLED]);
}
