//! What happens to the files of a node from outside: lost, swapped, damaged, full, given up by the file system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;

/// Size of a disk that can be filled, or that the file system can give up.
const MEGABYTES: u64 = 64;
const BALLAST: &str = "ballast";

/// Where the node's own log is in the data folder.
pub(super) const OWN_LOG: &str = "log/own";

/// A disk of its own for a data folder, in memory: it can be filled.
pub(super) fn mount_small(data: &Path) -> Result<(), String> {
    mount_memory(data, MEGABYTES)
}

/// A disk in memory, which does not stand still for seconds while the machine writes something else to its own.
pub(super) fn mount_memory(folder: &Path, megabytes: u64) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o"])
        .arg(format!("size={megabytes}m,mode=700"))
        .args(["none"])
        .arg(folder))?;
    Ok(())
}

/// The same as a real file system that goes read-only at its first error.
pub(super) fn mount_ext4(data: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", data.display());
    fs::create_dir_all(data).map_err(failed)?;
    let image = image(data);
    let file = File::create(&image).map_err(failed)?;
    file.set_len(MEGABYTES << 20).map_err(failed)?;
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
    mount_image(data)
}

fn image(data: &Path) -> PathBuf {
    data.with_extension("ext4")
}

fn mount_image(data: &Path) -> Result<(), String> {
    let image = image(data);
    run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(image).arg(data)).map(|_| ())
}

/// The file system meets an error and is read-only from now on.
pub(super) fn give_up(data: &Path) -> Result<(), String> {
    run(Command::new("mount").args(["-o", "remount,abort"]).arg(data)).map(|_| ())
}

/// What an operator does after that.
pub(super) fn repair(data: &Path) -> Result<(), String> {
    run(Command::new("umount").arg(data))?;
    // 1: there were errors, and they are corrected.
    let status = Command::new("e2fsck").args(["-f", "-y"]).arg(image(data)).output();
    let status = status.map_err(|error| format!("e2fsck: {error}"))?;
    if status.status.code().is_none_or(|code| code > 1) {
        return Err(format!("e2fsck: {}", String::from_utf8_lossy(&status.stdout)));
    }
    mount_image(data)
}

/// Something else writes until nothing is left.
pub(super) fn fill(data: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", data.display());
    let mut file = File::create(data.join(BALLAST)).map_err(failed)?;
    let mut piece = 1 << 20;
    while piece > 0 {
        match file.write(&vec![1; piece]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => piece /= 2,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// And makes room again.
pub(super) fn free(data: &Path) -> Result<(), String> {
    fs::remove_file(data.join(BALLAST)).map_err(|error| format!("{}: {error}", data.display()))
}

/// Replaces what is in `to` by what is in `from`; nothing if that is `None`.
pub(super) fn replace(from: Option<&Path>, to: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", to.display());
    if to.exists() {
        fs::remove_dir_all(to).map_err(failed)?;
    }
    match from {
        Some(from) => copy(from, to).map_err(failed),
        None => fs::create_dir_all(to).map_err(failed),
    }
}

/// Copies a folder that may be changing: what is gone when its turn comes is left out.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let copied = match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target),
            false => fs::copy(entry.path(), target).map(|_| ()),
        };
        match copied {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// The largest file of the store has other bytes, but for its head.
pub(super) fn damage_store(data: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", data.display());
    let mut folders = vec![data.join("store")];
    let mut largest = (0, PathBuf::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let about = entry.metadata().map_err(failed)?;
            if about.is_dir() {
                folders.push(entry.path());
            } else if about.len() > largest.0 {
                largest = (about.len(), entry.path());
            }
        }
    }
    let mut bytes = fs::read(&largest.1).map_err(failed)?;
    let head = bytes.len().min(512);
    bytes[head..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    fs::write(&largest.1, bytes).map_err(failed)
}

/// The last record of the log in this folder was not written whole.
pub(super) fn tear(data: &Path, log: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", data.display());
    let path = last_segment(&data.join(log)).map_err(failed)?;
    let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    file.set_len(size.saturating_sub(7)).map_err(failed)
}

/// A byte in the middle of the node's own log is another one.
pub(super) fn rot(data: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", data.display());
    let path = last_segment(&data.join(OWN_LOG)).map_err(failed)?;
    let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
    let middle = SeekFrom::Start(file.metadata().map_err(failed)?.len() / 2);
    let mut byte = [0];
    file.seek(middle).and_then(|_| file.read_exact(&mut byte)).map_err(failed)?;
    file.seek(middle).and_then(|_| file.write_all(&[byte[0] ^ 0x10])).map_err(failed)
}

fn last_segment(log: &Path) -> io::Result<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(log)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "log") && fs::metadata(&path)?.len() > 0 {
            files.push(path);
        }
    }
    files.sort();
    files.pop().ok_or_else(|| io::Error::other("the log has no segment"))
}
