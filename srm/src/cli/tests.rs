//! Commands against a real API with a make-believe pair behind it, and what they show.

use std::sync::Arc;

use clap::CommandFactory;
use serde_json::json;

use super::args::{FailArgs, FailoverArgs, ForceArgs, MoveArgs, ServiceArgs, UserAddArgs};
use super::group_args::{AssignArgs, GroupArgs, HaCommand, RebalanceArgs};
use super::output::Paint;
use super::*;
use crate::admin::fake::{Fake, TOKEN};
use crate::admin::{
    CheckShown, CountersStatus, GroupStatus, LogStatus, Moving, NodeStatus, ServiceStatus, Status,
};
use crate::node::Force;

/// A node to ask; ends with the test.
pub(super) struct Pair {
    pub(super) fake: Arc<Fake>,
    pub(super) args: ClientArgs,
    _runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Pair {
    pub(super) fn start() -> Pair {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let fake = Arc::new(Fake::default());
        let admin = Some(runtime.block_on(Fake::start(Arc::clone(&fake))));
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        write_private(&token, TOKEN);
        let args = ClientArgs { admin, token_file: Some(token), ..ClientArgs::default() };
        Pair { fake, args, _runtime: runtime, _dir: dir }
    }

    pub(super) fn client(&self) -> Client {
        Client::find(&self.args).unwrap_or_else(|failure| panic!("{}", failure.text()))
    }

    fn moving(&self, node: &str) -> MoveArgs {
        MoveArgs { node: node.into(), no_wait: false, client: self.args.clone() }
    }

    fn failover(&self, node: &str) -> Result<Answer, Failure> {
        moves::failover(&self.client(), &FailoverArgs::unasked(self.moving(node)), &mut Progress::none())
    }

    fn fallback(&self, node: &str) -> Result<Answer, Failure> {
        moves::fallback(&self.client(), &self.moving(node), &mut Progress::none())
    }
}

fn write_private(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
    for line in [
        "tandem serve -c x.toml",
        "tandem status",
        "tandem status -c x.toml --json",
        "tandem failover a --no-wait",
        "tandem fallback a --admin 127.0.0.1:1 --token-file t",
        "tandem recover --operator alice",
        "tandem user add u --home a --password-stdin",
        "tandem user list --json",
        "tandem user passwd u --password-stdin",
        "tandem user remove u --json",
        "tandem user sessions",
        "tandem user sessions u",
        "tandem force-active a --confirm a --json",
        "tandem force-inactive a --confirm a --json",
        "tandem recover",
        "tandem check --json",
        "tandem extend pair a=a.example b=b.example --dir d",
        "tandem pair d -c x.toml --json",
        "tandem unpair b --json",
        "tandem extend witness w.example --port 7 --dir d --json",
        "tandem service list --json",
        "tandem service stop router --node b",
        "tandem service fail database --for 2min",
        "tandem config check -c x.toml",
        "tandem demo --users 10 --plain 0% --seed 7 --keep",
        "tandem init --domain d --node a=h --node b=i --out dir",
        "tandem init --domain d --node a=h --node b=i --out dir --etcd https://e1 --etcd https://e2",
    ] {
        assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
    }
    for line in
        ["tandem", "tandem failover", "tandem demo --plain 101%", "tandem init --domain d --node a --out x"]
    {
        assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn a_share_is_written_with_or_without_its_sign() {
    for (text, share) in [("10%", 10), ("0", 0), ("100%", 100)] {
        assert_eq!(text.parse(), Ok(Percent(share)));
    }
    for text in ["", "%", "101", "-1", "0.1"] {
        assert!(text.parse::<Percent>().is_err(), "{text}");
    }
}

#[test]
fn failover_waits_until_it_is_complete_and_fallback_undoes_it() {
    let pair = Pair::start();
    let answer = pair.failover("a").unwrap();
    assert!(answer.text.contains("failover of a is complete"), "{}", answer.text);
    assert!(answer.text.contains("a: Idle / On Admin Request\nb: Running in Backup Mode"), "{}", answer.text);
    let answer = pair.fallback("a").unwrap();
    assert!(answer.text.contains("fallback to a is complete"), "{}", answer.text);
    assert_eq!(answer.json["status"]["nodes"][0]["state"], "Normal");
}

#[test]
fn without_waiting_it_has_only_begun() {
    let pair = Pair::start();
    let args = MoveArgs { no_wait: true, ..pair.moving("a") };
    let answer =
        moves::failover(&pair.client(), &FailoverArgs::unasked(args), &mut Progress::none()).unwrap();
    assert!(answer.text.contains("has begun"));
    assert_eq!(answer.json["moving"]["left"], 3);
}

#[test]
fn a_refusal_is_told_with_state_and_hint() {
    let pair = Pair::start();
    let failure = pair.fallback("a").unwrap_err();
    assert_eq!(failure.exit, Exit::Refused);
    let text = failure.text();
    assert_eq!(text, "tandem: a cannot do that now\n  state: Normal / Normal\n  to do: look at the status\n");
    let failure = pair.failover("nobody/../a").unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.text().contains("the nodes are a and b"), "{}", failure.text());
}

#[test]
fn a_failover_that_ends_in_failed_mode_is_a_failure() {
    let pair = Pair::start();
    pair.fake.breaks();
    let failure = pair.failover("a").unwrap_err();
    assert_eq!((failure.exit, failure.refusal.state.as_str()), (Exit::Refused, "Running in Failed Mode"));
    assert_eq!(failure.more["status"]["nodes"][0]["reason"], "Take Over Users Failed");
}

#[test]
fn a_password_is_made_and_shown_once_or_taken_as_given() {
    let pair = Pair::start();
    let args = |user: &str| UserAddArgs {
        user: user.into(),
        home: Some("b".into()),
        password_stdin: false,
        client: pair.args.clone(),
    };
    let answer = user::add_with(&pair.client(), &args("anna"), None).unwrap();
    let password = answer.json["password"].as_str().unwrap();
    assert!(answer.text.contains(password) && answer.json["user"] == "anna@im.example");
    let answer = user::add_with(&pair.client(), &args("bob"), Some("secret".into())).unwrap();
    assert!(!answer.text.contains("secret") && answer.json.get("password").is_none());
    let list = user::list(&pair.client(), false, None).unwrap();
    assert_eq!(
        list.text.lines().nth(2).unwrap(),
        "bob@im.example   b     b                 0",
        "{}",
        list.text
    );
    let failure = user::add_with(&pair.client(), &args("a b"), None).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
}

#[test]
fn a_command_says_who_asks() {
    let mut pair = Pair::start();
    pair.args.operator = Some("Jörg".into());
    assert!(pair.failover("a").is_ok());
    assert_eq!(pair.fake.operators(), ["Jörg"]);
    assert!(pair.client().set("srm.keep_alive_timeout", Some("9")).is_ok());
    assert_eq!(pair.fake.operators(), ["Jörg", "Jörg"]);
    // Without one it is whoever is logged in.
    pair.args.operator = None;
    assert!(pair.client().set("srm.keep_alive_timeout", None).is_ok());
    assert!(!pair.fake.operators()[2].is_empty());
    pair.args.operator = Some("a\nb".into());
    let failure = Client::find(&pair.args).err().unwrap();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.text().contains("--operator"), "{}", failure.text());
}

#[test]
fn a_wrong_token_is_told() {
    let mut pair = Pair::start();
    let wrong = pair._dir.path().join("wrong");
    write_private(&wrong, "another-token-of-enough-length");
    pair.args.token_file = Some(wrong);
    let failure = pair.client().status().unwrap_err();
    assert_eq!(failure.exit, Exit::Environment);
    assert!(failure.text().contains("does not know the token"), "{}", failure.text());
}

#[test]
fn a_node_that_does_not_run_is_told_with_how_to_start_it() {
    let dir = tempfile::tempdir().unwrap();
    let made = crate::setup::Plan::local_single("im.example", dir.path()).unwrap().make().unwrap();
    let config = made.nodes[0].config.clone();
    let client =
        Client::find(&ClientArgs { config: Some(config.clone()), ..ClientArgs::default() }).ok().unwrap();
    let failure = client.status().unwrap_err();
    let (at, config) = (made.nodes[0].admin, config.display());
    assert_eq!(failure.exit, Exit::Environment);
    assert_eq!(failure.refusal.error, format!("no tandem is running at {at} (config {config})"));
    assert_eq!(failure.refusal.hint, format!("start it with `tandem serve -c {config}`"));
}

#[test]
fn what_is_not_tandem_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = Some(listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    write_private(&token, TOKEN);
    let stranger = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        std::io::Read::read(&mut tcp, &mut [0; 4096]).unwrap();
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        std::io::Write::write_all(&mut tcp, answer.as_bytes()).unwrap();
    });
    let args = ClientArgs { admin, token_file: Some(token), ..ClientArgs::default() };
    let failure = Client::find(&args).ok().unwrap().status().unwrap_err();
    assert!(failure.text().contains("is not a tandem"), "{}", failure.text());
    stranger.join().unwrap();
}

