//! Writes both logs of a node until it is killed, for the test of power failures: `log-writer DIR INCARNATION
//! usual|large [KEEP]`. It prints `open OWN PEER`, the ends that it found, then `own SEQ` and `peer SEQ` for what it was told
//! is synced: the promise that the test holds it to. With `KEEP` it replaces all frames of the own log behind that one, prints
//! `own SEQ` when that is done, and writes nothing more.

use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::channel;

use load_tests::numbered::{Size, check_log, numbered_frame};
use presence_engine::ids::Position;
use session_mover::log::{FileLog, LogStore, Which};
use session_mover::runs::Runs;

/// Frames of each log that may wait for the disk.
const WAITING: u64 = 40;
/// Frames that take the place of others.
const INSTEAD: u64 = 3;

/// Other frames of this run in the place of all behind `keep`; how far they go.
fn replace(log: &mut FileLog, mut runs: Runs, keep: u64, inc: u64, size: Size) -> u64 {
    runs.truncate(keep);
    let mut instead = Vec::new();
    for seq in keep + 1..=keep + INSTEAD {
        let at = Position { seq, inc };
        instead.push(numbered_frame(at, runs.end(), size));
        runs.push(at);
    }
    log.replace_tail(Which::Own, keep, instead);
    runs.end().seq
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let ([dir, inc, size] | [dir, inc, size, _]) = &args[..] else { return ExitCode::from(2) };
    let keep: Option<u64> = args.get(3).and_then(|keep| keep.parse().ok());
    let Ok(inc) = inc.parse() else { return ExitCode::from(2) };
    let size = if size == "large" { Size::Large } else { Size::Usual };
    let (tell, told) = channel();
    let opened = FileLog::open(Path::new(dir), true, move |stored| _ = tell.send(stored));
    let mut log = match opened {
        Ok((log, _)) => log,
        Err(error) => {
            eprintln!("log-writer: {error}");
            return ExitCode::from(3);
        }
    };
    let mut found = [Runs::default(), Runs::default()];
    for which in [Which::Own, Which::Peer] {
        match check_log(&mut log, which, size) {
            Ok(runs) => found[which as usize] = runs,
            Err(error) => {
                eprintln!("log-writer: {error}");
                return ExitCode::from(1);
            }
        }
    }
    let mut ends = found.each_ref().map(Runs::end);
    println!("open {} {}", ends[0].seq, ends[1].seq);
    if let Some(keep) = keep {
        let [own, _] = found;
        println!("own {}", replace(&mut log, own, keep, inc, size));
        loop {
            std::thread::park();
        }
    }
    // As before a promotion: what an earlier run of the process received must be safe now too.
    log.sync(Which::Peer);
    println!("peer {}", ends[1].seq);
    let mut synced = ends.map(|end| end.seq);
    loop {
        for which in [Which::Own, Which::Peer] {
            let end = &mut ends[which as usize];
            if end.seq < synced[which as usize] + WAITING {
                let at = Position { seq: end.seq + 1, inc };
                log.append(which, at, numbered_frame(at, *end, size));
                *end = at;
            }
        }
        let full = (0..2).all(|i| ends[i].seq >= synced[i] + WAITING);
        let first = if full { told.recv().ok() } else { None };
        for stored in first.into_iter().chain(told.try_iter()).filter(|stored| stored.synced) {
            synced[stored.which as usize] = stored.at.seq;
            println!("{} {}", if stored.which == Which::Own { "own" } else { "peer" }, stored.at.seq);
        }
    }
}
