//! The rows. Numbers up to 100 and their words are the product's; from 101 on they are Tandem's own.

use super::Cause::{
    Automatic, Database, Nothing, Operator, PeerDown, PeerDownDuringInitialization, PeerReboot, Service,
};
use super::Reason as R;
use super::State as S;
use super::{Cause, Failure, Ha, Place};

/// One row: the home node first, its backup second.
#[derive(Debug)]
pub struct Row {
    /// Number in the operator's table; rows of one number are its forms.
    pub id: u32,
    pub(super) when: When,
    /// State and reason of the home node.
    pub home: (S, R),
    /// State and reason of its backup.
    pub backup: (S, R),
    /// When this is so.
    pub why: &'static str,
    /// What the operator is advised to do; empty: nothing.
    pub action: &'static str,
}

/// The condition of a row: `None`, and an empty list, mean any.
#[derive(Debug)]
pub(super) struct When {
    pub(super) ha: Ha,
    pub(super) failed: Option<Failure>,
    pub(super) place: Option<Place>,
    pub(super) at_home: Option<bool>,
    pub(super) causes: &'static [Cause],
    pub(super) home_heard: Option<bool>,
    pub(super) home_restarted: Option<bool>,
    pub(super) home_serves: Option<bool>,
    pub(super) backup_heard: Option<bool>,
    pub(super) backup_restarted: Option<bool>,
    pub(super) path_down: Option<bool>,
}

const ANY: When = When {
    ha: Ha::Enabled,
    failed: None,
    place: None,
    at_home: None,
    causes: &[],
    home_heard: None,
    home_restarted: None,
    home_serves: None,
    backup_heard: None,
    backup_restarted: None,
    path_down: None,
};

const fn at(place: Place) -> When {
    When { place: Some(place), ..ANY }
}

const fn moved(place: Place, causes: &'static [Cause]) -> When {
    When { causes, ..at(place) }
}

/// Served by the backup; both nodes are heard.
const fn away(causes: &'static [Cause]) -> When {
    When { home_heard: Some(true), backup_heard: Some(true), ..moved(Place::AtBackup, causes) }
}

/// Served by the backup; the home node is not heard.
const fn gone(causes: &'static [Cause]) -> When {
    When { home_heard: Some(false), ..moved(Place::AtBackup, causes) }
}

const fn failed(failure: Failure) -> When {
    When { failed: Some(failure), ..ANY }
}

/// Failed while a node was in backup mode.
const fn failed_away(failure: Failure) -> When {
    When { at_home: Some(false), ..failed(failure) }
}

/// Failed while each node served its own users.
const fn failed_at_home(failure: Failure) -> When {
    When { failed: Some(failure), ..at(Place::AtHome) }
}

const DOWN: (S, R) = (S::Down, R::Unknown);
const REPAIR: &str = "repair and power up node 1; when all critical services run, do a manual fallback";
const READY: &str = "node 1 is ready: a manual fallback restores Normal";
const WAIT: &str = "when node 1 is up and all critical services run, do a manual fallback";
const START: &str = "find the critical services of node 1 that are down and start them; if they do not start, reboot node 1; when all run, do a manual fallback";
const RECOVER: &str = "do a recover; if it persists, reboot the nodes";
const RECOVER_BOTH: &str = "on each node see which are down; a recover starts them; if not, reboot it";

const fn row(
    id: u32,
    when: When,
    home: (S, R),
    backup: (S, R),
    why: &'static str,
    action: &'static str,
) -> Row {
    Row { id, when, home, backup, why, action }
}