fn failed_over() -> Status {
    let node =
        |name: &str, state: &str, reason: &str, local: bool, heard_ms: u64, sessions: u64| NodeStatus {
            name: name.into(),
            state: state.into(),
            reason: reason.into(),
            local,
            heard_ms: Some(heard_ms),
            counters: CountersStatus { jsm_sessions_client: sessions, ..CountersStatus::default() },
            log: LogStatus { own_end: 1200, acked_by_peer: 1000, received: 7 },
            users: 200,
            homed: 100,
            ..NodeStatus::default()
        };
    let group = |home: &str, term: u64| GroupStatus {
        home: home.into(),
        primary: "b".into(),
        mode: "Solo".into(),
        role: "Primary".into(),
        term,
        release: "Alone".into(),
    };
    let alone = NodeStatus {
        roles: [("a", "Primary"), ("b", "Primary")].map(|(home, role)| (home.into(), role.into())).into(),
        offered: vec!["force-inactive".into()],
        ..node("b", "Running in Backup Mode", "Peer Down", true, 0, 200)
    };
    Status {
        version: "0.1.0".into(),
        domain: "im.example".into(),
        nodes: vec![node("a", "down", "Unknown", false, 754_000, 80), alone],
        groups: vec![group("a", 7), group("b", 5)],
        witness: Some("decides".into()),
        row: Some(16),
        cause: "heartbeat of a lost: network, or a is not running".into(),
        action: "repair a or its network, start it; when its services run, `tandem fallback a`".into(),
        alarms: vec!["unprotected: no second copy of what is acknowledged now".into()],
        moving: None,
    }
}

