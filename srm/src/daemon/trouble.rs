//! Why the link does not come up, in the operator's words: a peer that is merely down is told elsewhere.

use session_mover::driver::{Link, Why};
use session_mover::link::Ended;
use tracing::warn;

/// Attempts in a row that came to nothing before that is trouble: nodes that change roles may refuse each other once, because
/// one has not heard yet what the other leads, and so may a stranger knock.
const IN_A_ROW: u32 = 2;

/// What is wrong with each direction of the link, from the last attempt that showed it until both nodes agree again.
#[derive(Debug)]
pub struct Trouble {
    peer: String,
    last: [Option<Last>; 2],
}

#[derive(Debug)]
struct Last {
    why: String,
    /// Attempts in a row that came to nothing.
    times: u32,
}

impl Last {
    fn is_trouble(&self) -> bool {
        self.times >= IN_A_ROW
    }
}

impl Trouble {
    /// None yet; `peer` is the other node's name.
    pub fn new(peer: String) -> Trouble {
        Trouble { peer, last: [None, None] }
    }

    /// The greeting was accepted and the log flows.
    pub fn agreed(&mut self, link: Link) {
        self.last[link as usize] = None;
    }

    /// An attempt came to nothing.
    pub fn failed(&mut self, link: Link, ended: &Ended) {
        let peer = &self.peer;
        let why = match (ended, link) {
            (Ended::Tls(why), Link::Out) => format!(
                "the link to {peer} fails in TLS ({why}): the certificate of {peer} must bear its name and be signed by an \
                 authority of [link] ca, likewise on {peer}, and both clocks must be right"
            ),
            (Ended::Tls(why), Link::In) => format!(
                "somebody who is not {peer} knocks at the link port, or {peer} has a wrong certificate ({why})"
            ),
            (Ended::Bad(why), _) => format!("the link to {peer} fails: {why}"),
            // The peer is down or cannot be reached: its state says so.
            _ => return,
        };
        self.tell(link, why);
    }

    /// This node closed a connection, perhaps because of what the peer said.
    pub fn closed(&mut self, link: Link, why: Why) {
        if let Why::Refused(why) = why {
            self.tell(link, format!("the link to {} is refused: {why}", self.peer));
        }
    }

    fn tell(&mut self, link: Link, why: String) {
        let before = self.last[link as usize].take();
        let last = Last { why, times: before.as_ref().map_or(1, |before| before.times.saturating_add(1)) };
        let told = before.is_some_and(|before| before.is_trouble() && before.why == last.why);
        if last.is_trouble() && !told {
            warn!(event = "link_trouble", why = last.why, "the link does not come up");
        }
        self.last[link as usize] = Some(last);
    }

    /// For the operator.
    pub fn alarms(&self) -> impl Iterator<Item = String> + '_ {
        self.last.iter().flatten().filter(|last| last.is_trouble()).map(|last| last.why.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_the_link_down_is_told_until_messages_flow() {
        let mut trouble = Trouble::new("b".into());
        let told = |trouble: &Trouble| trouble.alarms().collect::<Vec<_>>().join("|");
        for ended in [Ended::Refused, Ended::TimedOut, Ended::Fin] {
            trouble.failed(Link::Out, &ended);
        }
        assert_eq!(told(&trouble), "");
        trouble.failed(Link::Out, &Ended::Tls("certificate expired".into()));
        assert_eq!(told(&trouble), "", "once is not trouble yet");
        trouble.agreed(Link::Out);
        trouble.failed(Link::Out, &Ended::Tls("certificate expired".into()));
        assert_eq!(told(&trouble), "", "it was well in between");
        trouble.failed(Link::Out, &Ended::Tls("certificate expired".into()));
        assert!(told(&trouble).contains("link to b fails in TLS (certificate expired)"));
        trouble.closed(
            Link::Out,
            Why::Refused("the peer speaks another version of the link: upgrade the older node"),
        );
        assert!(told(&trouble).contains("refused: the peer speaks another version"));
        trouble.agreed(Link::In);
        assert_ne!(told(&trouble), "");
        trouble.agreed(Link::Out);
        assert_eq!(told(&trouble), "");
        // A connection that is closed in the course of things is none, at whatever stage.
        trouble.closed(Link::Out, Why::Again("a snapshot was installed: compare the logs"));
        assert_eq!(told(&trouble), "");
    }
}
