//! Subscription states and what each subscription stanza does to them (RFC 6121 appendix A), as data. Each side of a
//! subscription keeps its own state and changes it only by these tables, so the two agree again whatever crossed.

/// State of a roster item (RFC 6121 A.1), seen from the roster's owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Subscription {
    /// Neither sees the other.
    #[default]
    None,
    /// None, and the user has asked.
    NoneOut,
    /// None, and the contact has asked.
    NoneIn,
    /// None, and both have asked.
    NoneOutIn,
    /// The user sees the contact.
    To,
    /// To, and the contact has asked.
    ToIn,
    /// The contact sees the user.
    From,
    /// From, and the user has asked.
    FromOut,
    /// Both see each other.
    Both,
}

use Subscription::{Both, From, FromOut, None, NoneIn, NoneOut, NoneOutIn, To, ToIn};
use serde::{Deserialize, Serialize};

impl Subscription {
    /// All states, in the order of RFC 6121 A.1 and of the tables' rows.
    pub const ALL: [Subscription; 9] = [None, NoneOut, NoneIn, NoneOutIn, To, ToIn, From, FromOut, Both];

    /// The state with this index in [`Subscription::ALL`].
    pub fn from_index(index: u8) -> Option<Subscription> {
        Subscription::ALL.get(usize::from(index)).copied()
    }

    /// The attribute `subscription` of a roster item (RFC 6121 2.1.2.5).
    pub fn attribute(self) -> &'static str {
        match self {
            None | NoneOut | NoneIn | NoneOutIn => "none",
            To | ToIn => "to",
            From | FromOut => "from",
            Both => "both",
        }
    }

    /// The user is subscribed to the contact's presence.
    pub fn sees(self) -> bool {
        matches!(self, To | ToIn | Both)
    }

    /// The contact is subscribed to the user's presence.
    pub fn is_seen(self) -> bool {
        matches!(self, From | FromOut | Both)
    }

    /// The user asked and has no answer: `ask='subscribe'`.
    pub fn pending_out(self) -> bool {
        matches!(self, NoneOut | NoneOutIn | FromOut)
    }

    /// The contact asked and has no answer. No client sees this in the roster.
    pub fn pending_in(self) -> bool {
        matches!(self, NoneIn | NoneOutIn | ToIn)
    }

    /// The state once the contact's request is granted without having been shown (RFC 6121 3.4): the tables' way
    /// through pending-in, in one step.
    pub fn preapproved(self) -> Subscription {
        let asked = step(Direction::Inbound, Ask::Subscribe, self).next;
        step(Direction::Outbound, Ask::Subscribed, asked).next
    }
}

/// The four stanzas that manage subscriptions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ask {
    /// A request.
    Subscribe,
    /// The end of a request or of a subscription, by who sees.
    Unsubscribe,
    /// Consent.
    Subscribed,
    /// Refusal, or consent withdrawn, by who is seen.
    Unsubscribed,
}

impl Ask {
    /// All four.
    pub const ALL: [Ask; 4] = [Ask::Subscribe, Ask::Unsubscribe, Ask::Subscribed, Ask::Unsubscribed];

    /// By the attribute `type` of a presence stanza.
    pub fn of(type_: &str) -> Option<Ask> {
        Ask::ALL.into_iter().find(|ask| ask.name() == type_)
    }

    /// The attribute `type`.
    pub fn name(self) -> &'static str {
        match self {
            Ask::Subscribe => "subscribe",
            Ask::Unsubscribe => "unsubscribe",
            Ask::Subscribed => "subscribed",
            Ask::Unsubscribed => "unsubscribed",
        }
    }
}

/// Which of the two sides handles the stanza.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// The roster's owner sends it.
    Outbound,
    /// The contact sent it.
    Inbound,
}

/// A cell of a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Step {
    /// Outbound: it is routed to the contact. Inbound: it is delivered to the user.
    pub pass: bool,
    /// The state afterwards.
    pub next: Subscription,
}

type Row = (Subscription, bool, Subscription);

const PASS: bool = true;
const STOP: bool = false;

