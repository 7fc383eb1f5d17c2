//! Logins: what they cost, and what the operator is told when more come than the processors can take.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use xmpp_core::net::Logins;

use super::reload::Live;
use super::worker::ToNode;
use crate::node::In;

/// How often the node is told what logins cost.
const PERIOD: Duration = Duration::from_secs(5);

/// Tells the node for ever.
pub async fn watch(live: Arc<Live>, to_node: Sender<ToNode>) {
    let mut clock = tokio::time::interval(PERIOD);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let logins = live.clients.load().logins_now();
        if to_node
            .send(ToNode::In(In::Logins { per_second: logins.per_second, crowded: logins.waiting > 0 }))
            .is_err()
        {
            return;
        }
    }
}

/// What is wrong, if connections wait.
pub fn alarm(logins: &Logins) -> Option<String> {
    let Logins { per_second, waiting, .. } = logins;
    (*waiting > 0).then(|| {
        format!(
            "{waiting} connections wait before TLS: more clients log in than the processors can take (about \
             {per_second} a second, see limits.login_share)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_told_how_many_wait() {
        let logins = Logins { cost: Duration::from_millis(2), per_second: 500, waiting: 0 };
        assert_eq!(alarm(&logins), None);
        let text = alarm(&Logins { waiting: 812, ..logins }).unwrap();
        assert!(text.starts_with("812 connections wait before TLS"), "{text}");
        assert!(text.contains("about 500 a second"), "{text}");
    }
}