/// The whole table. No two rows fit the same facts, and every facts that can be true and name a row have one; each row is shown for
/// some facts of both groups (tested).
pub const ROWS: &[Row] = &[
    row(
        1,
        When {
            home_heard: Some(true),
            backup_heard: Some(true),
            path_down: Some(false),
            ..at(Place::AtHome)
        },
        (S::Normal, R::Normal),
        (S::Normal, R::Normal),
        "both nodes are well",
        "",
    ),
    row(
        2,
        When { backup_restarted: Some(false), ..moved(Place::Leaving, &[Operator]) },
        (S::FailingOver, R::OnAdminRequest),
        (S::TakingOver, R::OnAdminRequest),
        "the operator asked node 1 to fail over; in progress",
        "",
    ),
    row(
        3,
        When { home_restarted: Some(false), backup_restarted: Some(false), ..away(&[Operator]) },
        (S::Idle, R::OnAdminRequest),
        (S::RunningInBackupMode, R::OnAdminRequest),
        "the failover that the operator asked for is complete",
        "",
    ),
    row(
        4,
        When { home_restarted: Some(false), ..moved(Place::Returning, &[Operator]) },
        (S::TakingBack, R::OnAdminRequest),
        (S::FallingBack, R::OnAdminRequest),
        "the operator asked for fallback to node 1; in progress",
        "",
    ),
    row(
        5,
        When { home_restarted: Some(true), backup_restarted: Some(false), ..away(&[Operator]) },
        (S::Idle, R::Initialization),
        (S::RunningInBackupMode, R::OnAdminRequest),
        "node 1 was restarted while it was Idle",
        "",
    ),
    row(
        6,
        When { home_restarted: Some(true), backup_restarted: Some(true), ..away(&[Operator]) },
        (S::Idle, R::Initialization),
        (S::RunningInBackupMode, R::Initialization),
        "both nodes were restarted while the group was failed over by the operator",
        "",
    ),
    row(
        7,
        When { home_restarted: Some(false), backup_restarted: Some(true), ..away(&[Operator]) },
        (S::Idle, R::OnAdminRequest),
        (S::RunningInBackupMode, R::Initialization),
        "node 2 was restarted in backup mode, and was back before node 1 missed it for the keep-alive time-out",
        "",
    ),
    row(
        8,
        When { backup_restarted: Some(true), ..moved(Place::Leaving, &[Operator]) },
        (S::FailingOver, R::OnAdminRequest),
        (S::TakingOver, R::Initialization),
        "node 2 was restarted while it was taking over, and was back before node 1 missed it for the keep-alive time-out",
        "",
    ),
    row(
        9,
        When { home_restarted: Some(true), ..moved(Place::Returning, &[Operator]) },
        (S::TakingBack, R::Initialization),
        (S::FallingBack, R::OnAdminRequest),
        "node 1 was restarted while it was taking back, and was back before node 2 missed it for the keep-alive time-out",
        "",
    ),
    row(
        10,
        moved(Place::Returning, &[Automatic]),
        (S::TakingBack, R::AutomaticFallback),
        (S::FallingBack, R::AutomaticFallback),
        "automatic or scheduled fallback to node 1; in progress",
        "",
    ),
    row(
        11,
        When { home_serves: Some(true), home_restarted: Some(true), ..away(&[Service]) },
        (S::FailedOver, R::Initialization),
        (S::RunningInBackupMode, R::CriticalServiceDown),
        "the critical services of node 1 are back, by its restart",
        READY,
    ),
    row(
        11,
        When { home_serves: Some(true), home_restarted: Some(false), ..away(&[Service]) },
        (S::FailedOver, R::CriticalServiceDown),
        (S::RunningInBackupMode, R::CriticalServiceDown),
        "the critical services of node 1 are back; the operator started them, or they came back by themselves",
        READY,
    ),
    row(
        12,
        When { home_serves: Some(false), ..away(&[Service]) },
        (S::FailedOverServicesNotRunning, R::CriticalServiceDown),
        (S::RunningInBackupMode, R::CriticalServiceDown),
        "a critical service of node 1 was down for longer than the delay",
        START,
    ),
    row(
        13,
        When { home_serves: Some(false), ..away(&[Database]) },
        (S::FailedOverServicesNotRunning, R::DatabaseFailure),
        (S::RunningInBackupMode, R::DatabaseFailure),
        "the database of node 1 is down",
        "reboot node 1; when all critical services run, do a manual fallback",
    ),
    row(
        14,
        failed(Failure::StartOfServices),
        (S::RunningInFailedMode, R::StartOfCriticalServicesFailed),
        (S::RunningInFailedMode, R::StartOfCriticalServicesFailed),
        "critical services did not start while users were taken back",
        "on the node that takes back see which services are down; a recover starts them; if not, reboot it; when all run, do a manual fallback",
    ),
    row(
        15,
        failed_away(Failure::Service),
        (S::RunningInFailedMode, R::CriticalServiceDown),
        (S::RunningInFailedMode, R::CriticalServiceDown),
        "a critical service went down on the node in backup mode, and the other could not take over",
        "on the backup node see which services are down; a recover starts them; if not, reboot it",
    ),
    row(
        15,
        failed_at_home(Failure::Service),
        (S::RunningInFailedMode, R::CriticalServiceDown),
        (S::RunningInFailedMode, R::CriticalServiceDown),
        "critical services are down on both nodes; neither could take the other's users",
        RECOVER_BOTH,
    ),
    row(
        16,
        gone(&[PeerDown]),
        DOWN,
        (S::RunningInBackupMode, R::PeerDown),
        "node 1 is not heard: its network, or its process",
        "node 1 up: repair the network, start its process; node 1 down: repair it, power it up; when all critical services run, do a manual fallback",
    ),
    row(
        17,
        gone(&[PeerReboot]),
        DOWN,
        (S::RunningInBackupMode, R::PeerReboot),
        "node 1 was shut down or restarted, lost power, or its hardware failed",
        REPAIR,
    ),
    row(
        18,
        When { home_serves: Some(false), ..away(&[PeerDownDuringInitialization]) },
        (S::FailedOverServicesNotRunning, R::Initialization),
        (S::RunningInBackupMode, R::PeerDownDuringInitialization),
        "node 2 did not hear node 1 during its own start; critical services of node 1 are down",
        WAIT,
    ),
    row(
        18,
        When { home_serves: Some(true), ..away(&[PeerDownDuringInitialization]) },
        (S::FailedOver, R::Initialization),
        (S::RunningInBackupMode, R::PeerDownDuringInitialization),
        "node 2 did not hear node 1 during its own start",
        WAIT,
    ),
    row(
        19,
        failed(Failure::TakeOver),
        (S::RunningInFailedMode, R::TakeOverUsersFailed),
        (S::RunningInFailedMode, R::TakeOverUsersFailed),
        "moving users failed in a takeover; possibly an error of the database",
        RECOVER,
    ),
    row(
        20,
        failed(Failure::TakeBack),
        (S::RunningInFailedMode, R::TakeBackUsersFailed),
        (S::RunningInFailedMode, R::TakeBackUsersFailed),
        "moving users failed in a fallback; possibly an error of the database",
        RECOVER,
    ),
    row(
        21,
        failed(Failure::Unknown),
        (S::RunningInFailedMode, R::Unknown),
        (S::RunningInFailedMode, R::Unknown),
        "a node was restarted while the other was in failed mode, or an internal error",
        RECOVER,
    ),
    row(
        22,
        moved(Place::Recovering, &[Database]),
        (S::BackupActivated, R::AutoRecoverDatabaseFailure),
        (S::FailoverAffectedServices, R::AutoRecoverDatabaseFailure),
        "the database failed on node 2, which was in backup mode; node 1, whose services are well, takes all users",
        "automatic recovery moves all users to node 1",
    ),
    row(
        23,
        moved(Place::Recovering, &[Service]),
        (S::BackupActivated, R::AutoRecoverCriticalServiceDown),
        (S::FailoverAffectedServices, R::AutoRecoverCriticalServiceDown),
        "a critical service failed on node 2, which was in backup mode; node 1, whose services are well, takes all users",
        "automatic recovery moves all users to node 1",
    ),
    row(
        24,
        When { ha: Ha::Improper, ..ANY },
        (S::Unknown, R::Unknown),
        (S::Unknown, R::Unknown),
        "high availability is not enabled properly",
        "repair the path between the nodes; if it is well, restart both nodes",
    ),
    row(
        101,
        at(Place::Nobody),
        (S::Initializing, R::Initialization),
        (S::Initializing, R::Initialization),
        "the nodes are starting and look for each other",
        "",
    ),
    row(
        102,
        When { home_serves: Some(true), ..away(&[PeerDown]) },
        (S::FailedOver, R::Initialization),
        (S::RunningInBackupMode, R::PeerDown),
        "node 1 returned after it had not been heard",
        READY,
    ),
    row(
        103,
        When { home_serves: Some(true), ..away(&[PeerReboot]) },
        (S::FailedOver, R::Initialization),
        (S::RunningInBackupMode, R::PeerReboot),
        "node 1 returned after a restart or a crash",
        READY,
    ),
    row(
        105,
        When { home_heard: Some(false), path_down: Some(false), ..at(Place::AtHome) },
        DOWN,
        (S::Normal, R::PeerDown),
        "node 1 is not heard, and its users may not be taken over, or not yet",
        "start node 1; its users wait for it",
    ),
    row(
        106,
        gone(&[Service]),
        DOWN,
        (S::RunningInBackupMode, R::CriticalServiceDown),
        "node 1 failed over for a critical service and is not heard now",
        REPAIR,
    ),
    row(
        107,
        gone(&[Operator]),
        DOWN,
        (S::RunningInBackupMode, R::OnAdminRequest),
        "node 1 was failed over by the operator and is not heard now",
        REPAIR,
    ),
    row(
        108,
        moved(Place::Leaving, &[Service]),
        (S::FailingOver, R::CriticalServiceDown),
        (S::TakingOver, R::CriticalServiceDown),
        "a critical service of node 1 was down for longer than the delay; its users are on their way",
        "",
    ),
    row(
        109,
        moved(Place::Leaving, &[Database]),
        (S::FailingOver, R::DatabaseFailure),
        (S::TakingOver, R::DatabaseFailure),
        "the database of node 1 is down; its users are on their way",
        "",
    ),
    row(
        110,
        moved(Place::Leaving, &[PeerReboot]),
        (S::FailingOver, R::PeerReboot),
        (S::TakingOver, R::PeerReboot),
        "node 1 is being stopped and hands its users over",
        "",
    ),
    row(
        111,
        When { home_heard: Some(false), ..moved(Place::Taking, &[PeerDown]) },
        DOWN,
        (S::TakingOver, R::PeerDown),
        "node 1 is not heard; node 2 asks the witness whether it may take over",
        "",
    ),
    row(
        112,
        When { home_heard: Some(false), ..moved(Place::Taking, &[PeerReboot]) },
        DOWN,
        (S::TakingOver, R::PeerReboot),
        "node 1 is dead; node 2 asks the witness whether it may take over",
        "",
    ),
    row(
        113,
        When { home_heard: Some(false), ..moved(Place::Taking, &[PeerDownDuringInitialization]) },
        DOWN,
        (S::TakingOver, R::PeerDownDuringInitialization),
        "node 2 did not hear node 1 during its own start; it asks the witness whether it may take over",
        "",
    ),
    row(
        114,
        When { home_heard: Some(true), ..at(Place::Taking) },
        (S::Initializing, R::Initialization),
        (S::TakingOver, R::PeerReboot),
        "node 1 is back while node 2 asks the witness whether it may take over",
        "",
    ),
    row(
        115,
        When { home_heard: Some(true), backup_heard: Some(false), ..moved(Place::AtBackup, &[Operator]) },
        (S::Idle, R::PeerDown),
        DOWN,
        "node 2, which served all users, is not heard; node 1 serves them again as soon as it may",
        "start node 2, or repair the path between the nodes; if it is lost: force node 1 active",
    ),
    row(
        116,
        When {
            home_heard: Some(true),
            backup_heard: Some(false),
            ..moved(Place::AtBackup, &[Service, Database, PeerDown, PeerReboot, PeerDownDuringInitialization])
        },
        (S::FailedOver, R::PeerDown),
        DOWN,
        "node 2, which served all users, is not heard; node 1 serves them again as soon as it may",
        "start node 2, or repair the path between the nodes; if it is lost: force node 1 active",
    ),
    row(
        117,
        failed_away(Failure::Database),
        (S::RunningInFailedMode, R::DatabaseFailure),
        (S::RunningInFailedMode, R::DatabaseFailure),
        "the database failed on the node in backup mode, and the other could not take over",
        RECOVER,
    ),
    row(
        117,
        failed_at_home(Failure::Database),
        (S::RunningInFailedMode, R::DatabaseFailure),
        (S::RunningInFailedMode, R::DatabaseFailure),
        "critical services are down on both nodes, the database of one among them; neither could take the other's users",
        RECOVER_BOTH,
    ),
    row(
        118,
        gone(&[PeerDownDuringInitialization]),
        DOWN,
        (S::RunningInBackupMode, R::PeerDownDuringInitialization),
        "node 2 did not hear node 1 during its own start, and serves all users",
        WAIT,
    ),
    row(
        119,
        When { path_down: Some(true), ..at(Place::AtHome) },
        (S::Normal, R::Normal),
        (S::Normal, R::Normal),
        "only the path between the nodes is down: clients hear both; unprotected",
        "repair the path between the nodes",
    ),
    row(
        120,
        When { ha: Ha::Single, ..at(Place::AtHome) },
        (S::Normal, R::Normal),
        DOWN,
        "the group has one node",
        "",
    ),
    row(
        121,
        When { ha: Ha::Single, ..at(Place::Nobody) },
        (S::Initializing, R::Initialization),
        DOWN,
        "the only node of the group is starting",
        "",
    ),
    row(
        122,
        When { ha: Ha::Disabled, ..ANY },
        (S::Normal, R::Normal),
        (S::Normal, R::Normal),
        "high availability is not enabled for this group",
        "",
    ),
    row(
        123,
        When { home_serves: Some(true), ..away(&[Database]) },
        (S::FailedOver, R::Initialization),
        (S::RunningInBackupMode, R::DatabaseFailure),
        "the database of node 1 is back",
        READY,
    ),
    row(
        124,
        gone(&[Database]),
        DOWN,
        (S::RunningInBackupMode, R::DatabaseFailure),
        "node 1 failed over for its database and is not heard now",
        REPAIR,
    ),
    row(
        125,
        When { home_serves: Some(false), ..away(&[PeerDown]) },
        (S::FailedOverServicesNotRunning, R::Initialization),
        (S::RunningInBackupMode, R::PeerDown),
        "node 1 returned after it had not been heard; critical services of it are down",
        START,
    ),
    row(
        126,
        When { home_serves: Some(false), ..away(&[PeerReboot]) },
        (S::FailedOverServicesNotRunning, R::Initialization),
        (S::RunningInBackupMode, R::PeerReboot),
        "node 1 returned after a restart or a crash; critical services of it are down",
        START,
    ),
    row(
        127,
        at(Place::Waiting),
        (S::Initializing, R::PeerDown),
        DOWN,
        "node 2 is not heard, and node 1 may not serve its own users alone",
        "start node 2, or repair the path between the nodes, or to the witness; if node 2 is lost: force node 1 active",
    ),
    row(
        128,
        When { home_heard: Some(true), backup_heard: Some(true), ..moved(Place::Held, &[Nothing]) },
        (S::Idle, R::Initialization),
        (S::Idle, R::Initialization),
        "both nodes were restarted while automatic failover is disabled; neither serves",
        "force one node inactive and the other active; or enable automatic failover",
    ),
    row(
        129,
        When { home_heard: Some(true), backup_heard: Some(false), ..moved(Place::Held, &[Nothing]) },
        (S::Idle, R::Initialization),
        DOWN,
        "node 1 was restarted while automatic failover is disabled, and node 2 is not heard; nobody serves the users of node 1",
        "start node 2, or force node 1 active; or enable automatic failover",
    ),
    row(
        130,
        When { home_heard: Some(true), backup_heard: Some(true), ..moved(Place::Held, &[Operator]) },
        (S::Idle, R::OnAdminRequest),
        (S::Normal, R::Normal),
        "the operator forced node 1 inactive; nobody serves its users",
        "force node 2 active, or node 1 again",
    ),
    row(
        131,
        When { home_heard: Some(true), backup_heard: Some(false), ..moved(Place::Held, &[Operator]) },
        (S::Idle, R::OnAdminRequest),
        DOWN,
        "the operator forced node 1 inactive, and node 2 is not heard; nobody known serves its users",
        "force node 2 active, or node 1 again",
    ),
    row(
        132,
        When { ha: Ha::Begins, ..ANY },
        (S::Initializing, R::Initialization),
        (S::Initializing, R::Initialization),
        "high availability begins: both nodes serve their own users, and look whether each can be the standby of the other; a check that fails is an alarm",
        "",
    ),
];
