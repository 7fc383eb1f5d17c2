//! `tandem service` and `tandem recover`.

use serde_json::json;

use super::Client;
use super::args::{FailArgs, ServiceArgs};
use super::output::{Answer, Failure, Paint, table};
use crate::admin::{NodeStatus, ServiceAction, ServiceStatus};

/// Lists the services of both nodes.
pub(super) fn list(client: &Client) -> Result<Answer, Failure> {
    let status = client.status()?;
    let text = render(&status.nodes, Paint::stdout());
    let nodes = status.nodes.iter().map(|node| json!({ "node": node.name, "services": node.services }));
    Ok(Answer::new(text, json!({ "nodes": nodes.collect::<Vec<_>>() })))
}

pub(super) fn render(nodes: &[NodeStatus], paint: Paint) -> String {
    let mut rows = Vec::new();
    for node in nodes {
        if node.services.is_empty() {
            rows.push(vec![paint.bold(&node.name), "?".into(), String::new(), "it does not tell".into()]);
        }
        rows.extend(node.services.iter().map(|service| line(node, service, paint)));
    }
    table(&rows, &[]).join("\n") + "\n"
}

fn line(node: &NodeStatus, service: &ServiceStatus, paint: Paint) -> Vec<String> {
    let state = match (service.state.as_str(), service.critical) {
        ("running", _) => paint.green("running"),
        (state, true) => paint.red(state),
        (state, false) => paint.yellow(state),
    };
    let mut told = format!("for {} s", service.seconds);
    if service.restarts > 0 {
        told += &format!(", started again {} times", service.restarts);
    }
    if !service.why.is_empty() {
        told += &format!("; {}", service.why);
    }
    if !service.critical {
        told += "; not critical";
    }
    vec![paint.bold(&node.name), service.name.clone(), state, paint.dim(&told)]
}

pub(super) fn act(client: &Client, args: &ServiceArgs, action: ServiceAction) -> Result<Answer, Failure> {
    let node = match &args.node {
        Some(node) => node.clone(),
        None => this(client)?,
    };
    client.service(&node, &args.service, action)?;
    let done = match action {
        ServiceAction::Start => "was started",
        ServiceAction::Stop => "is stopped",
        ServiceAction::Restart => "was restarted",
        ServiceAction::Fail { .. } => "was made to fail",
    };
    let text = format!("{} of {node} {done}; `tandem service list` shows all\n", args.service);
    Ok(Answer::new(text, json!({ "node": node, "service": args.service, "action": action.name() })))
}

pub(super) fn fail(client: &Client, args: &FailArgs) -> Result<Answer, Failure> {
    let seconds = args.seconds.as_secs();
    act(client, &args.service, ServiceAction::Fail { seconds })
}

/// The node that answers.
fn this(client: &Client) -> Result<String, Failure> {
    let nodes = client.status()?.nodes;
    Ok(nodes.into_iter().find(|node| node.local).map(|node| node.name).unwrap_or_default())
}

/// Ends the failed mode of both nodes.
pub(super) fn recover(client: &Client) -> Result<Answer, Failure> {
    client.recover()?;
    let text = "both nodes begin anew, and start what is down; `tandem status` shows where they are\n";
    Ok(Answer::new(text.to_owned(), json!({ "action": "recover" })))
}
