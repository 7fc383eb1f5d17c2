//! Reading choices off the front of an input.

/// What is left of an input. Where it has ended, every choice is 0.
pub(super) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// One byte.
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// What stands before the next `mark`, which is passed over; all that is left if there is none.
    pub(super) fn until(&mut self, mark: u8) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == mark).unwrap_or(self.0.len());
        let (part, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        part
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Cuts bytes into pieces whose lengths, of 1 to 16, follow from `seed`.
pub(super) fn pieces(bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let (mut rest, mut state) = (bytes, seed);
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(0x3d).wrapping_add(0x5b);
        let (piece, behind) = rest.split_at(rest.len().min(1 + usize::from(state >> 4)));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}