#[test]
fn the_status_of_a_failed_over_pair_reads_like_this() {
    let expected = "\
a  down                               last heard 12 min ago
b  Running in Backup Mode  Peer Down  this node

ALARM unprotected: no second copy of what is acknowledged now
TO DO repair a or its network, start it; when its services run, `tandem fallback a`
why   heartbeat of a lost: network, or a is not running
offered `tandem force-inactive b`

im.example                    a        b
JsmSessionsClient             ?      200
JsmSessionsClientInactive     ?        0
JsmSessionsComposed           ?        0
ActiveJsmSessions             ?        0
InactiveJsmSessions           ?        0
log: frames written           ?     1200
log: not yet at the peer      ?      200
users at home here          100      100
  group led by                b        b
  group mode               Solo     Solo
  group term                  7        5
role for users of a           ?  Primary
role for users of b           ?  Primary
witness: decides
";
    let shown = status::render(&failed_over(), Paint::PLAIN);
    assert_eq!(shown, expected, "\n{shown}");
}

#[test]
fn what_is_offered_is_shown_as_commands_and_what_is_of_both_nodes_once() {
    let node = |name: &str, offered: &[&str]| NodeStatus {
        name: name.into(),
        offered: offered.iter().map(|action| (*action).into()).collect(),
        ..NodeStatus::default()
    };
    let shown = |a: &[&str], b: &[&str]| {
        let status = Status { nodes: vec![node("a", a), node("b", b)], ..Status::default() };
        let text = status::render(&status, Paint::PLAIN);
        text.lines().find(|line| line.starts_with("offered")).map(str::to_owned)
    };
    assert_eq!(shown(&[], &[]), None);
    let both = shown(&["failover"], &["failover"]);
    assert_eq!(both.as_deref(), Some("offered `tandem failover a`, `tandem failover b`"));
    let failed = shown(&["recover"], &["recover"]);
    assert_eq!(failed.as_deref(), Some("offered `tandem recover`"));
}

#[test]
fn colour_changes_no_column() {
    let strip = |text: &str| {
        let mut parts = text.split("\x1b[");
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |text, part| text + part.split_once('m').unwrap().1)
    };
    let shown = status::render(&failed_over(), Paint::COLOUR);
    assert!(shown.contains("\x1b[1;31mdown\x1b[0m"));
    assert_eq!(strip(&shown), status::render(&failed_over(), Paint::PLAIN));
}

