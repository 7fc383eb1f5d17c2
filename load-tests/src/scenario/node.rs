//! One node: its process and its log file, and the documented commands, given where the node is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::language::{Node, Site};
use super::net::Net;
use super::programs::Program;
use super::watch::{ADMIN, http};

/// One node.
pub(super) struct Server {
    /// Which one.
    pub(super) node: Node,
    /// Where its configuration is.
    pub(super) folder: PathBuf,
    /// Environment of its next start.
    pub(super) env: BTreeMap<OsString, OsString>,
    tandem: PathBuf,
    child: Option<Child>,
    ended: Option<ExitStatus>,
    /// Where in the log file its present run begins.
    log_from: u64,
}

impl Server {
    /// A node that does not run yet; `folder` is what `tandem init` made for it.
    pub(super) fn new(node: Node, folder: PathBuf, program: Program) -> Server {
        let (env, tandem) = (BTreeMap::new(), PathBuf::new());
        let mut server = Server { node, folder, env, tandem, child: None, ended: None, log_from: 0 };
        server.install(program);
        server
    }

    /// From its next start on this is its program, and so are the commands that are given there.
    pub(super) fn install(&mut self, program: Program) {
        self.tandem = program.path;
        for (name, value) in program.env {
            match value {
                Some(value) => self.env.insert(name.into(), value.into()),
                None => self.env.remove(&OsString::from(name)),
            };
        }
    }

    /// Its data folder.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn config(&self) -> PathBuf {
        self.folder.join("tandem.toml")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// Adds settings to its configuration file, each in its section.
    pub(super) fn set(&self, settings: &[(String, String)]) -> io::Result<()> {
        let mut text = fs::read_to_string(self.config())?;
        for (key, value) in settings {
            let (section, name) = key.split_once('.').unwrap_or((key, ""));
            let bare = value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok();
            let line = if bare { format!("{name} = {value}\n") } else { format!("{name} = {value:?}\n") };
            let head = format!("[{section}]\n");
            match text.find(&head) {
                Some(at) => text.insert_str(at + head.len(), &line),
                None => text.push_str(&format!("\n{head}{line}")),
            }
        }
        fs::write(self.config(), text)
    }

    /// `tandem serve`, unless it runs.
    pub(super) fn start(&mut self, net: &Net) -> Result<(), String> {
        if self.runs() {
            return Ok(());
        }
        let failed = |error: io::Error| format!("{}: {error}", self.tandem.display());
        let log = File::options().create(true).append(true).open(self.log_file()).map_err(failed)?;
        self.log_from = log.metadata().map_err(failed)?.len();
        let mut command = self.command(&["serve"]);
        command.envs(&self.env).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        self.child = Some(net.inside(Site::Node(self.node), || command.spawn()).map_err(failed)?);
        self.ended = None;
        Ok(())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.tandem);
        command.args(args).arg("-c").arg(self.config());
        command
    }

    /// A command of the operator's, given on this node's machine; what it printed.
    pub(super) fn tandem(&self, net: &Net, args: &[&str], input: &str) -> Result<String, String> {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: io::Error| format!("tandem {}: {error}", args.join(" "));
        let mut child = net.inside(Site::Node(self.node), || command.spawn()).map_err(failed)?;
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).map_err(failed)?;
        let output = child.wait_with_output().map_err(failed)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!(
                "tandem {} at {}: {}: {} {}",
                args.join(" "),
                self.node,
                output.status,
                text(&output.stdout),
                text(&output.stderr)
            )),
        }
    }

    /// What it shows for monitoring under this name, in all.
    pub(super) fn metric(&self, net: &Net, name: &str) -> Result<f64, String> {
        let failed = |error: io::Error| format!("the metrics of {}: {error}", self.node);
        let ask = || {
            let ask = http().get(format!("{ADMIN}/metrics")).header("Authorization", &self.token()?);
            ask.call().and_then(|mut answer| answer.body_mut().read_to_string()).map_err(ureq::Error::into_io)
        };
        let shown = net.inside(Site::Node(self.node), ask).map_err(failed)?;
        Ok(sum(&shown, name))
    }

    /// What lets the operator in at its admin API.
    pub(super) fn token(&self) -> io::Result<String> {
        let token = fs::read_to_string(self.folder.join("admin.token"))?;
        Ok(format!("Bearer {}", token.trim()))
    }

    /// Whether its process is there. One that has ended by itself is noticed here.
    pub(super) fn runs(&mut self) -> bool {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            self.ended = Some(status);
            self.child = None;
        }
        self.child.is_some()
    }

    /// Whether its process was stopped, and what it does instead.
    pub(super) fn stands_still(&mut self) -> Result<(), String> {
        self.runs();
        let pid = self.child.as_ref().map_or(0, Child::id);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses, then the state.
        match stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('T')) {
            Some(true) => Ok(()),
            _ => Err(format!("{} goes on: {stat}", self.node)),
        }
    }

    /// How it ended, if that was by itself.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.runs();
        self.ended
    }

    /// Sends a signal; when that was done.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<Instant, String> {
        if !self.runs() {
            return Err(format!("{} does not run: {:?}", self.node, self.ended));
        }
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32));
        kill_process(pid.expect("it runs"), signal).map_err(|e| format!("{}: {e}", self.node))?;
        Ok(Instant::now())
    }

    /// Waits for its end, after a signal.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + limit;
        while self.runs() {
            if Instant::now() > deadline {
                return Err(format!("{} does not end within {limit:?}", self.node));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.ended.take().ok_or_else(|| format!("{} did not run", self.node))
    }

    /// What it has logged so far is of the past: [`Self::log`] lacks it.
    pub(super) fn begin_log(&mut self) {
        self.log_from = fs::metadata(self.log_file()).map_or(0, |log| log.len());
    }

    /// What it has logged since it was started last, and since the scenario began.
    pub(super) fn log(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(self.log_file()) {
            let _ = file.seek(SeekFrom::Start(self.log_from)).and_then(|_| file.read_to_end(&mut text));
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// What it has ever logged.
    pub(super) fn whole_log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// Names of what it has set aside, with their lengths in bytes.
    pub(super) fn aside(&self) -> Vec<(String, u64)> {
        let entries = fs::read_dir(self.data().join("aside")).into_iter().flatten().filter_map(Result::ok);
        let named =
            |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.len()));
        entries.filter_map(named).collect()
    }

    /// The most that its process has had in RAM since its last start, in bytes.
    pub(super) fn peak_rss(&mut self) -> Option<u64> {
        self.runs();
        self.child.as_ref().map(|child| crate::siege::peak_rss(child.id()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What is shown for monitoring under this name, in all. Values of labels have no quotes in a name.
fn sum(shown: &str, name: &str) -> f64 {
    let shown = shown.replace('"', "");
    let samples = shown.lines().filter_map(|line| line.strip_prefix(name));
    let samples = samples.filter(|rest| rest.starts_with([' ', '{']));
    samples.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_counted_in_all_or_by_its_labels() {
        let shown =
            "# HELP came All.\ncame_total{by=\"door\"} 3\ncame_total{by=\"window\"} 2\ncame_total_ever 7\n";
        assert_eq!(sum(shown, "came_total"), 5.0);
        assert_eq!(sum(shown, "came_total{by=window}"), 2.0);
        assert_eq!(sum(shown, "came"), 0.0);
        assert_eq!(sum(shown, "came_total_ever"), 7.0);
    }
}
