use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;

const WELL: Seen = Seen { heard: true, restarted: false, serves: true };
const FIRST: Facts = Facts {
    ha: Ha::Enabled,
    failed: None,
    place: Place::Nobody,
    cause: Cause::Nothing,
    home: WELL,
    backup: WELL,
    path_down: false,
};

const PLACES: [Place; 9] = [
    Place::Nobody,
    Place::Held,
    Place::Waiting,
    Place::AtHome,
    Place::Leaving,
    Place::Taking,
    Place::AtBackup,
    Place::Returning,
    Place::Recovering,
];

fn seen(bits: u8) -> Seen {
    Seen { heard: bits & 1 != 0, restarted: bits & 2 != 0, serves: bits & 4 != 0 }
}

/// All facts, those that cannot be too.
fn all() -> impl Iterator<Item = Facts> {
    let modes = [Ha::Enabled, Ha::Single, Ha::Disabled, Ha::Improper, Ha::Begins];
    let failures = || std::iter::once(None).chain(Failure::ALL.map(Some));
    modes.into_iter().flat_map(move |ha| {
        failures().flat_map(move |failed| {
            PLACES.into_iter().flat_map(move |place| {
                Cause::ALL.into_iter().flat_map(move |cause| {
                    (0..128u8).map(move |bits| Facts {
                        ha,
                        failed,
                        place,
                        cause,
                        home: seen(bits),
                        backup: seen(bits >> 3),
                        path_down: bits & 64 != 0,
                    })
                })
            })
        })
    })
}

#[test]
fn exactly_one_row_fits_facts_that_can_be_and_no_two_fit_any() {
    for facts in all() {
        let fitting: Vec<u32> = ROWS.iter().filter(|row| row.fits(&facts)).map(|row| row.id).collect();
        assert!(fitting.len() <= 1, "{facts:?}: rows {fitting:?}");
        let named = usize::from(!facts.is_left_to_other());
        assert!(!facts.possible() || fitting.len() == named, "{facts:?}: rows {fitting:?}");
    }
}

#[test]
fn the_table_has_every_row_state_and_reason_of_the_product() {
    let ids: BTreeSet<u32> = ROWS.iter().map(|row| row.id).collect();
    assert!((1..=24).all(|id| ids.contains(&id)), "{ids:?}");
    let pairs = || ROWS.iter().flat_map(|row| [row.home, row.backup]);
    assert_eq!((State::ALL.len(), Reason::ALL.len()), (15, 15), "14 states, and down");
    for state in State::ALL {
        assert!(pairs().any(|(known, _)| known == *state), "{state:?}");
    }
    for reason in Reason::ALL {
        assert!(pairs().any(|(_, known)| known == *reason), "{reason:?}");
    }
}