/// RFC 6121 A.2.1. Always routed: it may repair what the two sides disagree on.
const OUT_SUBSCRIBE: [Row; 9] = [
    (None, PASS, NoneOut),
    (NoneOut, PASS, NoneOut),
    (NoneIn, PASS, NoneOutIn),
    (NoneOutIn, PASS, NoneOutIn),
    (To, PASS, To),
    (ToIn, PASS, ToIn),
    (From, PASS, FromOut),
    (FromOut, PASS, FromOut),
    (Both, PASS, Both),
];

/// RFC 6121 A.2.2. Always routed, for the same reason.
const OUT_UNSUBSCRIBE: [Row; 9] = [
    (None, PASS, None),
    (NoneOut, PASS, None),
    (NoneIn, PASS, NoneIn),
    (NoneOutIn, PASS, NoneIn),
    (To, PASS, None),
    (ToIn, PASS, NoneIn),
    (From, PASS, From),
    (FromOut, PASS, From),
    (Both, PASS, From),
];

/// RFC 6121 A.2.3. Only an answer to a request is routed; anything else would be a consent that nobody asked for.
const OUT_SUBSCRIBED: [Row; 9] = [
    (None, STOP, None),
    (NoneOut, STOP, NoneOut),
    (NoneIn, PASS, From),
    (NoneOutIn, PASS, FromOut),
    (To, STOP, To),
    (ToIn, PASS, Both),
    (From, STOP, From),
    (FromOut, STOP, FromOut),
    (Both, STOP, Both),
];

/// RFC 6121 A.2.4. Refuses a request or withdraws consent; where there is neither there is nothing to say.
const OUT_UNSUBSCRIBED: [Row; 9] = [
    (None, STOP, None),
    (NoneOut, STOP, NoneOut),
    (NoneIn, PASS, None),
    (NoneOutIn, PASS, NoneOut),
    (To, STOP, To),
    (ToIn, PASS, To),
    (From, PASS, None),
    (FromOut, PASS, NoneOut),
    (Both, PASS, To),
];

/// RFC 6121 A.3.1. A request that waits already is not shown again; one that was granted is granted again by the server.
const IN_SUBSCRIBE: [Row; 9] = [
    (None, PASS, NoneIn),
    (NoneOut, PASS, NoneOutIn),
    (NoneIn, STOP, NoneIn),
    (NoneOutIn, STOP, NoneOutIn),
    (To, PASS, ToIn),
    (ToIn, STOP, ToIn),
    (From, STOP, From),
    (FromOut, STOP, FromOut),
    (Both, STOP, Both),
];

/// RFC 6121 A.3.2. Ends a request or a subscription of the contact.
const IN_UNSUBSCRIBE: [Row; 9] = [
    (None, STOP, None),
    (NoneOut, STOP, NoneOut),
    (NoneIn, PASS, None),
    (NoneOutIn, PASS, NoneOut),
    (To, STOP, To),
    (ToIn, PASS, To),
    (From, PASS, None),
    (FromOut, PASS, NoneOut),
    (Both, PASS, To),
];

/// RFC 6121 A.3.3. Consent counts only if the user asked (S19: nobody puts himself into another's roster).
const IN_SUBSCRIBED: [Row; 9] = [
    (None, STOP, None),
    (NoneOut, PASS, To),
    (NoneIn, STOP, NoneIn),
    (NoneOutIn, PASS, ToIn),
    (To, STOP, To),
    (ToIn, STOP, ToIn),
    (From, STOP, From),
    (FromOut, PASS, Both),
    (Both, STOP, Both),
];

/// RFC 6121 A.3.4. Refusal of a request, or the end of a subscription of the user.
const IN_UNSUBSCRIBED: [Row; 9] = [
    (None, STOP, None),
    (NoneOut, PASS, None),
    (NoneIn, STOP, NoneIn),
    (NoneOutIn, PASS, NoneIn),
    (To, PASS, None),
    (ToIn, PASS, NoneIn),
    (From, STOP, From),
    (FromOut, PASS, From),
    (Both, PASS, From),
];

