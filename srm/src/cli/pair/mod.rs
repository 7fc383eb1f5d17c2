//! `tandem pair` and `tandem unpair`: a node gets a peer, and is parted from it. Each looks first and changes nothing if a
//! check fails; each step is done only if it is not done yet, so that whoever is interrupted says the same again.

mod checks;
mod far;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Signal, getpid, kill_process};
use serde_json::json;

use super::Client;
use super::args::{ClientArgs, MoveArgs, StopArgs};
use super::group::checks as shown;
use super::output::{Answer, Exit, Failure, Paint, Progress, users};
use super::setup_args::{PairArgs, UnpairArgs};
use super::{restart, stop};
use crate::admin::{CheckShown, GroupShown, Status, UserStatus};
use crate::config::{self, Config};
use crate::setup::SetupError;
use crate::setup::join;

/// How often the status is asked.
const LOOK: Duration = Duration::from_millis(200);
/// How long nothing may move.
const PATIENCE: Duration = Duration::from_secs(120);

/// Gives the node its peer, and waits until both serve their users.
pub(super) fn pair(args: &PairArgs, progress: &mut Progress) -> Result<Answer, Failure> {
    let file = config::find(args.client.config.as_deref()).map_err(|error| Failure::environment(&error))?;
    let client = Client::find(&args.client)?;
    let change = join::with_peer(&file, &args.dir).map_err(|error| unfit("files", &error))?;
    let here = change.config.node.name.as_str();
    let peer = change.config.peer.as_ref().map(|peer| peer.name.clone()).unwrap_or_default();
    let status = client.status()?;
    is_of_this_file(&status, here, &file)?;
    let looked = match status.nodes.iter().find(|node| node.name != here) {
        // It was begun before.
        Some(known) if known.name == peer => Vec::new(),
        Some(known) => {
            let error = format!("{here} has a peer already: {}", known.name);
            return Err(Failure::new(
                Exit::Refused,
                error,
                format!("part them first: `tandem unpair {}`", known.name),
            ));
        }
        None => {
            progress.show("looking at both nodes".to_owned());
            let looked = checks::all(&change, &status, now_ms);
            progress.end();
            first_failed(&looked, &format!("tandem pair {}", args.dir.display()))?;
            ended_here("checked");
            change.write().map_err(|error| unfit("files", &error))?;
            ended_here("written");
            begin_anew(&client, here, &args.client, progress)?;
            looked
        }
    };
    ended_here("restarted");
    let group = paired(&client, &peer, progress)?;
    let text = format!(
        "{}{here} and {peer} are a pair: each serves its users, and is the other's standby\n",
        shown(&looked, Paint::stdout())
    );
    Ok(Answer::new(text, json!({ "node": here, "peer": peer, "checks": looked, "group": group })))
}

/// Parts the node that answers from its peer, and waits until it serves all users alone.
pub(super) fn unpair(args: &UnpairArgs, progress: &mut Progress) -> Result<Answer, Failure> {
    let file = config::find(args.client.config.as_deref()).map_err(|error| Failure::environment(&error))?;
    let client = Client::find(&args.client)?;
    let change = join::without_peer(&file).map_err(|error| unfit("files", &error))?;
    let (here, peer) = (change.config.node.name.clone(), args.node.as_str());
    let status = client.status()?;
    is_of_this_file(&status, &here, &file)?;
    let alone = |text: &str| Answer::new(format!("{here} {text}\n"), json!({ "node": here, "left": peer }));
    match status.nodes.iter().find(|node| node.name != here) {
        None => {
            // A peer that stands there only would be served with from the next start on.
            if Config::load(&file).is_ok_and(|config| config.peer.is_some()) {
                change.write().map_err(|error| unfit("files", &error))?;
            }
            return Ok(alone("is alone: nothing is left to be done"));
        }
        Some(known) if known.name != peer => {
            let hint = format!("name the node that leaves: `tandem unpair {}`", known.name);
            return Err(Failure::new(
                Exit::Usage,
                format!("the peer of {here} is {}, not {peer}", known.name),
                hint,
            ));
        }
        Some(_) => {}
    }
    let looked = may_part(&client.group()?, &client.users()?, &status, &here, peer);
    first_failed(&looked, &format!("tandem unpair {peer}"))?;
    take_all(&client, &here, peer, progress)?;
    ended_here("assigned");
    if client.group()?.high_availability {
        client.ha(false, false)?;
    }
    ended_here("disabled");
    if client.status()?.nodes.iter().any(|node| node.name == peer && node.run != 0) {
        let (node, client_args) = (peer.to_owned(), args.client.clone());
        let stop = StopArgs { node, text: None, drain: None, no_wait: false, client: client_args };
        stop::stop(&client, &stop, progress)?;
    }
    ended_here("stopped");
    // From here on nobody can be given to it.
    let accounts = client.users()?;
    let stays = |user: &UserStatus| is_with(user, peer) || is_kept_by(user, &status, &here, peer);
    let left = accounts.iter().filter(|user| stays(user)).count() as u64;
    if left > 0 {
        let error = format!("{} came to {peer} meanwhile; {here} keeps its peer", users(left));
        return Err(Failure::new(
            Exit::Refused,
            error,
            format!("start {peer}, and say `tandem unpair {peer}` again"),
        ));
    }
    change.write().map_err(|error| unfit("files", &error))?;
    ended_here("parted");
    begin_anew(&client, &here, &args.client, progress)?;
    Ok(alone(&format!(
        "is alone, and serves all users. On the machine of {peer}: `systemctl disable tandem`, and remove its data folder, with \
         which it joins nobody any more"
    )))
}