/// What may happen to a group, by what the nodes do: an abstract of the shell.
fn steps(f: &Facts) -> Vec<(&'static str, Facts)> {
    let mut next = Vec::new();
    let both = f.home.heard && f.backup.heard;
    let settled = f.ha == Ha::Enabled && f.failed.is_none();
    let fresh = Facts {
        home: Seen { restarted: false, ..f.home },
        backup: Seen { restarted: false, ..f.backup },
        ..*f
    };
    let to = |place, cause| Facts { place, cause, ..*f };
    let begin = |place, cause| Facts { place, cause, ..fresh };
    let failed = |failure| Facts { failed: Some(failure), ..*f };
    hearing(f, &mut next);
    match f.place {
        Place::Nobody => {
            next.push(("both started", to(Place::AtHome, Cause::Nothing)));
            if settled && f.home.heard {
                next.push(("restarted without automatics", to(Place::Held, Cause::Nothing)));
            }
        }
        Place::Held => {
            next.push(("operator: force-active, at home", to(Place::AtHome, Cause::Nothing)));
            if settled && both {
                next.push(("operator: force-active", to(Place::AtBackup, Cause::Operator)));
            }
        }
        Place::AtHome if settled && f.home.heard && !f.backup.heard => {
            next.push(("may not go on alone", to(Place::Waiting, Cause::Nothing)));
            next.push(("operator: force-inactive", to(Place::Held, Cause::Operator)));
        }
        Place::Waiting => next.push(("it is heard, or forced", to(Place::AtHome, Cause::Nothing))),
        Place::AtHome if settled && both => {
            next.push(("operator: failover", begin(Place::Leaving, Cause::Operator)));
            next.push(("operator: force-inactive", to(Place::Held, Cause::Operator)));
            next.push(("service down too long", begin(Place::Leaving, Cause::Service)));
            next.push(("database down", begin(Place::Leaving, Cause::Database)));
            next.push(("node 1 stops", begin(Place::Leaving, Cause::PeerReboot)));
        }
        Place::Leaving if settled && both => {
            next.push(("moved", to(Place::AtBackup, f.cause)));
            next.push(("moving failed", failed(Failure::TakeOver)));
        }
        Place::AtBackup if settled && both => {
            if f.home.serves {
                next.push(("operator: fallback", begin(Place::Returning, Cause::Operator)));
                next.push(("automatic fallback", begin(Place::Returning, Cause::Automatic)));
                next.push(("database of node 2 fails", to(Place::Recovering, Cause::Database)));
                next.push(("service of node 2 fails", to(Place::Recovering, Cause::Service)));
            } else {
                next.push(("service of node 2 fails", failed(Failure::Service)));
                next.push(("database of node 2 fails", failed(Failure::Database)));
            }
        }
        Place::Returning if settled && both => {
            next.push(("moved back", to(Place::AtHome, Cause::Nothing)));
            next.push(("moving failed", failed(Failure::TakeBack)));
            next.push(("services do not start", failed(Failure::StartOfServices)));
        }
        Place::Recovering if settled && both => next.push(("moved", to(Place::AtHome, Cause::Nothing))),
        _ => {}
    }
    if settled && !f.home.heard && matches!(f.place, Place::AtHome | Place::Nobody) {
        for cause in [Cause::PeerDown, Cause::PeerReboot, Cause::PeerDownDuringInitialization] {
            next.push(("evidence", begin(Place::Taking, cause)));
        }
    }
    if settled && f.place == Place::Taking {
        next.push(("granted", to(Place::AtBackup, f.cause)));
        next.push(("refused", to(Place::AtHome, Cause::Nothing)));
    }
    if settled && !f.backup.heard && !matches!(f.place, Place::AtHome | Place::Nobody | Place::Waiting) {
        next.push(("node 1 serves again", to(Place::AtHome, Cause::Nothing)));
    }
    if settled && !f.home.heard && matches!(f.place, Place::Leaving | Place::Returning | Place::Recovering) {
        next.push(("node 2 serves all", to(Place::AtBackup, Cause::PeerReboot)));
    }
    modes(f, both, &mut next);
    next
}

