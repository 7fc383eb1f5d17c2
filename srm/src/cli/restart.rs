//! `tandem restart`: has a node restarted, and waits until it is back.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Client;
use super::args::MoveArgs;
use super::output::{Answer, Exit, Failure, Progress};
use crate::admin::{NodeStatus, Status};

/// How often the status is asked.
const LOOK: Duration = Duration::from_millis(200);
/// How long it may take: the keep-alive time-out, after which its peer takes over.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks, and waits for another run of the node that has found its place.
pub(super) fn restart(client: &Client, args: &MoveArgs, progress: &mut Progress) -> Result<Answer, Failure> {
    let node = args.node.as_str();
    let find = |status: &Status| status.nodes.iter().find(|known| known.name == node).cloned();
    let before = find(&client.status()?).map_or(0, |known| known.run);
    client.restart(node)?;
    let began = Instant::now();
    if args.no_wait {
        let text = format!("the restart of {node} has begun; `tandem status` tells when it is back\n");
        return Ok(Answer::new(text, json!({ "node": node, "action": "restart" })));
    }
    progress.show(format!("restart of {node}"));
    let back = loop {
        let known = client.status().ok().as_ref().and_then(find);
        match known {
            Some(known) if is_back(&known, before) => break Some(known),
            _ if began.elapsed() > PATIENCE => break None,
            _ => thread::sleep(LOOK),
        }
    };
    progress.end();
    let Some(known) = back else {
        let seconds = PATIENCE.as_secs();
        let error = format!("{node} was told to restart and is not back after {seconds} s");
        return Err(Failure::new(Exit::Refused, error, "see its log, and `tandem status` at the other node"));
    };
    let seconds = began.elapsed().as_secs_f64();
    let text = format!("{node} is back after {seconds:.1} s: {} / {}\n", known.state, known.reason);
    Ok(Answer::new(
        text,
        json!({ "node": node, "action": "restart", "state": known.state, "reason": known.reason }),
    ))
}

fn is_back(known: &NodeStatus, before: u64) -> bool {
    known.run != 0 && known.run != before && !matches!(known.state.as_str(), "Initializing" | "down")
}
