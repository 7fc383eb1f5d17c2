//! What the flap guard counts, and whether users went back in vain, kept for the next run: `failovers.json`.
//!
//! How much time has passed between two runs is told by the clock that runs since the machine started, for as long as that is
//! the same start; after another one by the wall clock, which may have been set. Ahead: the guard forgets. Back: nothing is
//! taken to have passed, and what is left is counted down from there, so that it is over after an hour of running at most.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::worker::now_ms;
use crate::node::Failovers;
use crate::sockets::boottime_ms;

const FAILOVERS: &str = "failovers.json";
/// Names a start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// During which start of the machine it was written, and so many milliseconds after that.
    boot: String,
    boottime_ms: u64,
    failovers: Failovers,
}

/// The clocks of a moment.
struct Moment {
    boot: String,
    boottime_ms: u64,
    wall_ms: u64,
}

impl Moment {
    fn now() -> Moment {
        // Where that cannot be read the wall clock has to do.
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        Moment { boot, boottime_ms: boottime_ms(), wall_ms: now_ms() }
    }
}

impl Kept {
    /// Milliseconds that have passed since it was written.
    fn passed_ms(&self, now: &Moment) -> u64 {
        let same = !self.boot.is_empty() && self.boot == now.boot;
        match now.boottime_ms.checked_sub(self.boottime_ms).filter(|_| same) {
            Some(passed) => passed,
            None => now.wall_ms.saturating_sub(self.failovers.at_ms),
        }
    }
}

/// What counts at this start. A file that cannot be read may not keep a node from starting.
pub fn read(data: &Path) -> Failovers {
    let left = read_at(data, &Moment::now());
    let left = left.unwrap_or_else(|error| {
        warn!(error = format!("{error:#}"), "what the flap guard counts cannot be read and is begun anew");
        Failovers::default()
    });
    // From here on it is counted by the clocks as they are now.
    let counts = !left.left_ms.is_empty() || left.soon_ms.is_some();
    if counts && let Err(error) = write(data, &left) {
        warn!(error = format!("{error:#}"), "what the flap guard counts is not kept");
    }
    left
}