/// What must be so before anything is changed.
fn may_part(
    group: &GroupShown,
    accounts: &[UserStatus],
    status: &Status,
    here: &str,
    peer: &str,
) -> Vec<CheckShown> {
    let mut checks = Vec::new();
    let mut check = |what: &str, well: bool, error: String, hint: String| {
        let (error, hint) = if well { Default::default() } else { (error, hint) };
        checks.push(CheckShown { what: what.to_owned(), well, needed: true, error, hint });
    };
    check(
        "names",
        here < peer,
        format!("{here} is behind {peer} in the alphabet, and what it holds is in that order"),
        format!("let the first one stay: `tandem unpair {here}`, on the machine of {peer}"),
    );
    let left = accounts.iter().filter(|user| is_with(user, peer)).count() as u64;
    let kept = accounts.iter().filter(|user| is_kept_by(user, status, here, peer)).count() as u64;
    let state =
        status.nodes.iter().find(|node| node.name == here).map_or("Unknown", |node| node.state.as_str());
    let at_home =
        status.moving.is_none() && status.groups.iter().all(|g| g.primary == g.home || g.home != here);
    check(
        "this node",
        at_home && state != "Initializing" && state != "Running in Failed Mode",
        format!("{here} does not serve its own users, or users are on the way: it is {state}"),
        format!("see `tandem status`; then `tandem fallback {here}`"),
    );
    // One that is gone and has nobody is not needed any more.
    if left + kept > 0 || group.high_availability {
        let replicates = ["connection", "replication"];
        let failed = group.checks.iter().find(|c| !c.well && replicates.contains(&c.what.as_str()));
        let (error, hint) = failed.map(|c| (c.error.clone(), c.hint.clone())).unwrap_or_default();
        let hint = format!(
            "{hint}; if {peer} is lost, give its files to a new machine first, and let that catch up"
        );
        let with = users(left + kept);
        check("the other node", failed.is_none(), format!("{with} are with {peer}: {error}"), hint);
    }
    let whose = if kept == 1 { "1 account is".to_owned() } else { format!("{kept} accounts are") };
    check(
        "assignment",
        kept == 0,
        format!("{whose} assigned to no node and kept by {peer}, and nobody else could assign them"),
        format!(
            "assign each: `tandem user list --unassigned`, `tandem assign USER {here}`; from there they may be assigned to none \
             again"
        ),
    );
    checks
}

/// An account that is assigned to no node is kept by one all the same, and only that can assign it. While the peer's users are
/// served here nobody can say by whom.
fn is_kept_by(user: &UserStatus, status: &Status, here: &str, peer: &str) -> bool {
    let away = status.groups.iter().any(|group| group.home == peer && group.primary == here);
    user.home.is_empty() && (user.owner == peer || away)
}

/// Whoever is assigned to a node, or is on the way from it.
fn is_with(user: &UserStatus, node: &str) -> bool {
    user.home == node || user.owner == node && !user.home.is_empty()
}

