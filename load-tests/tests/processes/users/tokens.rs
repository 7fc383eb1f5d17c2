//! One-time tokens between real nodes: a fleet parks by them, a client that lost both streams comes back by one, and a
//! stranger gets nowhere.

use client_sim::conn::{Conn, ConnError};
use client_sim::plain::{Outcome, establish};
use session_mover::msg::{TOKENS, VERSIONS};
use xmpp_core::dual::Dual;
use xmpp_core::sm::{Handled, Sm};

use super::*;

const BY_TOKEN: &str = "tandem_c2s_token_logins_total";

fn load() -> Load {
    Load { users: 8, plain: 0.25, interval: Duration::from_millis(100), seed: seed() }
}

/// A session whose client speaks for itself, and the token that it was offered.
async fn session(rig: &Rig, user: &str) -> (Conn, String, String) {
    let (dialer, places) = (&rig.dialer, rig.pair.places());
    let made = establish(dialer, &places, places[0].clone(), &account(user), None, None).await.unwrap();
    let Outcome::Bound { sm_id: Some(sm_id), .. } = made.outcome else { panic!("{made:?}") };
    let mut conn = made.conn;
    conn.send(&Dual::Request.to_bytes());
    loop {
        if let Ok(Some(Dual::Offer { token, .. })) = Dual::parse(&conn.recv().await.unwrap()) {
            return (conn, sm_id, token.expect("a token").into());
        }
    }
}

/// Logs in by a token and says something; what the node answers.
async fn by_token(
    rig: &Rig,
    at: usize,
    user: &str,
    sm_id: &str,
    token: &str,
    said: &[u8],
) -> Result<String, ConnError> {
    let account = account(user).by_token(sm_id, token).expect("it has the form of a token");
    let (mut conn, _) = rig.dialer.login(&rig.pair.places()[at], &account).await?;
    conn.send(said);
    let answer = conn.recv().await?;
    Ok(String::from_utf8_lossy(&answer.bytes).into_owned())
}

