//! What the operator sees: the pair of states as a table over facts. The safety core decides; this only names.
//!
//! One set of [`Facts`] tells of one home group: the users of one node, its *home*, and of the other node, their
//! *backup*. [`row`] finds the row of [`ROWS`] that fits; [`shown`] puts the rows of both groups together.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod names;
pub mod print;
mod rows;
mod table;
#[cfg(test)]
mod tests;

use presence_engine::ids::{Away, Group, NodeIx};

pub use names::{Reason, State};
pub use table::{ROWS, Row};

use crate::beacon::Activity;

/// Whether each node is the other's standby.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ha {
    /// It is.
    Enabled,
    /// The group has one node.
    Single,
    /// Switched off by the operator.
    Disabled,
    /// It begins: both nodes look whether each can be the other's standby.
    Begins,
    /// The two nodes do not agree on what the group is.
    Improper,
}

/// What happens to the sessions of a home node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// Nobody serves them yet.
    Nobody,
    /// Their home node could serve them, but may not without its peer.
    Waiting,
    /// Their home node could serve them, and waits for the operator: it was forced inactive, or both nodes were restarted
    /// while automatics are disabled.
    Held,
    /// Served at home.
    AtHome,
    /// On their way to the backup.
    Leaving,
    /// The backup asks whether it may serve them.
    Taking,
    /// Served by the backup.
    AtBackup,
    /// On their way back.
    Returning,
    /// On their way back because the backup cannot serve any more and the home node can.
    Recovering,
}

impl Place {
    /// For what users can be there.
    pub fn causes(self) -> &'static [Cause] {
        match self {
            Place::Nobody | Place::Waiting | Place::AtHome => &[Cause::Nothing],
            Place::Held => &[Cause::Nothing, Cause::Operator],
            Place::Leaving => &[Cause::Operator, Cause::Service, Cause::Database, Cause::PeerReboot],
            Place::Taking => &[Cause::PeerDown, Cause::PeerReboot, Cause::PeerDownDuringInitialization],
            Place::AtBackup => &Cause::ALL[1..7],
            Place::Returning => &[Cause::Operator, Cause::Automatic],
            Place::Recovering => &[Cause::Service, Cause::Database],
        }
    }
}

/// Why they are not at home, or on their way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Cause {
    /// They are.
    #[default]
    Nothing,
    /// The operator asked for it.
    Operator,
    /// A critical service was down for longer than its delay.
    Service,
    /// The database was.
    Database,
    /// The home node was not heard any more.
    PeerDown,
    /// A goodbye, refused connections from a host that answers, or a new process.
    PeerReboot,
    /// The home node was not heard while the backup started.
    PeerDownDuringInitialization,
    /// The fallback came by itself, after its time.
    Automatic,
    /// The fallback came by itself, in its window.
    Scheduled,
    /// Clients of the home node called at its backup, and it was silent, or answered none of them.
    Clients,
    /// A rule of the operator fitted to an event.
    Rule,
}

impl Cause {
    /// All of them, in the order of their numbers in a beacon.
    pub const ALL: [Cause; 11] = [
        Cause::Nothing,
        Cause::Operator,
        Cause::Service,
        Cause::Database,
        Cause::PeerDown,
        Cause::PeerReboot,
        Cause::PeerDownDuringInitialization,
        Cause::Automatic,
        Cause::Scheduled,
        Cause::Clients,
        Cause::Rule,
    ];

    /// As the table of states knows it: three causes have no reason of their own there.
    pub fn of_table(self) -> Cause {
        match self {
            Cause::Scheduled => Cause::Automatic,
            Cause::Clients => Cause::PeerDown,
            // A rule is the operator's word, given beforehand.
            Cause::Rule => Cause::Operator,
            cause => cause,
        }
    }

    /// As the table knows it of users whom their home node hands over: one that is heard and answers nobody lacks a service,
    /// whatever it says.
    pub fn of_failover(self) -> Cause {
        match self {
            Cause::Clients => Cause::Service,
            cause => cause.of_table(),
        }
    }
}

impl From<Away> for Cause {
    fn from(away: Away) -> Cause {
        match away {
            Away::Operator => Cause::Operator,
            Away::Service => Cause::Service,
            Away::Database => Cause::Database,
        }
    }
}

/// Why both nodes run in failed mode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Failure {
    /// Critical services did not start while users were taken back.
    StartOfServices,
    /// A critical service went down, and the other node could not take over.
    Service,
    /// The database did.
    Database,
    /// Moving users failed in a takeover.
    TakeOver,
    /// Moving users failed in a fallback.
    TakeBack,
    /// A process restarted while the other was in failed mode.
    Unknown,
}

impl Failure {
    /// All of them, in the order of their numbers in a beacon, which begin with 1.
    pub const ALL: [Failure; 6] = [
        Failure::StartOfServices,
        Failure::Service,
        Failure::Database,
        Failure::TakeOver,
        Failure::TakeBack,
        Failure::Unknown,
    ];
}

