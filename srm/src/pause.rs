//! The alarms on which a paced move of users pauses. A move that can as well be made later must not make worse what an
//! alarm says; it goes on by itself when the alarm has cleared.
//!
//! This is the whole list. Other alarms do not pause a move, because going on harms nobody: one that tells of the
//! configuration, of certificates or of clocks; that users are served without a witness, who is asked once and not for each
//! user; and the flap guard, which is about who begins a move.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// Such an alarm, as the node sees it that moves the users.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Pause {
    /// The other node is not heard, or the link to it is down.
    Unheard,
    /// The own disk stands still.
    OwnDisk,
    /// The other node says that its disk stands still.
    PeerDisk,
    /// The users of a node are led alone.
    Unprotected,
    /// The other node does not keep up with the log.
    Lag,
    /// A critical service of this node is down.
    OwnService,
    /// A critical service of the other node is down.
    PeerService,
    /// A check found other accounts there than here.
    Differs,
    /// More clients log in here than the processors can take.
    OwnCrowd,
    /// The same at the other node.
    PeerCrowd,
}

impl Pause {
    /// All of them, in the order in which they are looked for: what must be mended first comes first.
    pub const ALL: [Pause; 10] = [
        Pause::Unheard,
        Pause::OwnDisk,
        Pause::PeerDisk,
        Pause::Unprotected,
        Pause::Lag,
        Pause::OwnService,
        Pause::PeerService,
        Pause::Differs,
        Pause::OwnCrowd,
        Pause::PeerCrowd,
    ];

    /// What is wrong, if `here` moves users to `there`.
    pub fn what(self, here: &str, there: &str) -> String {
        match self {
            Pause::Unheard => format!("{there} is not heard"),
            Pause::OwnDisk => format!("the disk of {here} does not answer"),
            Pause::PeerDisk => format!("the disk of {there} does not answer"),
            Pause::Unprotected => "users are served without a standby".to_owned(),
            Pause::Lag => format!("{there} does not keep up with what {here} writes"),
            Pause::OwnService => format!("a critical service of {here} is down"),
            Pause::PeerService => format!("a critical service of {there} is down"),
            Pause::Differs => {
                format!("{there} holds some accounts otherwise than {here}; mend that, then `tandem check`")
            }
            Pause::OwnCrowd => format!("more clients log in at {here} than its processors can take"),
            Pause::PeerCrowd => format!("more clients log in at {there} than its processors can take"),
        }
    }

    /// Why going on would do harm.
    pub fn why(self) -> &'static str {
        match self {
            Pause::Unheard => "nobody would serve a user who is handed over and does not arrive",
            Pause::OwnDisk => "a user who is handed over waits until that is on the disk",
            Pause::PeerDisk => "nothing of a user who comes there would be acknowledged",
            Pause::Unprotected => "the node that users go to may lack what the other acknowledged alone",
            Pause::Lag => "each user would wait at the new node for all that the log says before",
            Pause::OwnService => {
                "its users stay until the service is back or the delay is over; then everybody goes, and not only these"
            }
            Pause::PeerService => "users would come to a node that cannot serve them",
            Pause::Differs => "users would be served from what may be wrong",
            Pause::OwnCrowd => "each move costs the processors that logins need",
            Pause::PeerCrowd => {
                "clients that are moved and cannot follow at once come on top of those that log in"
            }
        }
    }

    /// Whether a failover that an operator wants pauses too: one away from a node that lacks a service is a remedy.
    pub fn stops_failover(self) -> bool {
        !matches!(self, Pause::OwnService | Pause::PeerService)
    }
}

/// What operators read of the list.
pub fn table() -> String {
    let line = |pause: &Pause| {
        let failover = if pause.stops_failover() { "" } else { "; not in a failover" };
        format!("| {} | {}{failover} |\n", pause.what("the giving node", "the receiving node"), pause.why())
    };
    let lines: String = Pause::ALL.iter().map(line).collect();
    format!("| alarm | why a move pauses |\n|---|---|\n{lines}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_alarm_is_in_the_list_once_and_in_the_operators_manual() {
        for (i, pause) in Pause::ALL.iter().enumerate() {
            assert_eq!(*pause as usize, i);
        }
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
        let manual = std::fs::read_to_string(file).unwrap();
        assert!(manual.contains(&table()), "this belongs into docs/operations.md:\n{}", table());
    }
}