#[test]
fn a_healthy_pair_has_nothing_to_do_and_a_move_shows_how_far_it_is() {
    let pair = Pair::start();
    let status = pair.client().status().unwrap();
    let shown = status::render(&status, Paint::PLAIN);
    assert!(
        shown.starts_with("a  Normal    this node\nb  Normal    heard now\n\nNothing to do: both well.\n"),
        "{shown}"
    );
    let moving = Some(Moving { what: "failover of a".into(), left: 80, done: 120 });
    let shown = status::render(&Status { moving, ..status }, Paint::PLAIN);
    assert!(shown.contains("failover of a: 80 users left, 120 moved"), "{shown}");
}

#[test]
fn answers_in_json_say_whether_it_went_well() {
    let answer = Answer::new("", json!({ "user": "anna" }));
    assert_eq!(answer.line(), "{\"ok\":true,\"user\":\"anna\"}\n");
    let failure = Failure::new(Exit::Refused, "no", "wait");
    let line: serde_json::Value = serde_json::from_str(&failure.line()).unwrap();
    assert_eq!(line, json!({ "ok": false, "error": "no", "state": "", "reason": "", "hint": "wait" }));
}

#[test]
fn force_active_is_done_only_when_the_nodes_name_is_typed() {
    let pair = Pair::start();
    let force = |confirm: Option<&str>, typed: Option<&str>| {
        let args =
            ForceArgs { node: "a".into(), confirm: confirm.map(Into::into), client: pair.args.clone() };
        let mut prompt = Vec::new();
        let mut input = typed.map(str::as_bytes);
        let input = input.as_mut().map(|input| input as &mut dyn std::io::BufRead);
        let result = force::force_with(&pair.client(), &args, Force::Active, input, &mut prompt);
        (result, String::from_utf8(prompt).unwrap())
    };
    let failure = force(None, None).0.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.refusal.hint.contains("what b acknowledged alone"), "{failure:?}");
    assert_eq!(force(None, Some("yes\n")).0.unwrap_err().exit, Exit::Usage);
    assert_eq!(force(Some("b"), None).0.unwrap_err().exit, Exit::Usage);
    assert_eq!(pair.fake.forced(), None);
    let (done, prompt) = force(None, Some("a\n"));
    assert!(prompt.contains("what b acknowledged alone") && prompt.contains("diverge"), "{prompt}");
    let line = done.unwrap_or_else(|failure| panic!("{}", failure.text())).line();
    assert!(line.contains(r#""done":true"#), "{line}");
    assert_eq!(pair.fake.forced().as_deref(), Some("a"));
    assert_eq!(force(Some("a"), None).0.unwrap_err().exit, Exit::Refused, "it serves already");
}

#[test]
fn who_is_not_served_any_more_is_said_before_a_node_is_forced_inactive() {
    let pair = Pair::start();
    let force = |confirm: Option<&str>| {
        let confirm = confirm.map(Into::into);
        let args = ForceArgs { node: "a".into(), confirm, client: pair.args.clone() };
        force::force_with(&pair.client(), &args, Force::Inactive, None, &mut Vec::new())
    };
    let hint = force(None).unwrap_err().refusal.hint;
    assert!(
        hint.contains("also after a restart") && hint.contains("users of a are served by nobody"),
        "{hint}"
    );
    assert!(hint.contains("--confirm a"), "{hint}");
    let done = force(Some("a")).unwrap_or_else(|failure| panic!("{}", failure.text()));
    assert!(done.text.starts_with("a is inactive by force\n- users of a"), "{}", done.text);
}

#[test]
fn an_account_gets_another_password_is_seen_and_removed() {
    let pair = Pair::start();
    let client = pair.client();
    client.user_add("anna@im.example", "x", None).unwrap_or_else(|failure| panic!("{}", failure.text()));
    let answer = |result: Result<Answer, Failure>| result.unwrap_or_else(|f| panic!("{}", f.text())).line();
    let line = answer(user::passwd_with(&client, "anna", Some("better".into())));
    assert!(line.contains("anna@im.example") && !line.contains("better"), "{line}");
    let made = answer(user::passwd_with(&client, "anna", None));
    let passwords = pair.fake.passwords();
    assert_eq!(passwords[0].1, "better");
    assert!(made.contains(&passwords[1].1), "one that was made is shown once: {made}");
    for name in [None, Some("anna"), Some("anna@im.example")] {
        assert!(answer(user::sessions(&client, name)).contains("phone"), "{name:?}");
    }
    assert_eq!(user::sessions(&client, Some("bob")).unwrap_err().exit, Exit::Refused);
    assert_eq!(user::passwd_with(&client, "bob", None).unwrap_err().exit, Exit::Refused);
    assert!(answer(user::remove(&client, "anna")).contains("anna@im.example"));
    assert_eq!(user::remove(&client, "anna").unwrap_err().exit, Exit::Refused);
    assert!(pair.fake.accounts().is_empty());
}

#[test]
fn services_are_told_of_and_acted_on() {
    let pair = Pair::start();
    let answer = service::list(&pair.client()).unwrap();
    assert!(answer.text.starts_with("a  router  running  for 0 s\nb  router  running"), "{}", answer.text);
    assert_eq!(answer.json["nodes"][1]["services"][0]["state"], "running");
    let args = |service: &str, node: Option<&str>| ServiceArgs {
        service: service.into(),
        node: node.map(str::to_owned),
        client: pair.args.clone(),
    };
    // Without a name it is the node that answers.
    let answer = service::act(&pair.client(), &args("router", None), ServiceAction::Stop).unwrap();
    assert_eq!(answer.text, "router of a is stopped; `tandem service list` shows all\n");
    let seconds = std::time::Duration::from_secs(120);
    let fail = FailArgs { service: args("database", Some("b")), seconds };
    assert!(service::fail(&pair.client(), &fail).unwrap().text.starts_with("database of b was made to fail"));
    let done = pair.fake.services();
    assert_eq!(done[1], ("b".to_owned(), "database", ServiceAction::Fail { seconds: 120 }));
    let failure = service::act(&pair.client(), &args("route", None), ServiceAction::Start).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.text().contains("the services are database"), "{}", failure.text());
    assert!(service::recover(&pair.client()).unwrap_err().text().contains("nothing is to be recovered"));
    pair.fake.breaks();
    assert!(service::recover(&pair.client()).unwrap().text.starts_with("both nodes begin anew"));
}