/// Nodes come and go, and their services.
fn hearing(f: &Facts, next: &mut Vec<(&'static str, Facts)>) {
    let f = *f;
    if f.ha != Ha::Single {
        next.push(("node 1 lost", Facts { home: Seen { heard: false, ..f.home }, ..f }));
        next.push(("node 2 lost", Facts { backup: Seen { heard: false, ..f.backup }, ..f }));
        let f = if f.place == Place::Waiting { Facts { place: Place::AtHome, ..f } } else { f };
        next.push(("node 1 heard", Facts { home: Seen { heard: true, ..f.home }, path_down: false, ..f }));
        next.push((
            "node 2 heard",
            Facts { backup: Seen { heard: true, ..f.backup }, path_down: false, ..f },
        ));
        next.push(("clients vouch", Facts { path_down: true, ..f }));
    }
    next.push(("node 1 restarted", Facts { home: Seen { restarted: true, ..f.home }, ..f }));
    next.push(("node 2 restarted", Facts { backup: Seen { restarted: true, ..f.backup }, ..f }));
    for serves in [false, true] {
        next.push(("services of node 1", Facts { home: Seen { serves, ..f.home }, ..f }));
    }
}

/// Failed mode and its end, high availability and the size of the group.
fn modes(f: &Facts, both: bool, next: &mut Vec<(&'static str, Facts)>) {
    let ha = |ha| Facts { ha, ..*f };
    if f.failed.is_some() && both {
        next.push(("restart in failed mode", Facts { failed: Some(Failure::Unknown), ..*f }));
        next.push(("recover", Facts { failed: None, place: Place::AtHome, cause: Cause::Nothing, ..*f }));
    }
    if f.failed.is_none() && f.place == Place::AtHome && both {
        next.push(("operator: disable", ha(Ha::Disabled)));
        next.push(("operator: enable", ha(Ha::Begins)));
        for failure in [Failure::Service, Failure::Database] {
            next.push(("services down on both nodes", Facts { failed: Some(failure), ..*f }));
        }
    }
    if f.ha == Ha::Begins {
        next.push(("checks hold on both", ha(Ha::Enabled)));
    }
    if f.ha == Ha::Enabled && f.place == Place::Nobody && both {
        next.push(("they differ", ha(Ha::Improper)));
        next.push(("shrink", Facts { backup: Seen { heard: false, ..f.backup }, ..ha(Ha::Single) }));
    }
    if matches!(f.ha, Ha::Improper | Ha::Single) && f.place == Place::Nobody {
        next.push(("mended, or grown", Facts { backup: WELL, ..ha(Ha::Enabled) }));
    }
    if f.ha == Ha::Single && f.place == Place::AtHome {
        next.push(("restart", Facts { place: Place::Nobody, ..*f }));
    }
}

#[test]
fn every_row_is_reached_and_from_everywhere_the_way_leads_back_to_normal() {
    let mut found: BTreeMap<Facts, BTreeSet<Facts>> = BTreeMap::new();
    let mut open = vec![FIRST];
    while let Some(facts) = open.pop() {
        if found.contains_key(&facts) {
            continue;
        }
        let next: BTreeSet<Facts> =
            steps(&facts).into_iter().map(|(_, next)| next).filter(Facts::possible).collect();
        open.extend(next.iter().filter(|next| !found.contains_key(next)));
        found.insert(facts, next);
    }
    let reached: BTreeSet<u32> = found.keys().map(|facts| row(facts).id).collect();
    let missing: Vec<u32> = ROWS.iter().map(|row| row.id).filter(|id| !reached.contains(id)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
    // No goal that cannot be reached, no state that cannot be left: backwards from row 1.
    let mut good: BTreeSet<Facts> = found.keys().filter(|facts| row(facts).id == 1).copied().collect();
    loop {
        let more: Vec<Facts> = found
            .iter()
            .filter(|(facts, next)| !good.contains(facts) && next.iter().any(|next| good.contains(next)))
            .map(|(facts, _)| *facts)
            .collect();
        if more.is_empty() {
            break;
        }
        good.extend(more);
    }
    let lost: Vec<&Facts> = found.keys().filter(|facts| !good.contains(facts)).collect();
    assert!(lost.is_empty(), "{} of {}: no way back from {:?}", lost.len(), found.len(), lost[0]);
}

/// What may be said of the other group at the same node: the nodes are the same, with their parts exchanged.
fn of_the_other(f: &Facts) -> impl Iterator<Item = Facts> + use<> {
    let exchanged = Facts { home: f.backup, backup: f.home, ..*f };
    let placed = move |place| Cause::ALL.map(move |cause| Facts { place, cause, ..exchanged });
    PLACES.into_iter().flat_map(placed).filter(Facts::possible)
}

#[test]
fn every_row_is_shown_beside_what_may_be_so_of_the_other_group() {
    let possible: Vec<Facts> = all().filter(Facts::possible).collect();
    for row in ROWS {
        let shows =
            |f: &Facts| f.ha == Ha::Single || of_the_other(f).any(|g| shown([f, &g]).row.id == row.id);
        assert!(possible.iter().filter(|f| row.fits(f)).any(shows), "row {} is never shown", row.id);
    }
}

#[test]
fn a_backup_that_is_not_heard_is_named_by_the_row_of_its_own_users() {
    let left: Vec<Facts> = all().filter(|f| f.possible() && f.is_left_to_other()).collect();
    assert!(!left.is_empty());
    for facts in left {
        for other in of_the_other(&facts) {
            assert!(!other.is_left_to_other());
            for told in [shown([&facts, &other]), shown([&other, &facts])] {
                assert_eq!(told.row, row(&other), "{facts:?}, {other:?}");
                assert_ne!(told.row.id, 21, "{facts:?}, {other:?}");
            }
        }
    }
}

#[test]
fn a_kill_shows_as_row_17_on_both_sides_of_the_table() {
    let gone = Seen { heard: false, ..WELL };
    let dead = Facts { place: Place::AtBackup, cause: Cause::PeerReboot, home: gone, ..FIRST };
    let own = Facts { place: Place::AtHome, backup: gone, ..FIRST };
    let shown = shown([&dead, &own]);
    assert_eq!((shown.row.id, shown.group), (17, NodeIx::A));
    assert_eq!(shown.states[0].0, State::Down);
    assert_eq!(shown.states[1], (State::RunningInBackupMode, Reason::PeerReboot));
}

#[test]
fn users_who_wait_for_the_operator_are_shown_before_a_question_to_the_witness() {
    let gone = Seen { heard: false, ..WELL };
    let asks = Facts { place: Place::Taking, cause: Cause::PeerReboot, home: gone, ..FIRST };
    let waits = Facts { place: Place::Waiting, backup: gone, ..FIRST };
    let away = Facts { place: Place::AtBackup, cause: Cause::PeerReboot, backup: gone, ..FIRST };
    let own = Facts { place: Place::Nobody, backup: gone, ..FIRST };
    for (own, row) in [(waits, 127), (away, 116), (own, 112)] {
        // Whichever of the two nodes it is.
        assert_eq!((shown([&asks, &own]).row.id, shown([&own, &asks]).row.id), (row, row));
    }
}

/// Who reads that the node in backup mode lacks a service looks for one.
#[test]
fn the_failed_mode_of_nodes_that_are_at_home_and_of_one_in_backup_mode_are_two_forms_of_a_row() {
    for (failure, id, cause) in
        [(Failure::Service, 15, Cause::Service), (Failure::Database, 117, Cause::Database)]
    {
        let home = Facts { failed: Some(failure), place: Place::AtHome, ..FIRST };
        let away = Facts { place: Place::AtBackup, cause, ..home };
        let both = shown([&home, &home]);
        assert_eq!((both.row.id, both.states), (id, [both.row.home; 2]));
        assert!(both.row.why.contains("on both nodes"), "{}", both.row.why);
        // Whichever of the two nodes serves all.
        for told in [shown([&away, &home]), shown([&home, &away])] {
            assert_eq!(told.row.id, id);
            assert!(told.row.why.contains("on the node in backup mode"), "{}", told.row.why);
        }
    }
}

#[test]
fn a_node_that_is_not_heard_is_down_whatever_its_row_unless_it_is_proved_to_live() {
    let gone = Seen { heard: false, ..WELL };
    let leaving = Facts { place: Place::Leaving, cause: Cause::Operator, backup: gone, ..FIRST };
    let other = Facts { place: Place::AtHome, home: gone, ..FIRST };
    let states = shown([&leaving, &other]).states;
    assert_eq!(states, [(State::FailingOver, Reason::OnAdminRequest), (State::Down, Reason::Unknown)]);
    let apart = Facts { place: Place::AtHome, backup: gone, path_down: true, ..FIRST };
    let other = Facts { place: Place::AtHome, home: gone, path_down: true, ..FIRST };
    let told = shown([&apart, &other]);
    assert_eq!((told.row.id, told.states), (119, [(State::Normal, Reason::Normal); 2]));
}

#[test]
fn facts_that_cannot_be_are_an_internal_error() {
    let wrong = Facts { place: Place::Recovering, cause: Cause::PeerDown, ..FIRST };
    assert!(!wrong.possible());
    assert_eq!(row(&wrong).id, 21);
}

/// `TANDEM_WRITE_DOCS=1` writes the page anew.
#[test]
fn the_page_is_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/srm-states.md");
    if std::env::var_os("TANDEM_WRITE_DOCS").is_some() {
        std::fs::write(&file, print::page()).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == print::page(), "write it anew: TANDEM_WRITE_DOCS=1 cargo test -p srm view");
    let json = print::rows();
    assert_eq!(json.as_array().unwrap().len(), ROWS.len());
    assert_eq!((&json[0]["row"], &json[0]["home"]["state"]), (&1.into(), &"Normal".into()));
    for row in ROWS {
        assert!(print::text().contains(row.why), "{}", row.id);
    }
}
