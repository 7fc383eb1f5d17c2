//! `tandem failover` and `tandem fallback`: begins it, then waits until it is complete.

use std::io::{self, BufRead, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Client;
use super::args::{FailoverArgs, MoveArgs};
use super::output::{Answer, Exit, Failure, Progress, users};
use crate::admin::{Refusal, Status};

/// How often the status is asked.
const LOOK: Duration = Duration::from_millis(200);
/// How long neither an answer nor any movement may be seen before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Failover,
    Fallback,
}

/// How it stands.
#[derive(Debug, PartialEq, Eq)]
enum Stand {
    /// It goes on.
    Moving,
    /// It is complete.
    Complete,
    /// It ended in failed mode.
    Failed,
    /// The states are not those of something that goes on, or of its end.
    Elsewhere,
}

/// Moves the users of the node to its peer. Whoever sits at a terminal is asked first.
pub(super) fn failover(
    client: &Client,
    args: &FailoverArgs,
    progress: &mut Progress,
) -> Result<Answer, Failure> {
    let (input, mut prompt) = (io::stdin(), io::stderr());
    if !args.yes && input.is_terminal() && prompt.is_terminal() {
        confirm(&client.status()?, &args.action.node, &mut input.lock(), &mut prompt)?;
    }
    act(client, &args.action, Action::Failover, progress)
}

