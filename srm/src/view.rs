//! What the operator sees: the pair of states as a table over facts. The safety core decides; this only names.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use presence_engine::ids::NodeIx;

use crate::beacon::Activity;

/// State of a node, by its published name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum State {
    Initializing,
    Idle,
    Normal,
    RunningInBackupMode,
    TakingOver,
    FailingOver,
    FailedOver,
    TakingBack,
    FallingBack,
    Down,
}

/// Reason of a state, by its published name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum Reason {
    Normal,
    OnAdminRequest,
    Initialization,
    CriticalServiceDown,
    PeerDown,
    PeerReboot,
    Unknown,
}

impl State {
    /// The name that operators know.
    pub fn name(self) -> &'static str {
        match self {
            State::Initializing => "Initializing",
            State::Idle => "Idle",
            State::Normal => "Normal",
            State::RunningInBackupMode => "Running in Backup Mode",
            State::TakingOver => "Taking Over",
            State::FailingOver => "Failing Over",
            State::FailedOver => "Failed Over",
            State::TakingBack => "Taking Back",
            State::FallingBack => "Falling Back",
            State::Down => "down",
        }
    }
}

impl Reason {
    /// The name that operators know.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Normal => "Normal",
            Reason::OnAdminRequest => "On Admin Request",
            Reason::Initialization => "Initialization",
            Reason::CriticalServiceDown => "Critical Service Down",
            Reason::PeerDown => "Peer Down",
            Reason::PeerReboot => "Peer Reboot",
            Reason::Unknown => "Unknown",
        }
    }
}

/// What happens to the sessions of a home node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// Served at home.
    AtHome,
    /// On their way to the backup, at the operator's request or because the node stops.
    Leaving,
    /// Served by the backup at the operator's request; the home node leads its empty register.
    Away,
    /// The backup took over the register.
    TakenOver,
    /// On their way back.
    Returning,
    /// Nobody serves them yet.
    Nobody,
}

/// Why the backup took over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// Nothing was heard any more.
    PeerDown,
    /// A goodbye, refused connections from a host that answers, or a new process.
    PeerReboot,
    /// A critical service was down for longer than its delay.
    CriticalServiceDown,
}

/// The facts about one home group that name its row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Facts {
    /// Where the sessions are.
    pub place: Place,
    /// The home node is heard, or is this node.
    pub home_heard: bool,
    /// The backup is heard, or is this node.
    pub backup_heard: bool,
    /// Why the backup took over, where it did.
    pub cause: Cause,
}

/// One row: `None` in a condition means any. The first node is the home node, the second its backup.
pub struct Row {
    /// Number in the operator's table; from 101 on, our own.
    pub id: u32,
    place: Place,
    home_heard: Option<bool>,
    backup_heard: Option<bool>,
    cause: Option<Cause>,
    /// State and reason of the home node.
    pub home: (State, Reason),
    /// State and reason of its backup.
    pub backup: (State, Reason),
    /// When this is so.
    pub why: &'static str,
    /// What the operator is advised to do; empty: nothing.
    pub action: &'static str,
}

const RESTORE: &str = "repair and power up the node; when all critical services run, do a manual fallback";
const READY: &str = "the node is ready: a manual fallback restores Normal";