#[test]
fn a_service_that_is_down_stands_out() {
    let service = |name: &str, state: &str, critical| ServiceStatus {
        name: name.into(),
        state: state.into(),
        why: "stopped by the operator".into(),
        critical,
        seconds: 7,
        restarts: 2,
    };
    let services = vec![service("router", "stopped", true), service("authentication", "running", false)];
    let nodes = [
        NodeStatus { name: "a".into(), services, ..NodeStatus::default() },
        NodeStatus { name: "b".into(), ..NodeStatus::default() },
    ];
    let text = service::render(&nodes, Paint::PLAIN);
    assert_eq!(
        text,
        "a  router          stopped  for 7 s, started again 2 times; stopped by the operator\n\
         a  authentication  running  for 7 s, started again 2 times; stopped by the operator; not critical\n\
         b  ?                        it does not tell\n"
    );
}

#[test]
fn the_group_is_shown_and_changed() {
    let pair = Pair::start();
    let show = || group::render(&pair.client().group().unwrap(), Paint::PLAIN);
    assert!(show().contains("in no group; make one with `tandem group create NAME`"));
    let failure = pair.client().group_edit(Some("x"), None).unwrap_err();
    assert_eq!(failure.exit, Exit::Refused);
    pair.client().group_create("office", "first floor").unwrap();
    pair.client().group_edit(None, Some("second floor")).unwrap();
    let text = show();
    assert!(text.starts_with("group office (second floor)\nhigh availability: not enabled"), "{text}");
    assert_eq!(pair.client().group_edit(Some(""), None).unwrap_err().exit, Exit::Usage);
    let check = |what: &str, well, needed| CheckShown {
        what: what.into(),
        well,
        needed,
        error: if well { String::new() } else { format!("{what} is wrong") },
        hint: "do this".into(),
    };
    pair.fake.check(check("clocks", true, true));
    pair.fake.check(check("critical services", false, false));
    assert!(show().contains("well  clocks"), "{}", show());
    assert!(show().contains("look  critical services  critical services is wrong: do this"), "{}", show());
    assert!(pair.client().ha(true, false).unwrap().high_availability);
    assert!(!show().contains("before high availability"));
    pair.client().ha(false, true).unwrap();
    pair.fake.check(check("versions", false, true));
    let enable = HaCommand::Enable(GroupArgs { client: pair.args.clone() });
    let failure = group::ha(&enable).err().unwrap();
    assert_eq!(failure.exit, Exit::Refused);
    assert_eq!(failure.more["checks"][2]["what"], "versions");
    pair.client().group_delete().unwrap();
    assert!(show().contains("in no group"));
}

