//! Two hosts for the length of a test. Everything of a host ends with its first process.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const NAMES: [&str; 2] = ["a", "b"];
/// Ends the output of a block; its exit code follows.
const DONE: &str = "::done::";

/// Layers over what a host writes to, in a folder `$1` on a file system in memory, and systemd, which finds no units but the
/// page's and the few targets that these name. The shell is beside it, in a control group of its own: what enables
/// controllers wants no processes in the groups above.
const LAYERS: &str = r#"
mount --make-rprivate / && mount -t tmpfs tmpfs "$1" && mount -t tmpfs -o mode=755 tmpfs /run || exit 1
for d in etc root usr/local var/lib; do
  mkdir -p "$1/$d/upper" "$1/$d/work"
  mount -t overlay overlay -o "lowerdir=/$d,upperdir=$1/$d/upper,workdir=$1/$d/work" "/$d" || exit 1
done
umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && mkdir /sys/fs/cgroup/shell || exit 1
rm -rf /etc/tandem /var/lib/tandem /etc/systemd/system
mkdir -p /etc/systemd/system /run/units /run/lock
for target in sysinit basic shutdown multi-user network-online time-sync; do
  printf '[Unit]\nDefaultDependencies=no\n' > "/run/units/$target.target"
done
for unit in tandem tandem-witness; do
  mkdir "/run/units/$unit.service.d"
  printf '[Service]\nStandardOutput=append:/run/tandem.log\nStandardError=inherit\n' > "/run/units/$unit.service.d/log.conf"
done
printf '127.0.0.1 localhost\n10.98.0.1 a.example.org\n10.98.0.2 b.example.org b2.example.org\n' > /etc/hosts
ip link set lo up
install -m 755 "$2/scp" /usr/local/bin/
exec 3<&0
(
  echo $BASHPID > /sys/fs/cgroup/shell/cgroup.procs
  until systemctl is-active -q multi-user.target 2> /dev/null; do sleep 0.05; done
  exec bash <&3 3<&-
) &
exec env -i PATH="$PATH" container=tandem-test SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units \
  SYSTEMD_GENERATOR_PATH=/nowhere SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nowhere \
  /lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=0 < /dev/null 3<&- > /dev/null
"#;

/// Leaves the files where the test takes them to the other host from.
const SCP: &str = r#"#!/bin/bash
[ "$1" = -r ] && shift
to="${!#}"
out="$SPOOL/$(date +%s%N)"
mkdir -p "$out/files"
cp -r "${@:1:$#-1}" "$out/files/"
host="${to#*@}"
echo "${host%%.*}" > "$out/host"
echo "${to#*:}" > "$out/to"
"#;