/// What is known of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seen {
    /// It is heard, or is this node.
    pub heard: bool,
    /// Its process started after what the group is in began.
    pub restarted: bool,
    /// All its critical services run.
    pub serves: bool,
}

/// The facts about one home group that name its row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Facts {
    /// Whether each node is the other's standby.
    pub ha: Ha,
    /// Why both nodes run in failed mode; `None`: they do not.
    pub failed: Option<Failure>,
    /// Where the sessions are.
    pub place: Place,
    /// Why, where they are not at home.
    pub cause: Cause,
    /// The home node.
    pub home: Seen,
    /// Its backup.
    pub backup: Seen,
    /// The nodes do not hear each other, and clients prove that both live.
    pub path_down: bool,
}

impl Facts {
    /// Whether they can all be true at once. What cannot is an internal error, and is shown as row 21.
    pub fn possible(&self) -> bool {
        let alone = self.home.heard != self.backup.heard;
        let apart = self.ha == Ha::Single || self.home.heard || self.backup.heard;
        let failed = self.failed.is_none() || self.ha == Ha::Enabled;
        let single =
            self.ha != Ha::Single || self.home.heard && matches!(self.place, Place::Nobody | Place::AtHome);
        let waits = self.place != Place::Waiting || self.home.heard && !self.backup.heard;
        let held = self.place != Place::Held || self.home.heard;
        let begins =
            self.ha != Ha::Begins || self.place == Place::AtHome && self.home.heard && self.backup.heard;
        apart
            && waits
            && held
            && begins
            && (alone || !self.path_down)
            && self.place.causes().contains(&self.cause)
            && failed
            && single
    }

    /// At home as ever, and only the backup is not heard: that is the home node of the other group, whose users may wait, or are
    /// about to be served here, or are. So the row is always that group's; these facts have none.
    pub fn is_left_to_other(&self) -> bool {
        let backup_lost = self.home.heard && !self.backup.heard && !self.path_down;
        self.ha == Ha::Enabled && self.failed.is_none() && self.place == Place::AtHome && backup_lost
    }
}

/// Whether a row of the table says this, or the other group's; where none does, row 21 is shown.
pub fn has_row(facts: &Facts) -> bool {
    facts.is_left_to_other() || ROWS.iter().any(|row| row.fits(facts))
}

/// The row of one home group.
pub fn row(facts: &Facts) -> &'static Row {
    ROWS.iter().find(|row| row.fits(facts)).unwrap_or_else(|| Row::of_an_error())
}

/// What is shown of both groups together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    /// State and reason of each node, by index.
    pub states: [(State, Reason); 2],
    /// The row that names them.
    pub row: &'static Row,
    /// The group whose row it is.
    pub group: Group,
}

impl Shown {
    /// Why, with the names of the nodes (by index).
    pub fn why(&self, names: &[String; 2]) -> String {
        self.named(self.row.why, names)
    }

    /// What to do, with the names of the nodes (by index); empty: nothing.
    pub fn action(&self, names: &[String; 2]) -> String {
        self.named(self.row.action, names)
    }

    fn named(&self, text: &str, names: &[String; 2]) -> String {
        let (home, backup) = (&names[self.group.index()], &names[self.group.peer().index()]);
        text.replace("node 1", home).replace("node 2", backup)
    }
}

/// States of both nodes from the rows of both groups: the group that is not at home names them, or the one whose home node is not
/// heard. A node that is not heard is shown as down whatever its row says, unless its clients hear it.
pub fn shown(groups: [&Facts; 2]) -> Shown {
    let rows = groups.map(row);
    let naming = NodeIx::BOTH.into_iter().filter(|g| !groups[g.index()].is_left_to_other());
    let named = naming.max_by_key(|g| (rows[g.index()].weight(), std::cmp::Reverse(*g)));
    let group = named.unwrap_or(NodeIx::A);
    let (row, facts) = (rows[group.index()], groups[group.index()]);
    let state = |heard: bool, told: (State, Reason)| {
        if heard || facts.path_down && facts.place == Place::AtHome {
            told
        } else {
            (State::Down, Reason::Unknown)
        }
    };
    let mut states = [state(facts.home.heard, row.home); 2];
    states[group.peer().index()] = state(facts.backup.heard, row.backup);
    Shown { states, row, group }
}

/// Place of a group whose users are on their way, by what both nodes say they do.
pub fn place_of_move(home: Activity, backup: Activity) -> Option<Place> {
    match (home, backup) {
        (Activity::FailingOver | Activity::Leaving, _) => Some(Place::Leaving),
        (_, Activity::FallingBack) => Some(Place::Returning),
        (_, Activity::Recovering) => Some(Place::Recovering),
        _ => None,
    }
}
