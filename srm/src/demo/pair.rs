//! Nodes as processes on this machine: made, started, killed, started again, asked and told.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use client_sim::conn::Dialer;
use xmpp_core::dual::Peer;
use xmpp_core::tls::{Authority, c2s_client};

use crate::admin::{Moving, Refusal, Status, UserStatus};
use crate::setup::{Made, MadeNode, Plan};

/// Password of every account.
pub const PASSWORD: &str = "demo-password";
/// Domain of every account.
pub const DOMAIN: &str = "demo.example";

struct Process {
    child: Option<Child>,
    token: String,
    env: BTreeMap<String, String>,
}

/// One node or two, each a process of this very binary.
pub struct Pair {
    /// What was made for them.
    pub made: Made,
    tandem: PathBuf,
    dir: PathBuf,
    processes: Vec<Process>,
    http: ureq::Agent,
}

impl Pair {
    /// Makes files and starts nothing yet. `tandem`: the binary to run.
    pub fn make(tandem: &Path, plan: &Plan) -> anyhow::Result<Pair> {
        let made = plan.make()?;
        let mut processes = Vec::new();
        for node in &made.nodes {
            let token = fs::read_to_string(&node.token_file)?.trim().to_owned();
            processes.push(Process { child: None, token, env: BTreeMap::new() });
        }
        let http = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        Ok(Pair { made, tandem: tandem.to_owned(), dir: plan.dir.clone(), processes, http })
    }

    /// One node more, which was made in the same folder.
    ///
    /// # Errors
    /// Its token cannot be read.
    pub fn add(&mut self, node: MadeNode) -> anyhow::Result<()> {
        let token = fs::read_to_string(&node.token_file)?.trim().to_owned();
        self.processes.push(Process { child: None, token, env: BTreeMap::new() });
        self.made.nodes.push(node);
        Ok(())
    }

    /// Environment for the next start of a node, such as a kill point; `None` takes it away.
    pub fn env(&mut self, node: usize, key: &str, value: Option<&str>) {
        let env = &mut self.processes[node].env;
        match value {
            Some(value) => _ = env.insert(key.to_owned(), value.to_owned()),
            None => _ = env.remove(key),
        }
    }