#[test]
fn users_are_assigned_and_the_unassigned_listed() {
    let pair = Pair::start();
    pair.client().user_add("anna", "secret", Some("b")).unwrap();
    let assign = |node: Option<&str>| {
        let (user, none, client) = ("anna".to_owned(), node.is_none(), pair.args.clone());
        group::assign(&AssignArgs { user, node: node.map(Into::into), none, client })
    };
    assert_eq!(user::list(&pair.client(), true, None).unwrap().text, "every account is assigned to a node\n");
    assert_eq!(assign(None).unwrap().text, "anna@im.example is not assigned; nobody logs in\n");
    let list = user::list(&pair.client(), true, None).unwrap().text;
    assert!(list.lines().nth(1).unwrap().starts_with("anna@im.example  none"), "{list}");
    let args = RebalanceArgs { no_wait: false, client: pair.args.clone() };
    let balanced = group::rebalance(&args, &mut Progress::none()).unwrap().text;
    let left_out = "\n1 user is assigned to no node, and stays so: `tandem assign USER NODE`\n";
    assert!(balanced.ends_with(left_out), "{balanced}");
    assert_eq!(group::left_out(&Default::default()), "");
    assert_eq!(assign(Some("a")).unwrap().text, "anna@im.example is assigned to a\n");
    assert_eq!(pair.fake.accounts()[0].home, "a");
    assert_eq!(assign(Some("c")).err().unwrap().exit, Exit::Usage);
}

#[test]
fn a_check_waits_until_both_nodes_have_ended_theirs() {
    let pair = Pair::start();
    let answer = consistency::check(&pair.client(), &mut Progress::none()).unwrap();
    assert_eq!(
        answer.text,
        "a: 5 users as b holds them; no checkpoint in the store yet\n\
         b: 5 users as a holds them; no checkpoint in the store yet\n"
    );
    assert_eq!(answer.json["nodes"]["b"]["ended"], 1);
}

#[test]
fn a_node_that_does_not_say_how_it_is_has_no_status() {
    let pair = Pair::start();
    pair.fake.falls_silent();
    let failure = status::status(&pair.client()).unwrap_err();
    assert_eq!(failure.exit, Exit::Environment);
    assert!(failure.text().starts_with("tandem: the node does not answer\n  to do: "), "{}", failure.text());
}

#[test]
fn the_table_of_states_is_shown_to_people_to_documents_and_to_programs() {
    let shown = |line: &str| {
        let command = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}")).command;
        let json = command.json();
        let answer = run(command).unwrap();
        assert_eq!(answer.exit, Exit::Well);
        if json { answer.line() } else { answer.text }
    };
    let rows = crate::view::ROWS.len();
    let text = shown("tandem srm table");
    assert!(
        text.contains("\n  1  node 1  Normal / Normal\n     node 2  Normal / Normal\n     when    "),
        "{text}"
    );
    assert_eq!(text.matches("  node 1  ").count(), rows);
    let markdown = shown("tandem srm table --markdown");
    assert!(markdown.starts_with("| # | node 1: state / reason |"), "{markdown}");
    assert_eq!(
        markdown.lines().filter(|line| line.starts_with("| ") && line.ends_with(" |")).count(),
        rows + 1
    );
    assert!(include_str!("../../../docs/srm-states.md").contains(&markdown), "the page has another one");
    let json: serde_json::Value = serde_json::from_str(&shown("tandem srm table --json")).unwrap();
    assert_eq!((&json["ok"], json["rows"].as_array().map(Vec::len)), (&json!(true), Some(rows)));
    let normal = json!({ "state": "Normal", "reason": "Normal" });
    assert_eq!((&json["rows"][0]["row"], &json["rows"][0]["home"]), (&json!(1), &normal));
    let both = Cli::try_parse_from("tandem srm table --json --markdown".split(' '));
    assert_eq!(both.err().map(|error| error.exit_code()), Some(2));
}