struct Host {
    group: Group,
    shell: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Host {
    fn run(&mut self, commands: &str) -> (i32, String) {
        let block = format!("( set -e\n{commands}\n) 2>&1 </dev/null; code=$?; echo; echo {DONE}$code\n");
        self.input.write_all(block.as_bytes()).expect("the shell reads");
        self.input.flush().expect("the shell reads");
        let mut text = String::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("the shell writes");
            assert!(read > 0, "the host has ended: {text}");
            match line.strip_prefix(DONE) {
                Some(code) => return (code.trim().parse().expect("an exit code"), text),
                None => text.push_str(&line),
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // All processes of the host end with the first, and its networks and layers with them.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        self.group.remove();
    }
}

/// A control group, for a host's systemd to put its services below.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Group {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
        let mut mounts = mounts.lines().map(|line| line.split(' '));
        let root = mounts.find_map(|mut words| {
            let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(at))
        });
        let root =
            root.expect("the test needs control groups, version 2, mounted somewhere: mount -t cgroup2 …");
        // Several tests have hosts of these names at the same time.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let group = root.join(format!("tandem-test-{}-{number}-{name}", std::process::id()));
        fs::create_dir(&group).unwrap_or_else(|error| panic!("{}: {error}: run as root", group.display()));
        Group(group)
    }

    /// Once its processes have ended, which they do when the first of their namespace has.
    fn remove(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while remove_groups(&self.0).is_err() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn remove_groups(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Both hosts, with a cable between them.
pub struct Hosts {
    hosts: [Host; 2],
    dir: tempfile::TempDir,
}

impl Hosts {
    /// Starts them; what the page finds in the current folder is taken from the sources at `root` and this binary.
    pub fn start(root: &Path, binary: &Path) -> Hosts {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| dir.path().join(name);
        let script = |name: &str, text: &str| {
            fs::write(at(name), text).expect("a script");
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).expect("a script");
        };
        script("layers", LAYERS);
        script("scp", SCP);
        for folder in ["spool", "a", "b", "work/target/release", "work/srm/systemd"] {
            fs::create_dir_all(at(folder)).expect("a folder");
        }
        fs::copy(binary, at("work/target/release/tandem")).expect("the binary");
        for unit in ["srm/systemd/tandem.service", "srm/systemd/tandem-witness.service"] {
            fs::copy(root.join(unit), at("work").join(unit)).expect("the unit");
        }
        let mut hosts = NAMES.map(|name| host(name, dir.path()));
        for host in &mut hosts {
            // Answers once the layers are there.
            let (code, said) = host.run("id -u && ls /etc/hosts");
            assert_eq!(code, 0, "{said}");
        }
        cable(&hosts);
        let mut hosts = Hosts { hosts, dir };
        for (name, address) in [("a", "10.98.0.1"), ("b", "10.98.0.2")] {
            let commands = format!("ip address add {address}/24 dev eth0 && ip link set eth0 up");
            let (code, said) = hosts.run(name, &commands);
            assert_eq!(code, 0, "{said}");
        }
        hosts
    }

    /// Runs commands on a host; gives exit code and output. Files that were sent to the other host are there afterwards.
    pub fn run(&mut self, host: &str, commands: &str) -> (i32, String) {
        let done = self.host(host).run(commands);
        let spool = self.dir.path().join("spool");
        let mut sent: Vec<PathBuf> =
            fs::read_dir(&spool).expect("the spool").map(|entry| entry.expect("the spool").path()).collect();
        sent.sort();
        for parcel in sent {
            let read =
                |name: &str| fs::read_to_string(parcel.join(name)).expect("a parcel").trim().to_owned();
            let (to, path) = (read("host"), read("to"));
            let copy = format!(
                "shopt -s nullglob; files=({0}/files/*); if [ ${{#files[@]}} = 1 ] && [ -d $files ] && [ ! -e {path} ]; \
                 then cp -r $files {path}; else cp -r ${{files[@]}} {path}; fi",
                parcel.display()
            );
            let (code, said) = self.host(&to).run(&copy);
            assert_eq!(code, 0, "{said}");
            fs::remove_dir_all(&parcel).expect("the spool");
        }
        done
    }

    /// The program there is of this version from its next start on (`srm/src/version.rs`).
    pub fn upgrade(&mut self, host: &str, version: &str) {
        let variable = format!("[Service]\\nEnvironment=TANDEM_PROGRAM_VERSION={version}\\n");
        let file = "/run/units/tandem.service.d/version.conf";
        let (code, said) = self.run(host, &format!("printf '{variable}' > {file}\nsystemctl daemon-reload"));
        assert_eq!(code, 0, "{said}");
    }

    fn host(&mut self, name: &str) -> &mut Host {
        let at = NAMES.iter().position(|known| *known == name).unwrap_or_else(|| panic!("no host {name}"));
        &mut self.hosts[at]
    }

    /// The ends of both nodes' logs.
    pub fn logs(&mut self) -> String {
        let last = |host: &mut Host| host.run("tail -n 25 /run/tandem.log || true").1;
        let [a, b] = &mut self.hosts;
        format!("--- a\n{}--- b\n{}", last(a), last(b))
    }
}

fn host(name: &str, dir: &Path) -> Host {
    let group = Group::new(name);
    let mut command = Command::new("bash");
    command.args(["-c", r#"echo $$ > "$1/cgroup.procs" && shift && exec unshare "$@""#, "host"]);
    command.arg(&group.0).args(["--net", "--mount", "--uts", "--ipc", "--cgroup", "--pid"]);
    command.args(["--fork", "--kill-child", "--mount-proc", "bash"]);
    command.arg(dir.join("layers")).arg(dir.join(name)).arg(dir);
    command
        .env("SPOOL", dir.join("spool"))
        .env("HOME", "/root")
        .env("LC_ALL", "C")
        .current_dir(dir.join("work"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut shell = command.spawn().expect("unshare of util-linux: run as root, with that package installed");
    let input = shell.stdin.take().expect("a pipe");
    let output = BufReader::new(shell.stdout.take().expect("a pipe"));
    Host { group, shell, input, output }
}

/// A cable between the two, made in the network of the first.
fn cable(hosts: &[Host; 2]) {
    let [a, b] = hosts.each_ref().map(|host| inner_pid(host.shell.id()).to_string());
    let plug = ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &b];
    let status = Command::new("nsenter").args(["-t", &a, "-n"]).args(plug).status();
    let made = status.expect("nsenter of util-linux").success();
    assert!(made, "no cable: the test needs iproute2, and the right to make network devices (CAP_NET_ADMIN)");
}

/// The shell in its namespaces: the only child of unshare.
fn inner_pid(unshare: u32) -> u32 {
    let path = format!("/proc/{unshare}/task/{unshare}/children");
    let children = fs::read_to_string(path).expect("the host runs");
    children.split_whitespace().next().expect("the host runs").parse().expect("a process id")
}
