//! `tandem init`: makes what a node or a pair needs.

use serde_json::json;

use super::output::{Answer, Exit, Failure};
use super::setup_args::InitArgs;
use crate::setup::{Made, Plan, SetupError};

/// Makes it, and says what to do next.
pub(super) fn init(args: &InitArgs) -> Result<Answer, Failure> {
    let names: Vec<&str> = args.nodes.iter().map(|(name, _)| name.as_str()).collect();
    let plan = match args.nodes.as_slice() {
        [(a, _), (b, _)] if a.eq_ignore_ascii_case(b) => {
            return Err(Failure::new(
                Exit::Usage,
                format!("both nodes are named {b}"),
                "give each its own name",
            ));
        }
        [(_, one), (_, other)] if one == other => {
            let local = Plan::local(&args.domain, &args.out, &names).map_err(|error| failed(&error))?;
            let mut plan = local;
            plan.nodes.iter_mut().for_each(|node| node.host.clone_from(one));
            plan
        }
        [_] | [_, _] => Plan::remote(&args.domain, &args.out, &args.nodes),
        _ => return Err(Failure::new(Exit::Usage, "there are more than two nodes", "name one or two")),
    };
    let plan = match &args.data {
        Some(data) => plan.set("node.data", data.as_str()),
        None => plan,
    };
    let local = matches!(args.nodes.as_slice(), [(_, one), (_, other)] if one == other);
    let pair = args.nodes.len() == 2;
    let plan = match &args.witness {
        None if args.etcd.is_empty() => plan,
        None if pair => plan.etcd(&args.etcd),
        None => {
            return Err(Failure::new(
                Exit::Usage,
                "an etcd is of use to two nodes only",
                "name a second node",
            ));
        }
        Some(_) if !pair => {
            return Err(Failure::new(
                Exit::Usage,
                "a witness is of use to two nodes only",
                "name a second node",
            ));
        }
        Some(host) if local && *host == args.nodes[0].1 => {
            let mut plan = plan.local_witness().map_err(|error| failed(&error))?;
            plan.witness.iter_mut().for_each(|witness| witness.host.clone_from(host));
            plan
        }
        Some(host) => plan.remote_witness(host),
    };
    let made = plan.make().map_err(|error| failed(&error))?;
    Ok(Answer::new(text(args, &made), json(&made)))
}

fn failed(error: &SetupError) -> Failure {
    let exit = match error {
        SetupError::Config(_) | SetupError::Certificate { .. } => Exit::Usage,
        _ => Exit::Environment,
    };
    Failure { exit, ..Failure::environment(error) }
}

fn text(args: &InitArgs, made: &Made) -> String {
    let dir = args.out.display();
    let mut text = format!("made in {dir}:\n");
    for node in &made.nodes {
        text.push_str(&format!("  {}/  all of node {}\n", node.name, node.name));
    }
    if made.witness.is_some() {
        text.push_str("  witness/  all of the witness\n");
    }
    text.push_str("  ca/  the authority: clients trust ca.pem; keep ca.key off the nodes\n\nnext:\n");
    let apart = args.nodes.iter().any(|(_, host)| *host != args.nodes[0].1);
    if apart {
        text.push_str("  copy each node's directory to its machine, then start it there:\n");
    }
    if let Some(witness) = &made.witness {
        text.push_str(&format!("  tandem witness -c {}\n", witness.display()));
    }
    if !args.etcd.is_empty() {
        text.push_str("  have etcd trust ca/ca.pem for its clients, or name its own authority and certificates in [etcd]\n");
    }
    for node in &made.nodes {
        text.push_str(&format!("  tandem serve -c {}\n", node.config.display()));
    }
    let first = made.nodes.first().map(|node| node.config.display().to_string()).unwrap_or_default();
    text.push_str(&format!("  tandem user add anna -c {first}\n"));
    text
}

fn json(made: &Made) -> serde_json::Value {
    let nodes = made.nodes.iter().map(|node| {
        json!({
            "name": node.name,
            "config": node.config,
            "c2s": node.c2s.to_string(),
            "c2s_tls": node.c2s_tls.to_string(),
            "admin": node.admin.to_string(),
        })
    });
    json!({ "ca": made.ca, "nodes": nodes.collect::<Vec<_>>(), "witness": made.witness })
}