    /// Starts a node; its log goes to a file beside its configuration.
    pub fn start(&mut self, node: usize) -> anyhow::Result<()> {
        let name = &self.made.nodes[node].name;
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{name}.log")))?;
        let process = &mut self.processes[node];
        let child = Command::new(&self.tandem)
            .arg("serve")
            .arg("-c")
            .arg(&self.made.nodes[node].config)
            .envs(&process.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{}: cannot be started", self.tandem.display()))?;
        process.child = Some(child);
        Ok(())
    }

    /// The node's log file.
    pub fn log_file(&self, node: usize) -> PathBuf {
        self.dir.join(format!("{}.log", self.made.nodes[node].name))
    }

    /// Process id of a node.
    pub fn pid(&self, node: usize) -> Option<u32> {
        self.processes[node].child.as_ref().map(Child::id)
    }

    /// Sends a signal to a node; the moment when kill(2) returned.
    pub fn signal(&self, node: usize, signal: rustix::process::Signal) -> anyhow::Result<Instant> {
        let pid = self.pid(node).context("the node does not run")?;
        let pid = rustix::process::Pid::from_raw(pid as i32).context("no process id")?;
        rustix::process::kill_process(pid, signal)?;
        Ok(Instant::now())
    }

    /// Waits for the end of a node's process.
    pub fn wait(&mut self, node: usize, limit: Duration) -> anyhow::Result<std::process::ExitStatus> {
        let deadline = Instant::now() + limit;
        let mut child = self.processes[node].child.take().context("the node does not run")?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.processes[node].child = Some(child);
                bail!("node {} does not end", self.made.nodes[node].name);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether the node's process has ended by itself.
    pub fn ended(&mut self, node: usize) -> bool {
        match &mut self.processes[node].child {
            Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
            None => true,
        }
    }

    /// `kill -9`; the moment when kill(2) returned.
    pub fn kill(&mut self, node: usize) -> anyhow::Result<Instant> {
        let at = self.signal(node, rustix::process::Signal::KILL)?;
        self.wait(node, Duration::from_secs(10))?;
        Ok(at)
    }

    fn url(&self, node: usize, path: &str) -> String {
        format!("http://{}{path}", self.made.nodes[node].admin)
    }

    /// The pair as a node sees it; `None` if it does not answer.
    pub fn status(&self, node: usize) -> Option<Status> {
        let token = format!("Bearer {}", self.processes[node].token);
        let answer = self.http.get(self.url(node, "/v1/status")).header("Authorization", token).call();
        answer.ok().filter(|r| r.status() == 200)?.body_mut().read_json().ok()
    }

    /// The accounts as a node knows them.
    pub fn users(&self, node: usize) -> Option<Vec<UserStatus>> {
        let token = format!("Bearer {}", self.processes[node].token);
        let answer = self.http.get(self.url(node, "/v1/users")).header("Authorization", token).call();
        answer.ok().filter(|r| r.status() == 200)?.body_mut().read_json().ok()
    }

    fn post<T: serde::de::DeserializeOwned>(
        &self,
        node: usize,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<T> {
        let token = format!("Bearer {}", self.processes[node].token);
        let mut answer =
            self.http.post(self.url(node, path)).header("Authorization", token).send_json(body)?;
        if answer.status().as_u16() == 409 {
            let refusal: Refusal = answer.body_mut().read_json()?;
            bail!("refused: {} ({})", refusal.error, refusal.hint);
        }
        if !answer.status().is_success() {
            bail!("{path}: {} {}", answer.status(), answer.body_mut().read_to_string().unwrap_or_default());
        }
        Ok(answer.body_mut().read_json()?)
    }

    /// Adds an account.
    pub fn user_add(&self, via: usize, user: &str, home: usize) -> anyhow::Result<()> {
        let home = &self.made.nodes[home].name;
        let body = serde_json::json!({ "user": user, "password": PASSWORD, "home": home });
        self.post::<serde_json::Value>(via, "/v1/users", &body).map(|_| ())
    }

    /// Adds `u0`, `u1`, ... with these homes, several at a time.
    pub fn add_users(&self, homes: &[usize]) -> anyhow::Result<()> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let add = || loop {
            let user = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(home) = homes.get(user) else { return Ok(()) };
            self.user_add(*home, &client_sim::fleet::user_name(user), *home)?;
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8).map(|_| scope.spawn(add)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
        })
    }

    /// Fails a node over, or back to it; asked at `via`.
    pub fn action(&self, via: usize, node: usize, action: &str) -> anyhow::Result<Moving> {
        let path = format!("/v1/nodes/{}/{action}", self.made.nodes[node].name);
        self.post(via, &path, &serde_json::json!({}))
    }

    /// Waits until `condition` holds of a node's view.
    pub fn wait_status(
        &self,
        node: usize,
        limit: Duration,
        what: &str,
        condition: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        let deadline = Instant::now() + limit;
        let mut last = None;
        while Instant::now() < deadline {
            if let Some(status) = self.status(node) {
                if condition(&status) {
                    return Ok(status);
                }
                last = Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let name = &self.made.nodes[node].name;
        let seen = last.map_or("it did not answer".to_owned(), |s| {
            let states = s.nodes.iter().map(|n| format!("{}: {} / {}", n.name, n.state, n.reason));
            format!("{} ({})", states.collect::<Vec<_>>().join(", "), s.alarms.join("; "))
        });
        bail!("{what}: not within {limit:?}; {name} says: {seen}; see {}", self.log_file(node).display())
    }

    /// Waits until `condition` holds of every node's view, and the views are of the same processes: what a node says of a
    /// peer that died a moment ago, and what a node says at its start from its disk, is of the past.
    pub fn wait_all(
        &self,
        limit: Duration,
        what: &str,
        condition: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let mut views = Vec::new();
            for node in 0..self.made.nodes.len() {
                let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
                views.push(self.wait_status(node, left, what, &condition)?);
            }
            if same_runs(&views) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "{what}: after {limit:?} the nodes still do not know of each other's present processes"
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Both nodes Normal, each with a standby that can take over, on both views.
    pub fn wait_normal(&self, limit: Duration) -> anyhow::Result<()> {
        self.wait_all(limit, "both nodes Normal", protected)
    }

    /// Where clients connect.
    pub fn places(&self) -> Vec<Peer> {
        let place = |node: &crate::setup::MadeNode| Peer {
            node: node.name.as_str().into(),
            host: node.c2s_tls.ip().to_string().into(),
            port: node.c2s_tls.port(),
            direct_tls: true,
        };
        self.made.nodes.iter().map(place).collect()
    }

    /// How clients connect: they trust the authority that was made.
    pub fn dialer(&self) -> anyhow::Result<Dialer> {
        Ok(Dialer::new(c2s_client(&Authority::load(&self.made.ca)?)?))
    }
}

/// Whether all views are of the same processes.
fn same_runs(views: &[Status]) -> bool {
    let runs = |view: &Status| view.nodes.iter().map(|node| node.run).collect::<Vec<_>>();
    views.windows(2).all(|two| runs(&two[0]) == runs(&two[1]))
}

/// Both nodes Normal, in Pair, and without an alarm.
pub fn protected(status: &Status) -> bool {
    let pair = status.groups.iter().all(|g| g.mode == "Pair" && g.primary == g.home);
    status.row == Some(1) && pair && well(status)
}

impl Drop for Pair {
    fn drop(&mut self) {
        for process in &mut self.processes {
            if let Some(mut child) = process.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// No alarm but that of clocks that differ: a fact about the machines, which takes nothing from the pair.
pub fn well(status: &Status) -> bool {
    status.alarms.iter().all(|alarm| alarm.starts_with("the clocks of the nodes differ"))
}
