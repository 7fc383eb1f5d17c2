//! `tandem status`: what a tired person reads in two seconds.

use serde_json::Value;

use super::Client;
use super::output::{Answer, Failure, Paint, table, users};
use crate::admin::{GroupStatus, NodeStatus, Status};

/// Asks and shows it.
pub(super) fn status(client: &Client) -> Result<Answer, Failure> {
    let status = client.status()?;
    let json = serde_json::to_value(&status).unwrap_or(Value::Null);
    Ok(Answer::new(render(&status, Paint::stdout()), json))
}

/// One line for each node, what to do, alarms; then the numbers.
pub(super) fn render(status: &Status, paint: Paint) -> String {
    let nodes: Vec<Vec<String>> = status.nodes.iter().map(|node| node_line(node, paint)).collect();
    let mut lines = table(&nodes, &[]);
    if let Some(moving) = &status.moving {
        let text = format!("{}: {} left, {} moved", moving.what, users(moving.left), moving.done);
        lines.push(paint.yellow(&text));
    }
    lines.push(String::new());
    lines.extend(status.alarms.iter().map(|alarm| format!("{} {alarm}", paint.red("ALARM"))));
    let told = |text: &str| !matches!(text, "" | "-" | "–");
    match (told(&status.action), told(&status.cause)) {
        (true, cause) => {
            lines.push(format!("{} {}", paint.bold("TO DO"), status.action));
            lines.extend(cause.then(|| format!("{}   {}", paint.dim("why"), status.cause)));
        }
        // An alarm is something to do, whatever the states of the nodes.
        _ if !status.alarms.is_empty() => {}
        (false, true) => lines.push(format!("Nothing to do: {}.", status.cause)),
        (false, false) => lines.push("Nothing to do.".to_owned()),
    }
    lines.extend(offered(status).map(|commands| format!("{} {commands}", paint.dim("offered"))));
    lines.push(String::new());
    lines.extend(numbers(status, paint));
    lines.join("\n") + "\n"
}

/// What is not refused now, as commands.
fn offered(status: &Status) -> Option<String> {
    let mut commands: Vec<String> = Vec::new();
    for node in &status.nodes {
        for action in &node.offered {
            // It is of both nodes.
            let of = if action == "recover" { String::new() } else { format!(" {}", node.name) };
            let command = format!("`tandem {action}{of}`");
            if !commands.contains(&command) {
                commands.push(command);
            }
        }
    }
    (!commands.is_empty()).then(|| commands.join(", "))
}

fn node_line(node: &NodeStatus, paint: Paint) -> Vec<String> {
    let state = match node.state.as_str() {
        "Normal" => paint.green(&node.state),
        "down" | "Unknown" | "Running in Failed Mode" | "Failed Over with Critical Services Not Running" => {
            paint.red(&node.state)
        }
        _ => paint.yellow(&node.state),
    };
    // Normal / Normal says it twice, and a node that is down says nothing.
    let told = node.reason != node.state && !(node.state == "down" && node.reason == "Unknown");
    let reason = if told { node.reason.clone() } else { String::new() };
    vec![paint.bold(&node.name), state, reason, paint.dim(&heard(node))]
}

fn heard(node: &NodeStatus) -> String {
    match node.heard_ms {
        _ if node.local => "this node".to_owned(),
        None => "never heard".to_owned(),
        Some(ms) if ms < 3_000 && node.state != "down" => "heard now".to_owned(),
        Some(ms) => format!("last heard {} ago", span(ms / 1_000)),
    }
}

/// Seconds as a person says them.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A column for each node. What a node that is down would say is not known.
fn numbers(status: &Status, paint: Paint) -> Vec<String> {
    type Number = fn(&NodeStatus) -> u64;
    const ROWS: [(&str, Number); 7] = [
        ("JsmSessionsClient", |node| node.counters.jsm_sessions_client),
        ("JsmSessionsClientInactive", |node| node.counters.jsm_sessions_client_inactive),
        ("JsmSessionsComposed", |node| node.counters.jsm_sessions_composed),
        ("ActiveJsmSessions", |node| node.counters.active_jsm_sessions),
        ("InactiveJsmSessions", |node| node.counters.inactive_jsm_sessions),
        ("log: frames written", |node| node.log.own_end),
        ("log: not yet at the peer", |node| node.log.own_end.saturating_sub(node.log.acked_by_peer)),
    ];
    let cells = |name: &str, cell: &dyn Fn(&NodeStatus) -> String| {
        std::iter::once(name.to_owned()).chain(status.nodes.iter().map(cell)).collect::<Vec<_>>()
    };
    let mut rows = vec![cells(&status.domain, &|node| paint.bold(&node.name))];
    for (name, number) in ROWS {
        let known =
            |node: &NodeStatus| if node.state == "down" { "?".into() } else { number(node).to_string() };
        rows.push(cells(name, &known));
    }
    rows.push(cells("users at home here", &|node| node.homed.to_string()));
    let group = |node: &NodeStatus| status.groups.iter().find(|group| group.home == node.name);
    let of_group = |node: &NodeStatus, show: fn(&GroupStatus) -> String| group(node).map_or("?".into(), show);
    if !status.groups.is_empty() {
        let server = |group: &GroupStatus| {
            if group.primary.is_empty() { "nobody".into() } else { group.primary.clone() }
        };
        rows.push(cells("  group led by", &|node| of_group(node, server)));
        rows.push(cells("  group mode", &|node| of_group(node, |group| group.mode.clone())));
        rows.push(cells("  group term", &|node| of_group(node, |group| group.term.to_string())));
    }
    for home in &status.nodes {
        let role = |node: &NodeStatus| node.roles.get(&home.name).cloned();
        if status.nodes.iter().any(|node| role(node).is_some()) {
            let name = format!("role for users of {}", home.name);
            rows.push(cells(&name, &|node| role(node).unwrap_or_else(|| "?".to_owned())));
        }
    }
    let right: Vec<usize> = (1..=status.nodes.len()).collect();
    let mut lines = table(&rows, &right);
    lines.extend(status.witness.iter().map(|witness| format!("witness: {witness}")));
    lines
}