fn read_at(data: &Path, now: &Moment) -> anyhow::Result<Failovers> {
    let path = data.join(FAILOVERS);
    match fs::read(&path) {
        Ok(bytes) => {
            let kept: Kept = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
            Ok(kept.failovers.after(kept.passed_ms(now), now.wall_ms))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Failovers::default()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Keeps it, durably, in place of what was there.
pub fn write(data: &Path, failovers: &Failovers) -> anyhow::Result<()> {
    write_at(data, failovers, Moment::now())
}

fn write_at(data: &Path, failovers: &Failovers, now: Moment) -> anyhow::Result<()> {
    let failovers = Failovers { at_ms: now.wall_ms, ..failovers.clone() };
    let kept = Kept { boot: now.boot, boottime_ms: now.boottime_ms, failovers };
    let path = data.join(FAILOVERS);
    let new = path.with_extension("new");
    let context = || format!("{}: cannot be written", path.display());
    let mut file = File::create(&new).with_context(context)?;
    file.write_all(&serde_json::to_vec(&kept)?).and_then(|()| file.sync_all()).with_context(context)?;
    fs::rename(&new, &path).with_context(context)?;
    File::open(data).and_then(|folder| folder.sync_all()).with_context(context)
}

/// What was written, whenever that was: for tests of the format.
#[cfg(test)]
pub fn written(data: &Path) -> anyhow::Result<Failovers> {
    let kept: Kept = serde_json::from_slice(&fs::read(data.join(FAILOVERS))?)?;
    Ok(kept.failovers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const WALL: u64 = 1_700_000_000_000;

    /// One failover that counts for so many minutes more.
    fn counted(minutes: u64) -> Failovers {
        Failovers { left_ms: vec![minutes * MINUTE], ..Failovers::default() }
    }

    fn at(boot: &str, boottime: u64, wall: u64) -> Moment {
        Moment { boot: boot.to_owned(), boottime_ms: boottime * MINUTE, wall_ms: WALL + wall * MINUTE }
    }

    #[test]
    fn what_is_left_is_told_by_the_machines_own_clock_or_else_by_the_wall_clock() {
        let dir = tempfile::tempdir().unwrap();
        let kept = counted(60);
        let left = |now: Moment| {
            let left = read_at(dir.path(), &now).unwrap().left_ms;
            left.first().map_or(0, |left| left / MINUTE)
        };
        assert_eq!(left(at("x", 0, 0)), 0, "there is none");
        write_at(dir.path(), &kept, at("x", 100, 500)).unwrap();
        // The wall clock was set meanwhile, and that is nobody's business.
        assert_eq!([left(at("x", 110, 0)), left(at("x", 110, 9_000)), left(at("x", 160, 0))], [50, 50, 0]);
        // After another start of the machine nothing else is known; the same if its clock cannot be.
        assert_eq!([left(at("y", 3, 520)), left(at("y", 300, 520)), left(at("x", 99, 520))], [40; 3]);
        assert_eq!([left(at("y", 3, 560)), left(at("", 110, 560))], [0, 0]);
        assert_eq!(left(at("y", 3, 0)), 60, "set back");
        write_at(dir.path(), &kept, at("", 100, 500)).unwrap();
        assert_eq!(left(at("", 110, 530)), 30, "which start it is, is not known");
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_guard_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let kept = counted(60);
        write_at(dir.path(), &kept, at("boot 0", 100, 1_000_000)).unwrap();
        // The machine is started anew every ten minutes, by a clock that is years behind.
        let left = [1, 2, 3, 4, 5, 6, 7].map(|boot| {
            let now = || at(&format!("boot {boot}"), 1, boot * 10);
            let left = read_at(dir.path(), &now()).unwrap();
            write_at(dir.path(), &left, now()).unwrap();
            left.left_ms.first().map_or(0, |left| left / MINUTE)
        });
        assert_eq!(left, [60, 50, 40, 30, 20, 10, 0]);
    }

    #[test]
    fn what_a_start_finds_is_counted_on_by_its_own_clocks() {
        let dir = tempfile::tempdir().unwrap();
        let kept = counted(60);
        // Written during another start of the machine, by a clock that was a day ahead.
        let Moment { wall_ms, .. } = Moment::now();
        let ahead = Moment { boot: "another".into(), boottime_ms: 0, wall_ms: wall_ms + 24 * 60 * MINUTE };
        write_at(dir.path(), &kept, ahead).unwrap();
        assert_eq!(read(dir.path()).left_ms, [60 * MINUTE]);
        // Ten minutes later, by either clock, the same start or another.
        for other in [false, true] {
            let Moment { boot, boottime_ms, wall_ms } = Moment::now();
            let boot = if other { "yet another".into() } else { boot };
            let now = Moment { boot, boottime_ms: boottime_ms + 10 * MINUTE, wall_ms: wall_ms + 10 * MINUTE };
            let left = read_at(dir.path(), &now).unwrap().left_ms;
            assert!(left.len() == 1 && (49 * MINUTE..=50 * MINUTE).contains(&left[0]), "{left:?}");
        }
    }

    #[test]
    fn it_is_kept_and_a_damaged_file_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), Failovers::default());
        write(dir.path(), &counted(10)).unwrap();
        let left = read(dir.path()).left_ms;
        assert!(left.len() == 1 && (9 * MINUTE..=10 * MINUTE).contains(&left[0]), "{left:?}");
        for damaged in ["{", "{\"left_ms\":[1]}", ""] {
            fs::write(dir.path().join(FAILOVERS), damaged).unwrap();
            assert_eq!(read(dir.path()), Failovers::default());
        }
    }

    #[test]
    fn that_users_went_back_in_vain_is_kept_however_long_and_how_soon_that_was_is_counted_down() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Failovers { soon_ms: Some(90 * MINUTE), in_vain: true, ..counted(60) };
        write_at(dir.path(), &kept, at("x", 100, 500)).unwrap();
        let found = |now: Moment| {
            let found = read_at(dir.path(), &now).unwrap();
            (found.left_ms.len(), found.soon_ms.map(|left| left / MINUTE), found.in_vain)
        };
        assert_eq!(found(at("x", 110, 0)), (1, Some(80), true));
        assert_eq!(found(at("y", 0, 570)), (0, Some(20), true));
        assert_eq!(found(at("x", 190, 0)), (0, None, true));
        // A start counts on by its own clocks, also where no failover counts any more.
        let kept = Failovers { soon_ms: Some(90 * MINUTE), in_vain: true, ..Failovers::default() };
        let Moment { wall_ms, .. } = Moment::now();
        let ahead = Moment { boot: "another".into(), boottime_ms: 0, wall_ms: wall_ms + 24 * 60 * MINUTE };
        write_at(dir.path(), &kept, ahead).unwrap();
        let found = read(dir.path());
        assert_eq!((found.soon_ms, found.in_vain), (kept.soon_ms, true));
        let Moment { boot, boottime_ms, wall_ms } = Moment::now();
        let later = Moment { boot, boottime_ms: boottime_ms + 10 * MINUTE, wall_ms: wall_ms + 10 * MINUTE };
        let soon = read_at(dir.path(), &later).unwrap().soon_ms;
        assert!(soon.is_some_and(|left| (79 * MINUTE..=80 * MINUTE).contains(&left)), "{soon:?}");
    }

    #[test]
    fn a_file_of_before_is_read_and_one_that_says_no_more_has_its_form() {
        let dir = tempfile::tempdir().unwrap();
        let before =
            r#"{"boot":"x","boottime_ms":6000000,"failovers":{"at_ms":1700000000000,"left_ms":[3600000]}}"#;
        let file = dir.path().join(FAILOVERS);
        fs::write(&file, before).unwrap();
        assert_eq!(read_at(dir.path(), &at("x", 110, 0)).unwrap(), Failovers { at_ms: WALL, ..counted(50) });
        write_at(dir.path(), &counted(60), at("x", 100, 0)).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), before);
    }
}
