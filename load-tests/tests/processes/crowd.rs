//! More clients come at once than the processors can take: those above wait before TLS, those who would wait for too long are
//! turned away there, and nobody loses more than time by it.

use std::process::Command;
use std::time::Duration;

use load_tests::rig::{Load, QUICK, Rig, seed, tandem};

const LIMIT: Duration = Duration::from_secs(60);
const CROWDED: &str = "tandem_c2s_connections_total{outcome=\"crowded\"}";
const WRONG: &str = "tandem_c2s_wrong_passwords_total";

fn set(rig: &Rig, node: usize, key: &str, value: &str) {
    let config = &rig.pair.made.nodes[node].config;
    let mut command = Command::new(tandem());
    let done = command.args(["config", "set", key, value, "-c"]).arg(config).output().unwrap();
    assert!(done.status.success(), "{key}: {done:?}\n{}", rig.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_turned_away_for_lack_of_time_comes_again_and_keeps_the_session() {
    let load = Load { users: 160, plain: 1.0, interval: Duration::from_secs(1), seed: seed() };
    let mut rig = Rig::start(2, load, QUICK, &[]).await;
    rig.clients_go_on(LIMIT).await;
    rig.traffic(50).await;
    // A hundredth of the processors for logins, and at most a second for each to wait.
    for (key, value) in [("limits.login_share", "1"), ("limits.login_wait", "1s")] {
        set(&rig, 1, key, value);
    }
    assert_eq!((rig.metric(1, CROWDED), rig.metric(1, WRONG)), (0.0, 0.0));
    rig.kill(0);
    let words = "connections wait before TLS";
    rig.until(1, LIMIT, words, |s| s.alarms.iter().any(|alarm| alarm.contains(words)));
    // Those who are in talk on meanwhile.
    rig.traffic(20).await;
    rig.clients_go_on(LIMIT).await;
    let came = rig.fleet.snapshot();
    assert!(rig.metric(1, CROWDED) > 0.0, "{came:?}");
    assert_eq!(rig.metric(1, WRONG), 0.0, "nobody is told that a password is wrong for lack of time");
    assert_eq!((came.resumes, came.binds_anew), (80, 0), "{came:?}");
    rig.until(1, LIMIT, "nobody waits", |s| s.alarms.iter().all(|alarm| !alarm.contains(words)));
    rig.pair.start(0).unwrap();
    rig.until_paired(LIMIT);
    let report = rig.settle().await;
    assert_eq!(report.counters.binds_anew, 0, "{report:?}");
}