/// The rows of this version of the table. No two fit the same facts (tested).
pub const ROWS: &[Row] = &[
    Row {
        id: 1,
        place: Place::AtHome,
        home_heard: Some(true),
        backup_heard: Some(true),
        cause: None,
        home: (State::Normal, Reason::Normal),
        backup: (State::Normal, Reason::Normal),
        why: "both nodes are well",
        action: "",
    },
    Row {
        id: 2,
        place: Place::Leaving,
        home_heard: None,
        backup_heard: None,
        cause: None,
        home: (State::FailingOver, Reason::OnAdminRequest),
        backup: (State::TakingOver, Reason::OnAdminRequest),
        why: "the operator asked the node to fail over; in progress",
        action: "",
    },
    Row {
        id: 3,
        place: Place::Away,
        home_heard: Some(true),
        backup_heard: None,
        cause: None,
        home: (State::Idle, Reason::OnAdminRequest),
        backup: (State::RunningInBackupMode, Reason::OnAdminRequest),
        why: "the failover that the operator asked for is complete",
        action: "",
    },
    Row {
        id: 4,
        place: Place::Returning,
        home_heard: None,
        backup_heard: None,
        cause: None,
        home: (State::TakingBack, Reason::OnAdminRequest),
        backup: (State::FallingBack, Reason::OnAdminRequest),
        why: "the operator asked for the fallback to the node; in progress",
        action: "",
    },
    Row {
        id: 11,
        place: Place::TakenOver,
        home_heard: Some(true),
        backup_heard: None,
        cause: Some(Cause::CriticalServiceDown),
        home: (State::FailedOver, Reason::Initialization),
        backup: (State::RunningInBackupMode, Reason::CriticalServiceDown),
        why: "the node's critical services are back",
        action: READY,
    },
    Row {
        id: 16,
        place: Place::TakenOver,
        home_heard: Some(false),
        backup_heard: None,
        cause: Some(Cause::PeerDown),
        home: (State::Down, Reason::Unknown),
        backup: (State::RunningInBackupMode, Reason::PeerDown),
        why: "the node is not heard: its network, or its process",
        action: "node up: repair the network, start it; node down: repair, power up; when all critical services run, do a manual fallback",
    },
    Row {
        id: 17,
        place: Place::TakenOver,
        home_heard: Some(false),
        backup_heard: None,
        cause: Some(Cause::PeerReboot),
        home: (State::Down, Reason::Unknown),
        backup: (State::RunningInBackupMode, Reason::PeerReboot),
        why: "the node was shut down, restarted, lost power, or its hardware failed",
        action: RESTORE,
    },
    Row {
        id: 101,
        place: Place::Nobody,
        home_heard: None,
        backup_heard: None,
        cause: None,
        home: (State::Initializing, Reason::Initialization),
        backup: (State::Initializing, Reason::Initialization),
        why: "the nodes are starting and look for each other",
        action: "",
    },
    Row {
        id: 102,
        place: Place::TakenOver,
        home_heard: Some(true),
        backup_heard: None,
        cause: Some(Cause::PeerDown),
        home: (State::FailedOver, Reason::Initialization),
        backup: (State::RunningInBackupMode, Reason::PeerDown),
        why: "the node returned after it had not been heard",
        action: READY,
    },
    Row {
        id: 103,
        place: Place::TakenOver,
        home_heard: Some(true),
        backup_heard: None,
        cause: Some(Cause::PeerReboot),
        home: (State::FailedOver, Reason::Initialization),
        backup: (State::RunningInBackupMode, Reason::PeerReboot),
        why: "the node returned after a restart or a crash",
        action: READY,
    },
    Row {
        id: 104,
        place: Place::AtHome,
        home_heard: Some(true),
        backup_heard: Some(false),
        cause: None,
        home: (State::Normal, Reason::Normal),
        backup: (State::Down, Reason::Unknown),
        why: "the backup is not heard; the node serves its own users without a standby",
        action: "start the other node, or repair the path between the nodes",
    },
    Row {
        id: 105,
        place: Place::AtHome,
        home_heard: Some(false),
        backup_heard: None,
        cause: None,
        home: (State::Down, Reason::Unknown),
        backup: (State::Initializing, Reason::PeerDown),
        why: "the node is not heard and its users may not be taken over",
        action: "start the node; its users wait for it",
    },
    Row {
        id: 106,
        place: Place::TakenOver,
        home_heard: Some(false),
        backup_heard: None,
        cause: Some(Cause::CriticalServiceDown),
        home: (State::Down, Reason::Unknown),
        backup: (State::RunningInBackupMode, Reason::CriticalServiceDown),
        why: "the node failed over for a critical service and is not heard now",
        action: RESTORE,
    },
    Row {
        id: 107,
        place: Place::Away,
        home_heard: Some(false),
        backup_heard: None,
        cause: None,
        home: (State::Down, Reason::Unknown),
        backup: (State::RunningInBackupMode, Reason::OnAdminRequest),
        why: "the node was failed over by the operator and is not heard now",
        action: RESTORE,
    },
];

