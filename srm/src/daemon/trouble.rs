//! Why the link does not come up, in the operator's words: a peer that is merely down is told elsewhere.

use session_mover::driver::Link;
use session_mover::link::Ended;
use tracing::warn;

/// What is wrong with each direction of the link, from the last attempt that showed it until the link carries messages.
#[derive(Debug)]
pub struct Trouble {
    peer: String,
    last: [Option<String>; 2],
    /// Messages of the present connection.
    messages: [u32; 2],
}

impl Trouble {
    /// None yet; `peer` is the other node's name.
    pub fn new(peer: String) -> Trouble {
        Trouble { peer, last: [None, None], messages: [0; 2] }
    }

    /// A connection is up; whether it carries anything is not known yet.
    pub fn up(&mut self, link: Link) {
        self.messages[link as usize] = 0;
    }

    /// A message came: the first is the greeting, and what follows shows that both agree.
    pub fn message(&mut self, link: Link) {
        let count = &mut self.messages[link as usize];
        *count = count.saturating_add(1);
        if *count > 1 {
            self.last[link as usize] = None;
        }
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

    /// This node closed a connection because of what the peer said.
    pub fn closed(&mut self, link: Link, why: &str) {
        if self.messages[link as usize] <= 1 {
            self.tell(link, format!("the link to {} is refused: {why}", self.peer));
        }
    }

    fn tell(&mut self, link: Link, why: String) {
        let last = &mut self.last[link as usize];
        if last.as_ref() != Some(&why) {
            warn!(event = "link_trouble", why, "the link does not come up");
            *last = Some(why);
        }
    }

    /// For the operator.
    pub fn alarms(&self) -> impl Iterator<Item = String> + '_ {
        self.last.iter().flatten().cloned()
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
        assert!(told(&trouble).contains("link to b fails in TLS (certificate expired)"));
        trouble.up(Link::Out);
        trouble.message(Link::Out);
        trouble.closed(Link::Out, "the peer speaks another version of the link: upgrade the older node");
        assert!(told(&trouble).contains("refused: the peer speaks another version"));
        trouble.up(Link::Out);
        trouble.message(Link::Out);
        assert_ne!(told(&trouble), "");
        trouble.message(Link::Out);
        assert_eq!(told(&trouble), "");
        // A connection that worked and is closed in the course of things is none.
        trouble.closed(Link::Out, "our log was cut: compare it again");
        assert_eq!(told(&trouble), "");
    }
}
