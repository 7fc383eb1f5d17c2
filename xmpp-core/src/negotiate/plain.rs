//! PLAIN (RFC 4616) after its only message: the password is being checked elsewhere, because that takes time.

use super::auth::{not_now, welcome, wrong};
use super::{Checked, Facts, Input, Next, Proved, Turn, not_authorized};
use crate::error::StreamError;

/// The answer to a check must come.
pub struct ExpectChecked {
    facts: Facts,
    claimed: Proved,
    known: bool,
}

impl ExpectChecked {
    pub(super) fn new(facts: Facts, claimed: Proved, known: bool) -> Self {
        ExpectChecked { facts, claimed, known }
    }

    /// Lets the client in, or not.
    pub fn handle(self, input: Input, turn: &mut Turn<'_>) -> Result<Next, StreamError> {
        let Input::Checked(checked) = input else { return Err(not_authorized()) };
        match checked {
            Checked::Holds if self.known => Ok(welcome(self.facts, self.claimed, b"", turn)),
            Checked::Holds | Checked::Wrong => wrong(self.facts, turn),
            Checked::Unavailable => Ok(not_now(self.facts, turn)),
        }
    }
}
