//! `tandem stop`: has a node stopped, and waits until it is.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Client;
use super::args::StopArgs;
use super::output::{Answer, Exit, Failure, Progress};
use crate::admin::Stop;

/// How often the status is asked.
const LOOK: Duration = Duration::from_millis(200);
/// So many looks in a row that show it gone are believed.
const LOOKS: u32 = 3;
/// How long it may take when all clients have left: the time of a hand-over, and more.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks, and waits until the node does not answer any more, or its peer does not hear it.
pub(super) fn stop(client: &Client, args: &StopArgs, progress: &mut Progress) -> Result<Answer, Failure> {
    let node = args.node.as_str();
    let local = client.status()?.nodes.iter().any(|known| known.name == node && known.local);
    let drain_s = args.drain.map(|time| time.as_secs());
    let stopped = client.stop(node, &Stop { text: args.text.clone(), drain_s })?;
    let answer = |text: String, done: bool| {
        let json = json!({
            "node": node, "action": "stop", "done": done, "hands_over": stopped.hands_over, "streams": stopped.streams,
        });
        Answer::new(text, json)
    };
    let how = match (stopped.hands_over, args.drain) {
        (true, _) => format!("{node} hands its users over and stops"),
        (false, None) => format!("{node} stops; streams that are told so: {}", stopped.streams),
        (false, Some(_)) => {
            format!("{node} lets nobody log in any more, and waits for {} streams to end", stopped.streams)
        }
    };
    if args.no_wait {
        return Ok(answer(format!("{how}\n"), false));
    }
    progress.show(how);
    let (began, patience) = (Instant::now(), PATIENCE + args.drain.unwrap_or_default());
    let mut looks = 0;
    let gone = loop {
        looks = if is_gone(client, node, local) { looks + 1 } else { 0 };
        // An answer may be late once.
        if looks == LOOKS {
            break true;
        }
        if began.elapsed() > patience {
            break false;
        }
        thread::sleep(LOOK);
    };
    progress.end();
    if !gone {
        let error = format!("{node} was told to stop and is still there after {} s", patience.as_secs());
        return Err(Failure::new(Exit::Refused, error, "see its log, and `tandem status`"));
    }
    Ok(answer(format!("{node} has stopped after {:.1} s\n", began.elapsed().as_secs_f64()), true))
}

/// Nothing listens where the node itself was asked, or its peer holds it to be gone. One that is there and does not say how
/// it is has yet to stop.
fn is_gone(client: &Client, node: &str, local: bool) -> bool {
    match client.status() {
        Err(_) => local && client.is_refused(),
        Ok(status) => {
            let known = status.nodes.iter().find(|known| known.name == node);
            !local && known.is_some_and(|known| known.run == 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Pair;
    use super::*;

    #[test]
    fn a_node_that_does_not_say_how_it_is_has_not_stopped_and_one_that_is_gone_has() {
        let pair = Pair::start();
        let client = pair.client();
        pair.fake.falls_silent();
        assert!(client.status().is_err() && !is_gone(&client, "a", true));
        // Its port is closed with its process.
        drop(pair);
        assert!(is_gone(&client, "a", true));
        assert!(!is_gone(&client, "b", false), "that was not b");
    }
}