/// Assigns whoever is left, one after the other, and waits until all are served here: no setting is changed for it.
fn take_all(client: &Client, here: &str, peer: &str, progress: &mut Progress) -> Result<(), Failure> {
    let (mut seen, mut before) = (Instant::now(), usize::MAX);
    loop {
        let all = client.users()?;
        let theirs: Vec<&UserStatus> = all.iter().filter(|user| is_with(user, peer)).collect();
        if theirs.is_empty() {
            progress.end();
            return Ok(());
        }
        if theirs.len() < before {
            (seen, before) = (Instant::now(), theirs.len());
        }
        let mut refused = None;
        for (at, user) in theirs.iter().filter(|user| user.home == peer).enumerate() {
            progress.show(format!("{} of {} go to {here}", at + 1, users(theirs.len() as u64)));
            // Whoever is still on the way keeps the next one waiting.
            if let Err(failure) = client.assign(&user.user, Some(here)) {
                refused = Some(failure);
                break;
            }
            ended_here("assigning");
        }
        if seen.elapsed() > PATIENCE {
            progress.end();
            let error = format!("{} do not leave {peer}", users(theirs.len() as u64));
            let hint = "see `tandem status` on both nodes, and say it again";
            return Err(refused.unwrap_or_else(|| Failure::new(Exit::Refused, error, hint)));
        }
        thread::sleep(LOOK);
    }
}

/// Does what is left, whatever that is, until each node serves its own users and each is the other's standby.
fn paired(client: &Client, peer: &str, progress: &mut Progress) -> Result<GroupShown, Failure> {
    let (mut seen, mut before) = (Instant::now(), String::new());
    loop {
        let looked = client.status().and_then(|status| Ok((status, client.group()?)));
        let failed = match looked {
            Ok((status, group)) if is_paired(&status, &group) => {
                progress.end();
                return Ok(group);
            }
            Ok((status, group)) => {
                let far = where_it_is(&status, &group);
                if far != before {
                    (seen, before) = (Instant::now(), far);
                }
                progress.show(format!("until both nodes are well: {}", status.cause));
                go_on(client, &status, &group, peer).err()
            }
            Err(failure) => Some(failure),
        };
        if seen.elapsed() > PATIENCE {
            progress.end();
            let why = failed.map(|failure| format!(": {}", failure.refusal.error)).unwrap_or_default();
            let error = format!("the nodes are not a pair yet{why}");
            let hint = "see `tandem status` on both nodes, mend what it names, and say `tandem pair` again: it goes on where it is";
            return Err(Failure::new(Exit::Refused, error, hint));
        }
        thread::sleep(LOOK);
    }
}

/// The next step, if it is its time.
fn go_on(client: &Client, status: &Status, group: &GroupShown, peer: &str) -> Result<(), Failure> {
    if status.moving.is_some() {
        return Ok(());
    }
    let offered =
        |node: &crate::admin::NodeStatus| node.name == peer && node.offered.iter().any(|a| a == "fallback");
    if status.nodes.iter().any(offered) {
        return client.begin("fallback", peer).map(|_| ());
    }
    if !group.high_availability && group.checks.iter().all(|check| check.well || !check.needed) {
        return client.ha(true, false).map(|_| ());
    }
    match group.checks.iter().find(|check| check.needed && !check.well) {
        Some(check) => Err(Failure::new(
            Exit::Refused,
            format!("check of {}: {}", check.what, check.error),
            check.hint.clone(),
        )),
        None => Ok(()),
    }
}

fn is_paired(status: &Status, group: &GroupShown) -> bool {
    let normal = status.nodes.len() == 2 && status.nodes.iter().all(|node| node.state == "Normal");
    let led = status.groups.iter().all(|group| group.mode == "Pair" && group.primary == group.home);
    normal && led && status.moving.is_none() && group.high_availability
}

/// Whatever changes while it goes on.
fn where_it_is(status: &Status, group: &GroupShown) -> String {
    let logs: Vec<_> =
        status.nodes.iter().map(|node| (&node.state, node.log.received, node.log.acked_by_peer)).collect();
    let wrong: Vec<_> = group.checks.iter().filter(|check| !check.well).map(|check| &check.what).collect();
    format!("{logs:?} {wrong:?} {:?}", status.moving)
}

/// The node takes its new file. One that does not come back is asked for by the next try.
fn begin_anew(
    client: &Client,
    node: &str,
    args: &ClientArgs,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let restart = MoveArgs { node: node.to_owned(), no_wait: false, client: args.clone() };
    restart::restart(client, &restart, progress).map(|_| ())
}