impl Row {
    fn fits(&self, facts: &Facts) -> bool {
        let heard = |want: Option<bool>, is: bool| want.is_none_or(|want| want == is);
        self.place == facts.place
            && heard(self.home_heard, facts.home_heard)
            && heard(self.backup_heard, facts.backup_heard)
            && self.cause.is_none_or(|cause| cause == facts.cause)
    }
}

/// The row of one home group.
pub fn row(facts: &Facts) -> &'static Row {
    ROWS.iter().find(|row| row.fits(facts)).unwrap_or(&ROWS[7])
}

/// States of both nodes, by index, from the rows of both groups: the group that is not at home names them.
pub fn states(groups: [&Facts; 2]) -> ([(State, Reason); 2], &'static Row) {
    let rows = groups.map(row);
    let named = NodeIx::BOTH.into_iter().max_by_key(|g| (rank(rows[g.index()].id), std::cmp::Reverse(*g)));
    let group = named.unwrap_or(NodeIx::A);
    let row = rows[group.index()];
    let mut states = [row.home; 2];
    states[group.peer().index()] = row.backup;
    (states, row)
}

/// Which of two groups' rows says more.
fn rank(id: u32) -> u32 {
    match id {
        1 => 0,
        104 | 105 => 1,
        101 => 2,
        _ => 3,
    }
}

/// Place of a group that this node leads, backs, or neither, with what both nodes do.
pub fn activity_place(own: Activity, peers: Activity, home_is_me: bool) -> Option<Place> {
    let (home, backup) = if home_is_me { (own, peers) } else { (peers, own) };
    match (home, backup) {
        (Activity::FailingOver | Activity::Leaving, _) => Some(Place::Leaving),
        (_, Activity::FallingBack) => Some(Place::Returning),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Facts> {
        let places =
            [Place::AtHome, Place::Leaving, Place::Away, Place::TakenOver, Place::Returning, Place::Nobody];
        let causes = [Cause::PeerDown, Cause::PeerReboot, Cause::CriticalServiceDown];
        places.into_iter().flat_map(move |place| {
            causes.into_iter().flat_map(move |cause| {
                (0..4u8).map(move |bits| Facts {
                    place,
                    home_heard: bits & 1 != 0,
                    backup_heard: bits & 2 != 0,
                    cause,
                })
            })
        })
    }

    #[test]
    fn exactly_one_row_fits_any_facts_that_a_node_can_have() {
        for facts in all() {
            let fitting: Vec<u32> = ROWS.iter().filter(|r| r.fits(&facts)).map(|r| r.id).collect();
            assert_eq!(fitting.len(), 1, "{facts:?}: rows {fitting:?}");
        }
    }

    #[test]
    fn every_row_is_reached_and_numbers_are_unique() {
        for row in ROWS {
            assert!(all().any(|facts| row.fits(&facts)), "row {}", row.id);
            assert_eq!(ROWS.iter().filter(|r| r.id == row.id).count(), 1);
        }
    }

    #[test]
    fn a_kill_shows_as_row_17_on_both_sides_of_the_table() {
        let dead = Facts {
            place: Place::TakenOver,
            home_heard: false,
            backup_heard: true,
            cause: Cause::PeerReboot,
        };
        let own =
            Facts { place: Place::AtHome, home_heard: true, backup_heard: false, cause: Cause::PeerReboot };
        let (states, row) = states([&dead, &own]);
        assert_eq!(row.id, 17);
        assert_eq!(states[0].0, State::Down);
        assert_eq!(states[1], (State::RunningInBackupMode, Reason::PeerReboot));
    }
}
