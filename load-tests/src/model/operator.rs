//! What the operator may say.

use srm::safety::In;

use super::bounds::Bounds;
use super::world::{Action, World};

impl World {
    pub(super) fn act_operator(&mut self, b: &Bounds, action: Action) {
        match action {
            Action::GiveBack(i) => {
                self.left.give_back -= 1;
                self.feed(b, i, In::GiveBack);
            }
            Action::Force(i) => {
                self.left.force -= 1;
                self.feed(b, i, In::ForceActive { overrule: false });
            }
            Action::Overrule(i) => {
                self.left.overrule -= 1;
                self.feed(b, i, In::ForceActive { overrule: true });
            }
            Action::Hold(i) => {
                self.left.holds -= 1;
                self.n(i).held = true;
                self.feed(b, i, In::Hold(true));
            }
            Action::Let(i) => self.feed(b, i, In::Hold(false)),
            _ => self.act_data(b, action),
        }
    }
}