/// The table of one stanza in one direction; a row for each state, in the order of [`Subscription::ALL`].
pub fn table(direction: Direction, ask: Ask) -> &'static [Row; 9] {
    match (direction, ask) {
        (Direction::Outbound, Ask::Subscribe) => &OUT_SUBSCRIBE,
        (Direction::Outbound, Ask::Unsubscribe) => &OUT_UNSUBSCRIBE,
        (Direction::Outbound, Ask::Subscribed) => &OUT_SUBSCRIBED,
        (Direction::Outbound, Ask::Unsubscribed) => &OUT_UNSUBSCRIBED,
        (Direction::Inbound, Ask::Subscribe) => &IN_SUBSCRIBE,
        (Direction::Inbound, Ask::Unsubscribe) => &IN_UNSUBSCRIBE,
        (Direction::Inbound, Ask::Subscribed) => &IN_SUBSCRIBED,
        (Direction::Inbound, Ask::Unsubscribed) => &IN_UNSUBSCRIBED,
    }
}

/// What a stanza does in a state.
pub fn step(direction: Direction, ask: Ask, state: Subscription) -> Step {
    let (_, pass, next) = table(direction, ask)[state as usize];
    Step { pass, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTIONS: [Direction; 2] = [Direction::Outbound, Direction::Inbound];

    #[test]
    fn every_table_has_one_row_for_each_state_in_order() {
        for direction in DIRECTIONS {
            for ask in Ask::ALL {
                let states = table(direction, ask).map(|(state, ..)| state);
                assert_eq!(states, Subscription::ALL, "{direction:?} {ask:?}");
            }
        }
        for (i, state) in Subscription::ALL.into_iter().enumerate() {
            assert_eq!(Subscription::from_index(i as u8), Some(state));
        }
        assert_eq!(Subscription::from_index(9), Option::None);
    }

    #[test]
    fn each_cell_changes_the_half_that_it_speaks_of_and_no_other() {
        for direction in DIRECTIONS {
            for ask in Ask::ALL {
                // Whose sight the stanza speaks of: the sender's (subscribe) or the receiver's (subscribed).
                let of_sender = matches!(ask, Ask::Subscribe | Ask::Unsubscribe);
                let of_user = of_sender == (direction == Direction::Outbound);
                for (state, pass, next) in table(direction, ask) {
                    let at = format!("{direction:?} {ask:?} {state:?}");
                    if of_user {
                        assert_eq!(state.is_seen(), next.is_seen(), "{at}");
                        assert_eq!(state.pending_in(), next.pending_in(), "{at}");
                    } else {
                        assert_eq!(state.sees(), next.sees(), "{at}");
                        assert_eq!(state.pending_out(), next.pending_out(), "{at}");
                    }
                    assert!(state == next || *pass, "{at}: a change that the other side is not told");
                    let again = step(direction, ask, *next);
                    assert_eq!(again.next, *next, "{at}: saying it twice changes nothing");
                }
            }
        }
    }

    #[test]
    fn consent_needs_a_request() {
        for state in Subscription::ALL {
            let out = step(Direction::Outbound, Ask::Subscribed, state);
            assert_eq!(out.pass, state.pending_in());
            let inbound = step(Direction::Inbound, Ask::Subscribed, state);
            assert_eq!(inbound.pass, state.pending_out());
            assert!(inbound.pass || inbound.next == state);
        }
    }

    #[test]
    fn a_granted_request_leaves_both_sides_with_one_subscription() {
        // Both sides by the tables alone, from every state that two honest servers can be in.
        for (user, contact) in [(None, None), (NoneIn, NoneOut), (From, To), (FromOut, ToIn)] {
            let user_asked = step(Direction::Outbound, Ask::Subscribe, user).next;
            let contact_asked = step(Direction::Inbound, Ask::Subscribe, contact).next;
            let contact_granted = step(Direction::Outbound, Ask::Subscribed, contact_asked).next;
            let user_granted = step(Direction::Inbound, Ask::Subscribed, user_asked).next;
            assert!(user_granted.sees() && contact_granted.is_seen(), "{user:?} {contact:?}");
            assert!(!user_granted.pending_out() && !contact_granted.pending_in());
        }
    }

    #[test]
    fn approval_in_advance_goes_through_the_tables() {
        assert_eq!(None.preapproved(), From);
        assert_eq!(NoneOut.preapproved(), FromOut);
        assert_eq!(To.preapproved(), Both);
        assert_eq!(Both.preapproved(), Both);
    }
}
