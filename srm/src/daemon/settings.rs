//! `tandem config set`: one setting is changed in the configuration file, and in the peer's where both must have the same.

use super::ops::{Answer, Ask, Operations};
use crate::admin::{Refusal, Reloaded};
use crate::config::edit::{self, Unfit};

impl Operations {
    /// The peer first: where it refuses or does not answer, nothing is changed anywhere.
    pub(super) async fn set_on_both(&self, key: String, value: Option<String>) -> Result<Reloaded, Refusal> {
        let path = &self.config.path;
        let both = edit::is_clusterwide(&key).map_err(refusal)? && self.config.peer.is_some();
        let before = edit::change(path, &key, value.as_deref()).map_err(refusal)?.before;
        if both {
            self.peer_sets(&key, value.clone()).await?;
        }
        let result = self.set_here(&key, value.as_deref()).await;
        if both && result.is_err() {
            // As it was there, too. A node that cannot be told shows the difference as an alarm.
            let _ = self.peer_sets(&key, before).await;
        }
        let done = result?;
        self.asked(&format!("{key} = {}", value.as_deref().unwrap_or("its default")));
        Ok(done)
    }

    async fn peer_sets(&self, key: &str, value: Option<String>) -> Result<(), Refusal> {
        let peer = &self.names[self.me.peer().index()];
        match self.ask_peer(Ask::Set { key: key.to_owned(), value }).await {
            Some(Answer::Done) => Ok(()),
            Some(Answer::Refused(refusal)) => {
                Err(Refusal { error: format!("{peer} refuses: {}", refusal.error), ..refusal })
            }
            _ => {
                let error = format!("{key} must be equal on both nodes, and {peer} does not answer");
                let hint = format!("start {peer}, or repair the path to it; or edit the file of each node");
                Err(self.refusal(error, hint).await)
            }
        }
    }

    /// The peer sets what both nodes must have alike, and nothing else: this node's files and ports are its own.
    pub(super) async fn set_for_peer(&self, key: &str, value: Option<&str>) -> Result<Reloaded, Refusal> {
        may_be_set_by_peer(key).map_err(refusal)?;
        self.set_here(key, value).await
    }

    /// Changes this node's file and takes it up; the file is as it was if that fails.
    pub(super) async fn set_here(&self, key: &str, value: Option<&str>) -> Result<Reloaded, Refusal> {
        let path = &self.config.path;
        let new = edit::change(path, key, value).map_err(refusal)?;
        let old = edit::change(path, key, new.before.as_deref()).map_err(refusal)?;
        let unwritten = |error: std::io::Error| {
            let problem = format!("{} cannot be written: {error}", path.display());
            let hint =
                "let the user that the node runs as write it and its folder, or edit it by hand".to_owned();
            refusal(Unfit { problem, hint })
        };
        new.write(path).map_err(unwritten)?;
        match self.live.reload().await {
            Ok(done) => Ok(done),
            Err(error) => {
                old.write(path).map_err(unwritten)?;
                let hint = "the file is as it was; see `tandem config check`".to_owned();
                Err(refusal(Unfit { problem: format!("the configuration was not reloaded: {error}"), hint }))
            }
        }
    }
}

fn may_be_set_by_peer(key: &str) -> Result<(), Unfit> {
    if edit::is_clusterwide(key)? {
        return Ok(());
    }
    let problem = format!("{key} is a setting of one node: the other node does not set it");
    Err(Unfit { problem, hint: "say `tandem config set` on the node that it is of".to_owned() })
}

fn refusal(unfit: Unfit) -> Refusal {
    Refusal { error: unfit.problem, hint: unfit.hint, ..Refusal::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_sets_only_what_both_nodes_must_have_alike() {
        assert!(may_be_set_by_peer("srm.automatic_fallback_after").is_ok());
        for key in ["admin.token_file", "admin.listen", "node.data", "link.listen", "c2s.cert"] {
            let refused = may_be_set_by_peer(key).unwrap_err();
            assert!(refused.problem.contains(key), "{}", refused.problem);
        }
    }
}
