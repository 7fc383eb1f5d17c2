//! Service discovery (XEP-0030 2.5). Features come from the list of handlers, so both nodes say the same.

use xmpp_core::error::{StanzaCondition, StanzaError};
use xmpp_core::jid::BareJid;

use super::Engine;
use super::iq::{Answer, HANDLERS, Request, Target, result};

/// Namespace of questions about an entity.
pub(super) const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
/// Namespace of questions about what belongs to an entity.
pub(super) const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";

/// Features that no request stands for: offline messages (XEP-0160 2).
const OTHERS: [&str; 1] = ["msgoffline"];

/// What is said of a target, in order (XEP-0115 sorts features anyway).
pub(super) fn features(target: Target) -> Vec<&'static str> {
    let handled = HANDLERS.iter().filter(|h| h.answers_for(target)).flat_map(|h| h.features);
    let mut features: Vec<&str> = handled.copied().collect();
    if target == Target::Server {
        // Clients ask the server for what their account can do.
        features = HANDLERS.iter().flat_map(|h| h.features).copied().chain(OTHERS).collect();
    }
    features.sort_unstable();
    features
}

impl Engine {
    /// Identity and features of the server or of an account.
    pub(super) fn disco_info(&self, request: &Request<'_>) -> Answer {
        self.may_discover(request)?;
        let (category, type_, name) = match request.target {
            Target::Server => ("server", "im", Some("Tandem")),
            Target::Own | Target::Other => ("account", "registered", None),
        };
        Ok(result(request.stanza, |w| {
            w.open("query", DISCO_INFO).open("identity", "").attr("category", category);
            w.attr("type", type_).attr_opt("name", name).close();
            for feature in features(request.target) {
                w.open("feature", "").attr("var", feature).close();
            }
            w.close();
        }))
    }

    /// There are no items yet: no rooms, no components, no nodes.
    pub(super) fn disco_items(&self, request: &Request<'_>) -> Answer {
        self.may_discover(request)?;
        Ok(result(request.stanza, |w| _ = w.open("query", DISCO_ITEMS).close()))
    }

    /// XEP-0030 8: an account answers only those who may see its presence, and to all others as if it did not exist.
    fn may_discover(&self, request: &Request<'_>) -> Result<(), StanzaError> {
        let account = request.stanza.head.to.as_ref().map(|to| to.to_bare());
        let seen = |account: BareJid| {
            self.state.user(&account).is_some_and(|u| u.roster.subscription(request.user).is_seen())
        };
        if request.target == Target::Other && !account.is_some_and(seen) {
            return Err(StanzaError::new(StanzaCondition::ServiceUnavailable));
        }
        match request.payload.attr("node") {
            Some(_) => Err(StanzaError::new(StanzaCondition::ItemNotFound)),
            None => Ok(()),
        }
    }
}
