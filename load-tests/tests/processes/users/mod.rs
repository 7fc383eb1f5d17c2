//! Accounts of a running pair: another password and removal count at once, on both nodes, and after a failover.

mod tokens;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use client_sim::conn::Account;
use client_sim::session::{Event, Options, Session};
use client_sim::sm::Outgoing;
use load_tests::rig::{Load, QUICK, Rig, account, seed, tandem};
use srm::demo::pair::{DOMAIN, PASSWORD};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const LIMIT: Duration = Duration::from_secs(20);

/// A command asked of a node; what it printed and its exit code.
fn run(rig: &Rig, node: usize, args: &[&str], stdin: &str) -> (String, Option<i32>) {
    let mut command = Command::new(tandem());
    command.args(["user"]).args(args).args(["--json", "-c"]).arg(&rig.pair.made.nodes[node].config);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

struct Client {
    session: Session,
    events: UnboundedReceiver<Event>,
}

impl Client {
    fn start(rig: &Rig, user: &str, password: &str, first: usize) -> Client {
        let (tell, events) = unbounded_channel();
        let account = Account { password: password.into(), ..account(user) };
        let mut options = Options::new(account, rig.pair.dialer().unwrap(), rig.pair.places());
        options.first = Some(rig.pair.made.nodes[first].name.clone());
        Client { session: Session::spawn(options, Arc::new(tell)), events }
    }

    async fn event<T>(&mut self, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                let event = self.events.recv().await.expect("the client runs");
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
    }

    async fn bound(&mut self) {
        self.event("bound", |e| matches!(e, Event::Bound { .. }).then_some(())).await;
    }

    async fn parked(&mut self) {
        self.event("parked", |e| matches!(e, Event::Parked { .. }).then_some(())).await;
    }

    /// The reason for which the server ended the main stream.
    async fn shown_out(&mut self) -> String {
        let reason = |e: &Event| match e {
            Event::MainLost { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        self.event("the stream ends", reason).await
    }

    /// Refused at this node because of the password or the name.
    async fn refused_at(&mut self, rig: &Rig, at: usize) {
        let name = rig.pair.made.nodes[at].name.clone();
        let refused = |e: &Event| match e {
            Event::AttemptFailed { node, reason } if *node == name => {
                reason.contains("not-authorized").then_some(())
            }
            Event::Bound { node, .. } | Event::Resumed { to: node, .. } => panic!("let in at {node}"),
            _ => None,
        };
        self.event("refused", refused).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_password_and_a_removal_count_on_both_nodes_and_across_a_failover() {
    let load = Load { users: 4, plain: 0.0, interval: Duration::from_millis(100), seed: seed() };
    let mut rig = Rig::start(2, load, QUICK, &[]).await;
    for user in ["eva", "max"] {
        rig.pair.user_add(1, user, 0).unwrap();
    }
    let mut eva = Client::start(&rig, "eva", PASSWORD, 0);
    let mut max = Client::start(&rig, "max", PASSWORD, 0);
    for client in [&mut eva, &mut max] {
        client.bound().await;
        client.parked().await;
    }
    // Asked at the node that does not serve the account; the other does it.
    let (text, code) = run(&rig, 1, &["sessions", "eva"], "");
    assert!(
        code == Some(0) && text.contains(r#""resource":"r""#) && text.contains(r#""dual":true"#),
        "{text}"
    );
    let (text, code) = run(&rig, 1, &["passwd", "eva", "--password-stdin"], "better\n");
    assert!(code == Some(0) && !text.contains("better"), "{text}");
    let reason = eva.shown_out().await;
    assert!(reason.contains("reset"), "{reason}");
    eva.refused_at(&rig, 0).await;
    eva.refused_at(&rig, 1).await;
    drop(eva);
    let mut eva = Client::start(&rig, "eva", "better", 0);
    eva.bound().await;
    eva.parked().await;

    rig.kill(0);
    rig.clients_go_on(LIMIT).await;
    eva.event("goes on at the other node", |e| matches!(e, Event::Flipped { .. }).then_some(())).await;
    let mut old = Client::start(&rig, "eva", PASSWORD, 1);
    old.refused_at(&rig, 1).await;
    drop(old);

    let (text, code) = run(&rig, 1, &["remove", "eva"], "");
    assert_eq!(code, Some(0), "{text}");
    let reason = eva.shown_out().await;
    assert!(reason.contains("not-authorized"), "{reason}");
    eva.refused_at(&rig, 1).await;
    assert_eq!(run(&rig, 1, &["remove", "eva"], "").1, Some(1), "she is gone");
    assert_eq!(run(&rig, 1, &["passwd", "eva", "--password-stdin"], "x\n").1, Some(1));
    let bytes = format!("<message to='eva@{DOMAIN}' id='late' type='chat'><body>hi</body></message>").into();
    max.session.send(Outgoing { id: "late".into(), bytes, survives: true });
    let bounced = |e: &Event| match e {
        Event::Stanza(stanza) if stanza.head.type_.as_deref() == Some("error") => Some(()),
        _ => None,
    };
    max.event("the message bounces", bounced).await;

    // The node that was dead when it happened knows it too.
    rig.pair.start(0).unwrap();
    rig.until_paired(LIMIT);
    eva.refused_at(&rig, 0).await;
    let (text, code) = run(&rig, 0, &["list"], "");
    assert!(code == Some(0) && text.contains("max@") && !text.contains("eva@"), "{text}");
    rig.settle().await;
}
