//! `tandem group`, `tandem ha`, `tandem assign` and `tandem rebalance`.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Client;
use super::group_args::{AssignArgs, GroupCommand, HaCommand, RebalanceArgs};
use super::output::{Answer, Exit, Failure, Paint, Progress, table, users};
use crate::admin::{CheckShown, GroupShown, Status};

/// How often the status is asked.
const LOOK: Duration = Duration::from_millis(200);
/// How long no answer and no movement may be seen.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) fn group(command: &GroupCommand) -> Result<Answer, Failure> {
    let shown = match command {
        GroupCommand::Show(args) => Client::find(&args.client)?.group()?,
        GroupCommand::Create(args) => {
            Client::find(&args.client)?.group_create(&args.name, &args.description)?
        }
        GroupCommand::Edit(args) => {
            Client::find(&args.client)?.group_edit(args.name.as_deref(), args.description.as_deref())?
        }
        GroupCommand::Delete(args) => Client::find(&args.client)?.group_delete()?,
    };
    Ok(answer(&shown))
}

fn answer(shown: &GroupShown) -> Answer {
    Answer::new(render(shown, Paint::stdout()), json!({ "group": shown }))
}

pub(super) fn render(group: &GroupShown, paint: Paint) -> String {
    if group.name.is_empty() {
        return "the nodes are in no group; make one with `tandem group create NAME`\n".to_owned();
    }
    let mut text = format!("group {}", paint.bold(&group.name));
    if !group.description.is_empty() {
        text += &format!(" ({})", group.description);
    }
    let ha = if group.high_availability { paint.green("enabled") } else { paint.yellow("not enabled") };
    text += &format!("\nhigh availability: {ha}\nusers are assigned: {}\n\n", group.assignment);
    let head = ["node", "state", "reason", "users", "version"].map(|name| paint.dim(name));
    let mut rows = vec![head.to_vec()];
    for node in &group.nodes {
        let version = if node.version.is_empty() { "?".to_owned() } else { node.version.clone() };
        let (state, reason) = (node.state.clone(), node.reason.clone());
        rows.push(vec![node.name.clone(), state, reason, node.users.to_string(), version]);
    }
    text += &(table(&rows, &[3]).join("\n") + "\n");
    if group.unassigned > 0 {
        text += &format!("{} not assigned: see `tandem user list --unassigned`\n", users(group.unassigned));
    }
    if !group.high_availability {
        text += &format!("\nbefore high availability is enabled:\n{}", checks(&group.checks, paint));
    }
    text
}

pub(super) fn checks(checks: &[CheckShown], paint: Paint) -> String {
    let line = |check: &CheckShown| {
        let (mark, told) = match (check.well, check.needed) {
            (true, _) => (paint.green("well"), String::new()),
            (false, true) => (paint.red("failed"), format!("{}: {}", check.error, check.hint)),
            (false, false) => (paint.yellow("look"), format!("{}: {}", check.error, check.hint)),
        };
        vec![mark, check.what.clone(), told]
    };
    table(&checks.iter().map(line).collect::<Vec<_>>(), &[]).join("\n") + "\n"
}

pub(super) fn ha(command: &HaCommand) -> Result<Answer, Failure> {
    match command {
        HaCommand::Enable(args) => {
            let client = Client::find(&args.client)?;
            let looked = client.group()?.checks;
            match client.ha(true, false) {
                Ok(shown) => {
                    let paint = Paint::stdout();
                    let text = format!(
                        "{}high availability is {}\n",
                        checks(&looked, paint),
                        paint.green("enabled")
                    );
                    Ok(Answer::new(text, json!({ "group": shown, "checks": looked })))
                }
                Err(mut failure) => {
                    failure.more = json!({ "checks": looked });
                    Err(failure)
                }
            }
        }
        HaCommand::Disable(args) => {
            let shown = Client::find(&args.client)?.ha(false, args.force)?;
            let text = "high availability is disabled: if a node dies, its users wait for it\n".to_owned();
            Ok(Answer::new(text, json!({ "group": shown })))
        }
    }
}

pub(super) fn assign(args: &AssignArgs) -> Result<Answer, Failure> {
    let user = Client::find(&args.client)?.assign(&args.user, args.node.as_deref())?;
    let text = match &args.node {
        Some(node) => format!("{user} is assigned to {node}\n"),
        None => format!("{user} is not assigned; nobody logs in\n"),
    };
    Ok(Answer::new(text, json!({ "user": user, "home": args.node })))
}

pub(super) fn rebalance(args: &RebalanceArgs, progress: &mut Progress) -> Result<Answer, Failure> {
    let client = Client::find(&args.client)?;
    let begun = client.rebalance()?;
    let began = Instant::now();
    if args.no_wait {
        let left_out = client.group().map(|group| left_out(&group)).unwrap_or_default();
        let text = format!("the rebalance has begun; `tandem status` tells how far it is\n{left_out}");
        return Ok(Answer::new(text, json!({ "moving": begun })));
    }
    progress.show(format!("rebalance: {} to move", users(begun.left)));
    let ended = wait(&client, progress);
    progress.end();
    ended?;
    let group = client.group()?;
    let spread: Vec<String> =
        group.nodes.iter().map(|node| format!("{}: {}\n", node.name, users(node.users))).collect();
    let seconds = began.elapsed().as_secs_f64();
    let (spread, left_out) = (spread.concat(), left_out(&group));
    let text = format!("the rebalance is complete after {seconds:.1} s\n{spread}{left_out}");
    Ok(Answer::new(text, json!({ "group": group })))
}

/// Who is assigned to no node is so by the operator's word, or by `user_assignment_mode = "none"`: nobody's share.
pub(super) fn left_out(group: &GroupShown) -> String {
    let (are, stay) = if group.unassigned == 1 { ("is", "stays") } else { ("are", "stay") };
    match group.unassigned {
        0 => String::new(),
        n => format!("{} {are} assigned to no node, and {stay} so: `tandem assign USER NODE`\n", users(n)),
    }
}

/// Until nobody is on the way: the answer comes from the node that moves them, or from its peer.
fn wait(client: &Client, progress: &mut Progress) -> Result<(), Failure> {
    let mut seen = (Instant::now(), 0);
    loop {
        let left = match client.status() {
            Ok(Status { moving: Some(moving), .. }) => moving.left,
            Ok(_) => client.group().map(|group| surplus(&group))?,
            Err(failure) if seen.0.elapsed() > PATIENCE => return Err(failure),
            Err(_) => seen.1,
        };
        if left == 0 {
            return Ok(());
        }
        if left != seen.1 {
            seen = (Instant::now(), left);
        }
        if seen.0.elapsed() > PATIENCE {
            let error = format!("the rebalance stands still: {} left", users(left));
            return Err(Failure::new(Exit::Refused, error, "see `tandem status` on both nodes"));
        }
        progress.show(format!("rebalance: {} left", users(left)));
        thread::sleep(LOOK);
    }
}

/// Users that one node has more than its share.
fn surplus(group: &GroupShown) -> u64 {
    match (group.assignment.as_str(), group.nodes.as_slice()) {
        ("balanced", [a, b]) => a.users.abs_diff(b.users) / 2,
        ("active-standby", [_, b]) => b.users,
        _ => 0,
    }
}