fn refused(got: Result<String, ConnError>, why: &str) {
    let error = got.expect_err("refused").to_string();
    assert!(error.contains("not-authorized") && error.contains(why), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dual_clients_park_and_come_back_by_tokens_and_need_no_password() {
    let mut rig = Rig::start(2, load(), QUICK, &[]).await;
    // Six of the eight are dual, and each parks at the other's home.
    assert_eq!(rig.metric(0, BY_TOKEN) + rig.metric(1, BY_TOKEN), 6.0);
    rig.pair.user_add(0, "eva", 0).unwrap();
    let mut eva = Client::start(&rig, "eva", PASSWORD, 0);
    eva.bound().await;
    eva.parked().await;
    // Both streams die at once: she resumes, where she was or at the other node, and parks anew.
    let before = rig.metric(0, BY_TOKEN) + rig.metric(1, BY_TOKEN);
    eva.session.break_parked();
    eva.session.break_main();
    eva.event("resumed", |e| matches!(e, Event::Resumed { .. }).then_some(())).await;
    eva.parked().await;
    assert_eq!(rig.metric(0, BY_TOKEN) + rig.metric(1, BY_TOKEN), before + 2.0);
    // Her home dies with the main stream, and the parked one a moment before.
    eva.session.break_parked();
    rig.kill(0);
    let on = |e: &Event| matches!(e, Event::Resumed { .. } | Event::Flipped { .. }).then_some(());
    eva.event("goes on at the other node", on).await;
    rig.clients_go_on(LIMIT).await;
    rig.pair.start(0).unwrap();
    rig.until_paired(LIMIT);
    rig.fallback(0).await;
    rig.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_its_session_only_and_dies_with_the_password_and_with_the_account() {
    let rig = Rig::start(2, load(), QUICK, &[]).await;
    rig.pair.user_add(0, "eva", 0).unwrap();
    rig.pair.user_add(0, "max", 0).unwrap();
    let (_main, sm_id, token) = session(&rig, "eva").await;
    let (_other, other, others) = session(&rig, "max").await;
    let standby = |sm_id: &str| Dual::Standby { sm_id: sm_id.into() }.to_bytes();
    let bind = b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    for at in [0, 1] {
        refused(by_token(&rig, at, "eva", &sm_id, &token, bind).await, "its own session only");
        refused(by_token(&rig, at, "eva", &sm_id, &token, &standby(&other)).await, "its own session only");
        // Another's token, session or name; one that nobody made; one of an account that there is not.
        refused(by_token(&rig, at, "eva", &sm_id, &others, &standby(&sm_id)).await, "");
        refused(by_token(&rig, at, "eva", &other, &others, &standby(&other)).await, "");
        refused(by_token(&rig, at, "max", &sm_id, &token, &standby(&sm_id)).await, "");
        refused(
            by_token(&rig, at, "eva", &sm_id, &token.replacen("1.", "2.", 1), &standby(&sm_id)).await,
            "",
        );
        refused(by_token(&rig, at, "nobody", &sm_id, &token, &standby(&sm_id)).await, "");
    }
    // Used once: the next comes with the answer. Used twice: the first is dead, at both nodes.
    let first = by_token(&rig, 1, "eva", &sm_id, &token, &standby(&sm_id)).await.unwrap();
    let second = first.split("token='").nth(1).and_then(|rest| rest.split('\'').next()).expect("a token");
    assert!(second.starts_with("2."), "{first}");
    let third = by_token(&rig, 1, "eva", &sm_id, second, &standby(&sm_id)).await.unwrap();
    assert!(third.contains("token='3."), "{third}");
    refused(by_token(&rig, 1, "eva", &sm_id, &token, &standby(&sm_id)).await, "a later one-time token");
    let resume = Sm::Resume { previd: sm_id.as_str().into(), h: Handled(0), told: None }.to_bytes();
    refused(by_token(&rig, 0, "eva", &sm_id, &token, &resume).await, "a later one-time token");
    let (text, code) = run(&rig, 1, &["passwd", "eva", "--password-stdin"], "better\n");
    assert_eq!(code, Some(0), "{text}");
    for at in [0, 1] {
        refused(by_token(&rig, at, "eva", &sm_id, second, &standby(&sm_id)).await, "login refused");
    }
    // The one that was used last stays good, but not beyond its account.
    let parked = by_token(&rig, 1, "max", &other, &others, &standby(&other)).await.unwrap();
    assert!(parked.contains("token='2."), "{parked}");
    let (text, code) = run(&rig, 1, &["remove", "max"], "");
    assert_eq!(code, Some(0), "{text}");
    for at in [0, 1] {
        refused(by_token(&rig, at, "max", &other, &others, &standby(&other)).await, "login refused");
    }
    rig.settle().await;
}

/// A node of the version before knows of no tokens: it is spoken to without, and nobody is disconnected when it is
/// upgraded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_speaks_an_older_link_is_spoken_to_and_upgraded_while_clients_talk() {
    for version in VERSIONS.0..VERSIONS.1 {
        is_upgraded_from(version).await;
    }
}

async fn is_upgraded_from(version: u8) {
    let old = |node| (node, "TANDEM_LINK_NEWEST", version.to_string());
    let tokens = version >= TOKENS;
    let mut rig = Rig::start(2, load(), QUICK, &[old(0), old(1)]).await;
    let by_token = |rig: &Rig| rig.metric(0, BY_TOKEN) + rig.metric(1, BY_TOKEN) > 0.0;
    assert!(tokens || !by_token(&rig));
    for node in [0, 1] {
        rig.traffic(50).await;
        assert!(rig.fleet.all_parked(LIMIT).await, "{:?}", rig.fleet.snapshot());
        let before = rig.fleet.snapshot();
        rig.pair.signal(node, rustix::process::Signal::TERM).unwrap();
        assert!(rig.pair.wait(node, Duration::from_secs(35)).unwrap().success(), "{}", rig.logs());
        rig.clients_go_on(LIMIT).await;
        // Three of the four at home there are dual: each goes on on its second stream.
        let moved = rig.fleet.snapshot();
        assert_eq!(moved.flips.moving - before.flips.moving, 3, "{moved:?}");
        rig.pair.env(node, "TANDEM_LINK_NEWEST", None);
        rig.pair.start(node).unwrap();
        rig.until_paired(LIMIT);
        // The first one that is new finds the other old.
        rig.fallback(node).await;
        rig.traffic(50).await;
        if node == 0 {
            assert_eq!(by_token(&rig), tokens);
        }
        let kept = rig.fleet.snapshot();
        assert_eq!(
            (kept.dual_resumes, kept.binds_anew),
            (0, 0),
            "a dual client always has a stream: {kept:?}"
        );
    }
    // Both are new, and tell tokens with what they offer next.
    rig.kill(0);
    rig.clients_go_on(LIMIT).await;
    rig.pair.start(0).unwrap();
    rig.until_paired(LIMIT);
    rig.fallback(0).await;
    assert!(by_token(&rig));
    let report = rig.settle().await;
    assert_eq!(report.counters.binds_anew, 0, "{report:?}");
}