/// Says what a failover of the node moves, and how far its peer is behind.
fn confirm(
    status: &Status,
    node: &str,
    input: &mut dyn BufRead,
    prompt: &mut dyn Write,
) -> Result<(), Failure> {
    let find = |there: bool| status.nodes.iter().find(|known| (known.name == node) == there);
    // Without both nodes there is nothing to ask: why it is refused is said by the node.
    let (Some(from), Some(to)) = (find(true), find(false)) else { return Ok(()) };
    let behind = match from.log.own_end.saturating_sub(from.log.acked_by_peer) {
        0 => format!("{} has acknowledged all of its log", to.name),
        1 => format!("{} has not acknowledged the last frame of its log", to.name),
        frames => format!("{} has not acknowledged the last {frames} frames of its log", to.name),
    };
    let sessions = match from.counters.jsm_sessions_client {
        1 => "1 client session".to_owned(),
        number => format!("{number} client sessions"),
    };
    let moved = users(from.counters.active_jsm_sessions);
    let _ =
        write!(prompt, "{moved} with {sessions} move from {node} to {}.\n{behind}.\nGo on? [y/N] ", to.name);
    let _ = prompt.flush();
    let mut line = String::new();
    let read = input.read_line(&mut line);
    read.map_err(|error| Failure::new(Exit::Environment, format!("nothing can be read: {error}"), ""))?;
    if matches!(line.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    let error = format!("failover of {node} is not confirmed: nothing was done");
    Err(Failure::new(Exit::Usage, error, "answer y, or give --yes"))
}

/// Moves the users of the node back to it.
pub(super) fn fallback(client: &Client, args: &MoveArgs, progress: &mut Progress) -> Result<Answer, Failure> {
    act(client, args, Action::Fallback, progress)
}

fn act(client: &Client, args: &MoveArgs, action: Action, progress: &mut Progress) -> Result<Answer, Failure> {
    let node = args.node.as_str();
    let begun = client.begin(action.name(), node)?;
    let began = Instant::now();
    if args.no_wait {
        let text = format!("{} has begun; `tandem status` tells how far it is\n", action.of(node));
        return Ok(Answer::new(text, json!({ "node": node, "action": action.name(), "moving": begun })));
    }
    progress.show(format!("{}: {} to move", action.of(node), users(begun.left)));
    let ended = wait(client, node, action, progress);
    progress.end();
    let status = ended?;
    let seconds = began.elapsed().as_secs_f64();
    let text = format!("{} is complete after {seconds:.1} s\n{}", action.of(node), states(&status));
    Ok(Answer::new(text, json!({ "node": node, "action": action.name(), "status": status })))
}

fn wait(client: &Client, node: &str, action: Action, progress: &mut Progress) -> Result<Status, Failure> {
    let mut moved = Instant::now();
    loop {
        let looked = client.status();
        let late = moved.elapsed() > PATIENCE;
        match looked {
            Ok(status) => match action.stand(node, &status) {
                Stand::Complete => return Ok(status),
                Stand::Failed => return Err(ended(node, action, &status)),
                Stand::Elsewhere if late => return Err(ended(node, action, &status)),
                Stand::Elsewhere => {}
                Stand::Moving => {
                    moved = Instant::now();
                    if let Some(moving) = &status.moving {
                        let left = users(moving.left);
                        progress.show(format!("{}: {left} left, {} moved", action.of(node), moving.done));
                    }
                }
            },
            Err(mut failure) if late => {
                let hint = format!("{} may go on: ask the other node for its status", action.of(node));
                failure.refusal.hint = hint;
                return Err(failure);
            }
            Err(_) => {}
        }
        thread::sleep(LOOK);
    }
}

/// It stopped elsewhere than where it should have.
fn ended(node: &str, action: Action, status: &Status) -> Failure {
    let (state, reason) = match status.nodes.iter().find(|known| known.name == node) {
        Some(node) => (node.state.clone(), node.reason.clone()),
        None => ("Unknown".into(), "Unknown".into()),
    };
    let hint = if status.action.is_empty() { "see `tandem status`".into() } else { status.action.clone() };
    let refusal = Refusal { error: format!("{} is not complete", action.of(node)), state, reason, hint };
    Failure { exit: Exit::Refused, refusal, more: json!({ "status": status }) }
}

fn states(status: &Status) -> String {
    status.nodes.iter().map(|node| format!("{}: {} / {}\n", node.name, node.state, node.reason)).collect()
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Failover => "failover",
            Action::Fallback => "fallback",
        }
    }

    fn of(self, node: &str) -> String {
        match self {
            Action::Failover => format!("failover of {node}"),
            Action::Fallback => format!("fallback to {node}"),
        }
    }

    fn stand(self, node: &str, status: &Status) -> Stand {
        const MOVING: [&str; 5] =
            ["Failing Over", "Taking Over", "Taking Back", "Falling Back", "Initializing"];
        let state =
            |name: &str| status.nodes.iter().find(|node| node.name == name).map(|node| node.state.as_str());
        if status.nodes.iter().any(|node| node.state == "Running in Failed Mode") {
            return Stand::Failed;
        }
        if status.moving.is_some() || status.nodes.iter().any(|node| MOVING.contains(&node.state.as_str())) {
            return Stand::Moving;
        }
        let complete = match self {
            Action::Failover => matches!(state(node), Some("Idle" | "Failed Over")),
            Action::Fallback => status.nodes.iter().all(|node| node.state == "Normal"),
        };
        if complete { Stand::Complete } else { Stand::Elsewhere }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{CountersStatus, LogStatus, NodeStatus};

    fn node(name: &str, own_end: u64) -> NodeStatus {
        let counters =
            CountersStatus { jsm_sessions_client: 4, active_jsm_sessions: 3, ..CountersStatus::default() };
        let log = LogStatus { own_end, acked_by_peer: 10, received: 0 };
        NodeStatus { name: name.to_owned(), counters, log, ..NodeStatus::default() }
    }

    fn asked(own_end: u64, answer: &str) -> (String, Result<(), String>) {
        let status = Status { nodes: vec![node("a", own_end), node("b", 90)], ..Status::default() };
        let mut prompt = Vec::new();
        let told = confirm(&status, "a", &mut answer.as_bytes(), &mut prompt);
        (String::from_utf8(prompt).unwrap(), told.map_err(|failure| failure.refusal.error))
    }

    #[test]
    fn who_is_asked_is_told_what_moves_and_what_the_peer_lacks() {
        let (prompt, told) = asked(12, "y\n");
        let lines = [
            "3 users with 4 client sessions move from a to b.",
            "b has not acknowledged the last 2 frames of its log.",
            "Go on? [y/N] ",
        ];
        assert_eq!(prompt, lines.join("\n"));
        assert_eq!(told, Ok(()));
        assert!(asked(10, "yes\n").0.contains("b has acknowledged all of its log.\n"));
    }

    #[test]
    fn anything_but_yes_does_nothing() {
        for answer in ["", "\n", "n\n", "a\n"] {
            assert_eq!(asked(10, answer).1, Err("failover of a is not confirmed: nothing was done".into()));
        }
    }
}
