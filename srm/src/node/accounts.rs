//! Accounts at the operator's request: which node does it, and when it is refused.

use presence_engine::engine::Input;
use presence_engine::ids::NodeIx;
use xmpp_core::jid::BareJid;

use super::moves::refused;
use super::{Node, Op, Out, Reply};
use crate::safety::Role;

impl Node {
    /// A reply, or none yet: then it comes when the change is safe.
    pub(super) fn account_op(&mut self, number: u64, op: Op) -> Option<Reply> {
        if let Some(reply) = self.accounts_stopped() {
            return Some(reply);
        }
        let mut then = None;
        let (user, input) = match op {
            Op::UserAdd(user, home, verifiers) => {
                let (home, assigned) = match self.home_for(&user, home) {
                    Ok(given) => given,
                    Err(reply) => return Some(reply),
                };
                then = (!assigned).then(|| Input::Assign { user: user.clone(), home: None });
                (user.clone(), Input::UserAdd { user, home, verifiers: *verifiers })
            }
            Op::UserPasswd(user, verifiers) => {
                (user.clone(), Input::UserPasswd { user, verifiers: *verifiers })
            }
            Op::UserRemove(user) => (user.clone(), Input::UserRemove { user }),
            _ => return None,
        };
        if self.changing.contains_key(&user) {
            let error = format!("a change of the account {user} is under way");
            return Some(refused(error, "ask again in a moment"));
        }
        if !matches!(input, Input::UserAdd { .. })
            && let Some(reply) = self.not_ours(&user)
        {
            return Some(reply);
        }
        self.changing.insert(user, number);
        self.inbox.push(input);
        self.inbox.extend(then);
        None
    }

    fn home_for(&self, user: &BareJid, home: Option<NodeIx>) -> Result<(NodeIx, bool), Reply> {
        if let Err(state) = self.adds_accounts() {
            let error = format!("no accounts are added while this node is {}", state.name());
            let hint =
                "do a fallback first, then add the account; or set [srm] allow_adding_users_in_failover";
            return Err(refused(error, hint));
        }
        let state = self.driver.engine().state();
        if state.user(user).is_some() {
            return Err(refused(format!("the account {user} exists"), "choose another name"));
        }
        let (home, assigned) = self.home_to_give(home);
        // Who is added while the others of this home are away lives where they are.
        let register = if state.away(home).is_some() { home.peer() } else { home };
        let of_home = register == home || self.cores[home.index()].reg().primary != self.me;
        if of_home && self.cores[register.index()].role() == Role::Primary && self.serving[register.index()] {
            return Ok((home, assigned));
        }
        Err(match self.peer_up {
            true if assigned => Reply::NotHere,
            _ if self.cfg.single => refused("this node does not serve yet", "it is starting: try again"),
            _ => refused("the account's home is not served now", "start the other node"),
        })
    }

    /// Only the node that serves an account changes it.
    fn not_ours(&self, user: &BareJid) -> Option<Reply> {
        let state = self.driver.engine().state();
        let Some(u) = state.user(user) else {
            return Some(refused(format!("there is no account {user}"), "see `tandem user list`"));
        };
        let ours = state.owner(u) == Some(self.me);
        if ours && self.serving[u.register.index()] && !self.driver.engine().is_doubtful(user) {
            return None;
        }
        Some(match self.peer_up && !ours {
            true => Reply::NotHere,
            false => refused(
                format!("the account {user} is served by nobody now"),
                "see `tandem status`; ask again when its users are served",
            ),
        })
    }

    /// The state was built anew: whether a change that was under way is in it nobody here can say.
    pub(super) fn forget_changes(&mut self) {
        for (user, number) in std::mem::take(&mut self.changing) {
            let error = format!("this node lost its role: whether {user} was changed is not known");
            self.outs.push(Out::Reply(number, refused(error, "look at `tandem user list`, and ask again")));
        }
    }
}
