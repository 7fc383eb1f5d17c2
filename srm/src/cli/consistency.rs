//! `tandem check`: whether the stores hold what the logs say, and each node what the other holds of its users.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Client;
use super::output::{Answer, Exit, Failure, Progress, users};
use crate::admin::{CheckStatus, NodeStatus, ServiceStatus};

/// How often the status is asked.
const LOOK: Duration = Duration::from_millis(200);
/// How long a check may take: 256 accounts, or 64 KiB of the store, every 250 ms on each node.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Begins one on both nodes, or on the one that answers, and waits for what it finds.
pub(super) fn check(client: &Client, progress: &mut Progress) -> Result<Answer, Failure> {
    let ended: BTreeMap<String, u64> =
        client.status()?.nodes.into_iter().map(|node| (node.name, node.check.ended)).collect();
    let checking = client.check()?;
    let began = Instant::now();
    let found = loop {
        let nodes: Vec<NodeStatus> = client.status()?.nodes;
        let done = |node: &&NodeStatus| node.check.ended > ended.get(&node.name).copied().unwrap_or(0);
        let done: Vec<&NodeStatus> =
            nodes.iter().filter(|node| checking.contains(&node.name)).filter(done).collect();
        if done.len() == checking.len() {
            break done.into_iter().cloned().collect::<Vec<_>>();
        }
        if began.elapsed() > PATIENCE {
            progress.end();
            let error = "the check does not come to its end".to_owned();
            return Err(Failure::new(Exit::Refused, error, "see `tandem status` on both nodes"));
        }
        progress.show(format!("check: {} of {} nodes are done", done.len(), checking.len()));
        thread::sleep(LOOK);
    };
    progress.end();
    judge(&found)
}

fn judge(found: &[NodeStatus]) -> Result<Answer, Failure> {
    let other = |name: &str| {
        let other = found.iter().map(|node| node.name.clone()).find(|known| known != name);
        other.unwrap_or_else(|| "the other node".to_owned())
    };
    let lines: Vec<String> = found
        .iter()
        .map(|node| {
            let (name, found) = (&node.name, line(&node.check, &other(&node.name)));
            let down = down(node)
                .map(|s| format!("{name}: critical service {} is {}: {}\n", s.name, s.state, s.why));
            format!("{name}: {found}\n{}", down.collect::<String>())
        })
        .collect();
    let is_wrong =
        |node: &&NodeStatus| node.check.different + node.check.wrong > 0 || down(node).next().is_some();
    let wrong: Vec<&NodeStatus> = found.iter().filter(is_wrong).collect();
    if wrong.is_empty() {
        return Ok(Answer::new(lines.concat(), json!({ "nodes": checks(found) })));
    }
    let hints = wrong.iter().map(|node| hint(node, &other(&node.name))).collect::<Vec<_>>();
    let failure = Failure::new(Exit::Refused, lines.concat().trim_end().to_owned(), hints.join("; "));
    Err(Failure { more: json!({ "nodes": checks(found) }), ..failure })
}

/// Critical services of the node that do not do their work.
fn down(node: &NodeStatus) -> impl Iterator<Item = &ServiceStatus> {
    node.services.iter().filter(|s| s.critical && s.state != "running")
}

fn checks(found: &[NodeStatus]) -> BTreeMap<&str, &CheckStatus> {
    found.iter().map(|node| (node.name.as_str(), &node.check)).collect()
}

fn line(check: &CheckStatus, other: &str) -> String {
    let accounts = match (check.users, check.different) {
        (None, _) => "accounts were compared with nobody: the nodes are not connected".to_owned(),
        (Some(n), 0) => format!("{} as {other} holds them", users(n)),
        (Some(n), different) => {
            format!("{different} of {} are held otherwise by {other}: {}", users(n), check.named.join(", "))
        }
    };
    let store = match (check.pairs, check.wrong) {
        (None, 0) => "no checkpoint in the store yet".to_owned(),
        (None, _) => "the store cannot be read".to_owned(),
        (Some(pairs), 0) => format!("{pairs} pairs in the store as the logs say"),
        (Some(pairs), wrong) => format!("{wrong} of {pairs} pairs in the store are not what the logs say"),
    };
    format!("{accounts}; {store}")
}

fn hint(node: &NodeStatus, other: &str) -> String {
    if node.check.different > 0 {
        format!(
            "stop {other}, move its data folder away, and start it again: it gets everything from {}",
            node.name
        )
    } else if let Some(service) = down(node).next() {
        format!(
            "`tandem service restart {} --node {}`, once what it names is mended",
            service.name, node.name
        )
    } else {
        format!(
            "nothing is lost: the store of {} was set aside and is written anew; look after its disk",
            node.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, check: CheckStatus) -> NodeStatus {
        NodeStatus { name: name.to_owned(), check, ..NodeStatus::default() }
    }

    #[test]
    fn what_was_found_is_told_of_each_node_and_what_to_do() {
        let well = CheckStatus { users: Some(2), pairs: Some(7), ..CheckStatus::default() };
        let alone = CheckStatus { users: None, pairs: None, ..well.clone() };
        let answer = judge(&[node("a", well.clone()), node("b", alone)]).unwrap();
        assert_eq!(
            answer.text,
            "a: 2 users as b holds them; 7 pairs in the store as the logs say\n\
             b: accounts were compared with nobody: the nodes are not connected; no checkpoint in the store yet\n"
        );
        let differs = CheckStatus { different: 1, named: vec!["u@d".to_owned()], ..well.clone() };
        let failure = judge(&[node("a", differs), node("b", well.clone())]).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(
            failure.refusal.error.contains("a: 1 of 2 users are held otherwise by b: u@d"),
            "{}",
            failure.refusal.error
        );
        assert!(
            failure.refusal.hint.starts_with("stop b, move its data folder away"),
            "{}",
            failure.refusal.hint
        );
        let failure = judge(&[node("a", CheckStatus { wrong: 3, ..well })]).unwrap_err();
        assert!(
            failure.refusal.error.contains("3 of 7 pairs in the store are not what the logs say"),
            "{}",
            failure.refusal.error
        );
        assert!(failure.refusal.hint.starts_with("nothing is lost"), "{}", failure.refusal.hint);
        let service = |critical| ServiceStatus {
            name: "database".to_owned(),
            state: "failing".to_owned(),
            why: "the store cannot be used: EIO".to_owned(),
            critical,
            seconds: 3,
            restarts: 1,
        };
        let with = |critical| {
            let check = CheckStatus { users: Some(2), pairs: Some(7), ..CheckStatus::default() };
            judge(&[NodeStatus { services: vec![service(critical)], ..node("a", check) }])
        };
        assert!(with(false).is_ok());
        let failure = with(true).unwrap_err();
        let named = "a: critical service database is failing: the store cannot be used: EIO";
        assert!(failure.refusal.error.ends_with(named), "{}", failure.refusal.error);
        assert!(failure.refusal.hint.starts_with("`tandem service restart database --node a`"));
    }
}
