//! The unit files under a real systemd: readiness, restarts, the watchdog, and the sandbox, in which all of it runs.

use std::thread;
use std::time::{Duration, Instant};

use load_tests::rig::turn;

use super::host::Hosts;
use super::{play, start};

const LIMIT: Duration = Duration::from_secs(40);

/// Both nodes are a pair, without an alarm.
const WELL: &str =
    "status=$(tandem status); echo \"$status\"; [[ $status = *Normal* && $status != *ALARM* ]]";

/// Runs commands that must succeed.
fn on(hosts: &mut Hosts, host: &str, commands: &str) -> String {
    let (code, said) = hosts.run(host, commands);
    assert_eq!(code, 0, "{commands}\n{said}\n{}", hosts.logs());
    said
}

/// Until the commands succeed.
fn wait(hosts: &mut Hosts, host: &str, commands: &str) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (code, said) = hosts.run(host, commands);
        if code == 0 {
            return said;
        }
        assert!(Instant::now() < deadline, "{commands}\n{said}\n{}", hosts.logs());
        thread::sleep(Duration::from_millis(100));
    }
}

fn property(hosts: &mut Hosts, host: &str, unit: &str, name: &str) -> String {
    on(hosts, host, &format!("systemctl show --value -p {name} {unit}")).trim().to_owned()
}

/// Both nodes as the page installs them.
fn pair() -> Hosts {
    let (mut hosts, blocks) = start("operations");
    let installed =
        blocks.iter().position(|block| block.commands.contains("enable --now")).expect("installs");
    blocks[..=installed].iter().for_each(|block| play(&mut hosts, block));
    for host in ["a", "b"] {
        wait(&mut hosts, host, WELL);
    }
    hosts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_starts_again_a_node_that_dies_or_stands_still() {
    let _turn = turn().await;
    let mut hosts = pair();
    let hosts = &mut hosts;
    assert_eq!(property(hosts, "b", "tandem", "WatchdogUSec"), "30s");
    let started = |restarts: u32| {
        format!(
            "test $(systemctl show --value -p NRestarts tandem) = {restarts} && systemctl is-active tandem && \
             curl -sf http://127.0.0.1:20075/healthz"
        )
    };
    on(hosts, "b", &started(0));

    on(hosts, "b", "systemctl kill -s KILL tandem");
    wait(hosts, "b", &started(1));
    wait(hosts, "a", "tandem status | grep 'Failed Over'");
    wait(hosts, "a", "tandem fallback b");
    wait(hosts, "a", WELL);

    // The unit's own limit, only shorter.
    let watchdog = "mkdir -p /run/units/tandem.service.d
        printf '[Service]\\nWatchdogSec=3\\n' > /run/units/tandem.service.d/watchdog.conf
        systemctl daemon-reload
        systemctl restart tandem";
    on(hosts, "b", watchdog);
    on(hosts, "b", &started(0));
    on(hosts, "b", "kill -STOP $(systemctl show --value -p MainPID tandem)");
    wait(hosts, "b", &started(1));

    // A stop is no failure, and hands everything over.
    on(hosts, "b", "systemctl stop tandem");
    assert_eq!(property(hosts, "b", "tandem", "Result"), "success");
    wait(hosts, "a", "tandem status | grep 'Running in Backup Mode'");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_start_says_why_in_its_log_and_is_tried_until_it_can() {
    let _turn = turn().await;
    let mut hosts = pair();
    let hosts = &mut hosts;
    let spoil =
        "systemctl stop tandem; cd /etc/tandem; cp -p tandem.toml well.toml; echo 'domain = 7' > tandem.toml";
    on(hosts, "b", &format!("{spoil}; : > /run/tandem.log"));
    let (code, said) = hosts.run("b", "systemctl start tandem");
    assert_ne!(code, 0, "it is said to have started: {said}");
    let log = on(hosts, "b", "cat /run/tandem.log");
    assert!(log.contains("/etc/tandem/tandem.toml"), "{log}");
    // More often than systemd would try by its own default, and the peer serves.
    wait(hosts, "b", "test $(systemctl show --value -p NRestarts tandem) -gt 5");
    wait(hosts, "a", "tandem status | grep 'Running in Backup Mode'");
    // Nobody starts it, nor has to.
    on(hosts, "b", "mv /etc/tandem/well.toml /etc/tandem/tandem.toml");
    wait(hosts, "a", "tandem fallback b");
    wait(hosts, "a", WELL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_runs_under_its_unit() {
    let _turn = turn().await;
    let mut hosts = pair();
    let hosts = &mut hosts;
    // A third machine is wanted; here b is it.
    on(
        hosts,
        "a",
        "tandem extend witness b.example.org --dir ~/pair && scp -r ~/pair/witness root@b.example.org:/etc/witness",
    );
    on(
        hosts,
        "b",
        "systemctl stop tandem; rm -rf /etc/tandem; mv /etc/witness /etc/tandem; chown -R tandem:tandem /etc/tandem",
    );
    on(
        hosts,
        "b",
        "install -m 644 srm/systemd/tandem-witness.service /etc/systemd/system/ && systemctl daemon-reload",
    );
    on(hosts, "b", "systemctl enable --now tandem-witness");
    assert_eq!(property(hosts, "b", "tandem-witness", "ActiveState"), "active");
    on(hosts, "b", "systemctl kill -s KILL tandem-witness");
    wait(
        hosts,
        "b",
        "test $(systemctl show --value -p NRestarts tandem-witness) = 1 && systemctl is-active tandem-witness",
    );
    on(hosts, "b", "systemctl stop tandem-witness");
    assert_eq!(property(hosts, "b", "tandem-witness", "Result"), "success");
}