/// The file is that of the node that answers: its settings are about to be changed.
fn is_of_this_file(status: &Status, name: &str, file: &Path) -> Result<(), Failure> {
    if status.nodes.iter().any(|node| node.local && node.name == name) {
        return Ok(());
    }
    let error = format!("{} is the file of {name}, and another node answers", file.display());
    Err(Failure::new(Exit::Usage, error, "say it on the machine of that node, with its own file: -c FILE"))
}

/// The first check that failed, by its name; nothing was changed.
fn first_failed(checks: &[CheckShown], again: &str) -> Result<(), Failure> {
    let mut failed = checks.iter().filter(|check| check.needed && !check.well);
    let Some(first) = failed.next() else { return Ok(()) };
    let others: Vec<&str> = failed.map(|check| check.what.as_str()).collect();
    let more = if others.is_empty() {
        String::new()
    } else {
        format!(" (and the checks of {} fail)", others.join(", "))
    };
    let error = format!("check of {}: {}{more}; nothing was changed", first.what, first.error);
    let failure = Failure::new(Exit::Refused, error, format!("{}; then say `{again}` again", first.hint));
    Err(Failure { more: json!({ "checks": checks }), ..failure })
}

fn unfit(what: &str, error: &SetupError) -> Failure {
    Failure { exit: Exit::Refused, ..Failure::environment(&format!("check of {what}: {error}")) }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// For tests: behind the step that `TANDEM_KILL_AT` names the command is killed, and behind that of `TANDEM_STOP_AT` it waits for
/// SIGCONT.
fn ended_here(step: &str) {
    for (name, signal) in [("TANDEM_KILL_AT", Signal::KILL), ("TANDEM_STOP_AT", Signal::STOP)] {
        if std::env::var(name).is_ok_and(|wanted| wanted.strip_prefix("pair.") == Some(step)) {
            let _ = kill_process(getpid(), signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{GroupStatus, NodeStatus};

    /// Nodes a and b, both well, without high availability; `primary` serves the users of b.
    fn status(primary: &str) -> Status {
        let node = NodeStatus { name: "a".to_owned(), state: "Normal".to_owned(), ..NodeStatus::default() };
        let group = |home: &str, primary: &str| GroupStatus {
            home: home.to_owned(),
            primary: primary.to_owned(),
            ..GroupStatus::default()
        };
        let groups = vec![group("a", "a"), group("b", primary)];
        Status { nodes: vec![node], groups, ..Status::default() }
    }

    fn account(home: &str, owner: &str) -> UserStatus {
        UserStatus { home: home.to_owned(), owner: owner.to_owned(), ..UserStatus::default() }
    }

    /// The checks that keep a from being parted from b, with what they say.
    fn wrong(accounts: &[UserStatus], primary: &str) -> Vec<(String, String)> {
        let looked = may_part(&GroupShown::default(), accounts, &status(primary), "a", "b");
        let failed = looked.into_iter().filter(|check| check.needed && !check.well);
        failed.map(|check| (check.what, check.error + "; " + &check.hint)).collect()
    }

    /// Only the node that keeps it can assign it: without that it would be nobody's, for good.
    #[test]
    fn nobody_is_parted_from_a_node_that_keeps_an_account_of_no_node() {
        assert!(wrong(&[account("a", "a"), account("", "a")], "b").is_empty());
        let failed = wrong(&[account("", "a"), account("", "b")], "b");
        let [(what, said)] = &failed[..] else { panic!("{failed:?}") };
        assert_eq!(what, "assignment");
        assert!(said.starts_with("1 account is assigned to no node and kept by b, "), "{said}");
        assert!(said.contains("`tandem user list --unassigned`, `tandem assign USER a`"), "{said}");
        let failed = wrong(&[account("", "b"), account("", "b")], "b");
        assert!(matches!(&failed[..], [(_, said)] if said.starts_with("2 accounts are ")), "{failed:?}");
        // Whoever is assigned goes with the others.
        assert!(wrong(&[account("b", "b")], "b").is_empty());
    }

    #[test]
    fn of_accounts_of_no_node_none_is_left_behind_while_the_users_of_the_peer_are_served_here() {
        let failed = wrong(&[account("", "a")], "a");
        assert!(matches!(&failed[..], [(what, _)] if what == "assignment"), "{failed:?}");
        assert!(wrong(&[account("a", "a")], "a").is_empty());
    }
}
