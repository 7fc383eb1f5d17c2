//! A power failure, simulated: a process writes below a folder with `shim/powerloss.c` preloaded, is killed, and every
//! write that no fsync covered is undone. What is left is what a disk may hold when the lights come back.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::Rng;
use tempfile::TempDir;

/// Pieces in which a write may be lost: pages.
const PIECE: u64 = 4096;

/// The preloaded library, compiled.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
    _folder: TempDir,
}

impl Shim {
    /// Compiles it with `cc`, or with what the variable `CC` names.
    pub fn compile() -> io::Result<Shim> {
        let (library, folder) = compile("powerloss", include_str!("../shim/powerloss.c"))?;
        Ok(Shim { library, _folder: folder })
    }

    /// Lets this command run on a disk that can lose power. `data` must exist; `journal` too, beside it.
    pub fn preload(&self, command: &mut Command, data: &Path, journal: &Path) -> io::Result<()> {
        command.env("LD_PRELOAD", &self.library);
        command.env("TANDEM_POWERLOSS_DIR", data.canonicalize()?);
        command.env("TANDEM_POWERLOSS_JOURNAL", journal.canonicalize()?);
        Ok(())
    }
}

/// Compiles a library to be preloaded; where it is, and the folder that goes with it.
pub(crate) fn compile(name: &str, text: &str) -> io::Result<(PathBuf, TempDir)> {
    let folder = tempfile::tempdir()?;
    let (source, library) =
        (folder.path().join(format!("{name}.c")), folder.path().join(format!("{name}.so")));
    fs::write(&source, text)?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"];
    let status =
        Command::new(&compiler).args(flags).arg("-o").arg(&library).arg(&source).arg("-pthread").status();
    match status {
        Ok(status) if status.success() => Ok((library, folder)),
        Ok(status) => Err(io::Error::other(format!("{compiler:?} cannot compile the shim: {status}"))),
        Err(error) => Err(io::Error::new(error.kind(), format!("{compiler:?}, a C compiler: {error}"))),
    }
}

/// What a disk may do wrong while the process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// fsync and fdatasync say yes and do nothing.
    SyncIsNoop,
    /// They fail with EIO.
    SyncFails,
    /// They take so many milliseconds.
    SlowSync(u32),
    /// Writes fail with EIO.
    WriteFails,
    /// The disk is full: one write is cut short, the next fails with ENOSPC.
    DiskFull,
    /// A write takes half of what it is given, which is no error.
    WriteShort,
    /// Only the first call meets the others; then the disk is well.
    Once,
    /// Only the node's own log meets the others.
    OnlyOwnLog,
    /// Only its copy of the peer's log does.
    OnlyPeerLog,
    /// Only what it keeps of who leads does.
    OnlyCore,
    /// Only its store does.
    OnlyStore,
}

/// Sets the faults of the processes with this journal, from the next call on; none of them: the disk is well.
pub fn set_faults(journal: &Path, faults: &[Fault]) -> io::Result<()> {
    let word = |fault: &Fault| match fault {
        Fault::SyncIsNoop => "sync-noop ".to_owned(),
        Fault::SyncFails => "sync-eio ".to_owned(),
        Fault::SlowSync(ms) => format!("sync-slow={ms} "),
        Fault::WriteFails => "write-eio ".to_owned(),
        Fault::DiskFull => "write-enospc ".to_owned(),
        Fault::WriteShort => "write-short ".to_owned(),
        Fault::Once => "once ".to_owned(),
        Fault::OnlyOwnLog => "only-own-log ".to_owned(),
        Fault::OnlyPeerLog => "only-peer-log ".to_owned(),
        Fault::OnlyCore => "only-core ".to_owned(),
        Fault::OnlyStore => "only-store ".to_owned(),
    };
    let (new, name) = (journal.join("faults.new"), journal.join("faults"));
    fs::write(&new, faults.iter().map(word).collect::<String>())?;
    fs::rename(new, name)
}

/// How many calls have met a fault since the power failed last; a full disk does not count.
pub fn faults_met(journal: &Path) -> u64 {
    fs::metadata(journal.join("met")).map_or(0, |met| met.len())
}

/// Copies everything below a folder; panics where it cannot.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder is made");
    for entry in fs::read_dir(from).expect("a folder is read") {
        let entry = entry.expect("a folder is read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a file is looked at").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file is copied");
        }
    }
}

/// Which of the unsynced changes are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// All of them.
    All,
    /// Of writes, random pieces of 4 KiB; of sizes, some; of names, all after a random point.
    Pieces,
}

/// What an undoing did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Undone {
    /// Changes that no sync covered.
    pub unsynced: usize,
    /// Writes, pieces and cuts that were undone.
    pub writes: usize,
    /// Creations, removals and renamings that were undone.
    pub names: usize,
}

/// Undoes what no sync covered, after all processes with this journal are dead, and empties the journal.
pub fn undo_unsynced(data: &Path, journal: &Path, loss: Loss, rng: &mut impl Rng) -> io::Result<Undone> {
    let mut entries = read_journal(journal)?;
    drop_covered(&mut entries);
    let mut files = HashMap::new();
    open_all(data, &mut files)?;
    open_all(journal, &mut files)?;
    let mut undone = Undone { unsynced: entries.len(), ..Undone::default() };
    let names = entries.iter().filter(|e| e.is_name()).count();
    let names_lost = if loss == Loss::All { names } else { rng.random_range(0..=names) };
    for entry in entries.iter().rev() {
        if entry.is_name() {
            if undone.names < names_lost {
                undone.names += 1;
                undo_name(entry, journal)?;
            }
        } else if let Some(file) = files.get_mut(&entry.inode) {
            undone.writes += match loss {
                Loss::All => undo_whole(entry, file)?,
                Loss::Pieces => undo_pieces(entry, file, rng)?,
            };
        }
    }
    if loss == Loss::Pieces {
        undone.writes += undo_sizes(&entries, &files, rng)?;
    }
    fs::remove_dir_all(journal)?;
    fs::create_dir(journal)?;
    Ok(undone)
}

/// One record of the journal; the comment at `journal_write` in the shim says what the numbers are.
#[derive(Debug)]
struct Entry {
    time: u64,
    kind: u8,
    inode: u64,
    a: u64,
    b: u64,
    c: u64,
    bytes: Vec<u8>,
}

impl Entry {
    fn is_name(&self) -> bool {
        matches!(self.kind, b'C' | b'U' | b'R')
    }

    fn path(bytes: &[u8]) -> &Path {
        Path::new(OsStr::from_bytes(bytes))
    }
}

/// The records of all processes since the last power failure, in order.
fn read_journal(journal: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for file in fs::read_dir(journal)? {
        let file = file?;
        if file.file_name().as_bytes().starts_with(b"journal-") {
            entries.extend(parse(&fs::read(file.path())?));
        }
    }
    entries.sort_by_key(|entry| entry.time);
    Ok(entries)
}

/// Reads one journal. A record that is cut belongs to a call that was never made.
fn parse(mut rest: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let head = std::str::from_utf8(&rest[..end]).expect("a head is text");
        let words: Vec<&str> = head.split(' ').collect();
        let [time, kind, inode, a, b, c, length] = words[..] else { panic!("seven words in a head: {head}") };
        let number = |word: &str| word.parse::<u64>().expect("a number in a head");
        let Some(bytes) = rest[end + 1..].get(..number(length) as usize) else { break };
        entries.push(Entry {
            time: number(time),
            kind: kind.as_bytes()[0],
            inode: number(inode),
            a: number(a),
            b: number(b),
            c: number(c),
            bytes: bytes.to_vec(),
        });
        rest = &rest[end + 1 + bytes.len()..];
    }
    entries
}

/// Leaves the changes that no sync covered.
fn drop_covered(entries: &mut Vec<Entry>) {
    let mut begun = HashMap::new();
    // Of each inode, the place in the journal before which all is durable.
    let mut durable: HashMap<u64, usize> = HashMap::new();
    for (place, entry) in entries.iter().enumerate() {
        match entry.kind {
            b'S' => _ = begun.insert((entry.inode, entry.a), place),
            b'D' => {
                let place = begun[&(entry.inode, entry.a)];
                let until = durable.entry(entry.inode).or_default();
                *until = place.max(*until);
            }
            _ => {}
        }
    }
    let mut place = 0;
    entries.retain(|entry| {
        place += 1;
        !matches!(entry.kind, b'S' | b'D') && durable.get(&entry.inode).is_none_or(|until| place > *until)
    });
}

/// Opens every file below a folder, by inode: names change while we undo.
fn open_all(folder: &Path, files: &mut HashMap<u64, File>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_all(&entry.path(), files)?;
        } else {
            let file = OpenOptions::new().read(true).write(true).open(entry.path())?;
            files.insert(file.metadata()?.ino(), file);
        }
    }
    Ok(())
}

fn undo_name(entry: &Entry, journal: &Path) -> io::Result<()> {
    let saved = journal.join(format!("saved-{}", entry.a));
    match entry.kind {
        b'C' => {
            let path = Entry::path(&entry.bytes);
            match fs::symlink_metadata(path) {
                Ok(it) if it.is_dir() => fs::remove_dir_all(path),
                Ok(_) => fs::remove_file(path),
                // Killed before it was made, or gone with its folder.
                Err(_) => Ok(()),
            }
        }
        b'U' if saved.exists() => put_back(&saved, Entry::path(&entry.bytes)),
        b'R' => {
            let mut parts = entry.bytes.split(|b| *b == 0).map(Entry::path);
            let (Some(old), Some(new)) = (parts.next(), parts.next()) else {
                panic!("two paths in {entry:?}")
            };
            // Killed before it was done: the old name is still there.
            if !old.exists() && new.exists() {
                put_back(new, old)?;
            }
            if entry.a != 0 && saved.exists() {
                put_back(&saved, new)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Under its old name again, unless the folder that had it is gone for good, or has another name.
fn put_back(from: &Path, to: &Path) -> io::Result<()> {
    if to.parent().is_some_and(Path::is_dir) { fs::rename(from, to) } else { Ok(()) }
}

fn put(file: &mut File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

/// As if the write or cut had never been.
fn undo_whole(entry: &Entry, file: &mut File) -> io::Result<usize> {
    put(file, entry.a, &entry.bytes)?;
    file.set_len(entry.b)?;
    Ok(1)
}

/// As if some pages had not reached the disk: they hold what they held before, or zeros.
fn undo_pieces(entry: &Entry, file: &mut File, rng: &mut impl Rng) -> io::Result<usize> {
    if entry.kind == b'T' {
        return if rng.random() { undo_whole(entry, file) } else { Ok(0) };
    }
    let (size, mut undone) = (file.metadata()?.len(), 0);
    let end = (entry.a + entry.c).min(size);
    let mut at = entry.a;
    while at < end {
        let next = ((at / PIECE + 1) * PIECE).min(end);
        if rng.random() {
            let old = entry.bytes.get((at - entry.a) as usize..).unwrap_or_default();
            let mut piece = old[..old.len().min((next - at) as usize)].to_vec();
            piece.resize((next - at) as usize, 0);
            put(file, at, &piece)?;
            undone += 1;
        }
        at = next;
    }
    Ok(undone)
}

/// The size of a file that grew may have reached the disk late: every second one is one that it had meanwhile. A file system writes
/// the size with the pages of a write, so that it may end at any of them too, but never within one; a file that was cut or
/// extended has one size or the other.
fn undo_sizes(entries: &[Entry], files: &HashMap<u64, File>, rng: &mut impl Rng) -> io::Result<usize> {
    let mut undone = 0;
    let mut sizes: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.is_name()) {
        // The size before the first of them is durable.
        let sizes = sizes.entry(entry.inode).or_insert_with(|| vec![entry.b]);
        if entry.kind == b'T' {
            sizes.push(entry.a);
            continue;
        }
        let end = entry.a + entry.c;
        let pages = (entry.a / PIECE + 1)..end.div_ceil(PIECE);
        sizes.extend(pages.map(|page| page * PIECE).chain([end]).filter(|size| *size > entry.b));
    }
    for (inode, mut sizes) in sizes {
        let Some(file) = files.get(&inode) else { continue };
        let (before, now) = (sizes[0], file.metadata()?.len());
        sizes.retain(|size| (before..now).contains(size));
        if now > before && rng.random() && !sizes.is_empty() {
            file.set_len(sizes[rng.random_range(0..sizes.len())])?;
            undone += 1;
        }
    }
    Ok(undone)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// Runs a shell script in an empty folder and fails the power; the names and contents that are left.
    fn after(shim: &Shim, script: &str, loss: Loss, faults: &[Fault]) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let (data, journal) = (folder.path().join("data"), folder.path().join("journal"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&journal).unwrap();
        set_faults(&journal, faults).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&data);
        shim.preload(&mut command, &data, &journal).unwrap();
        assert!(command.status().unwrap().success(), "{script}");
        undo_unsynced(&data, &journal, loss, &mut StdRng::seed_from_u64(1)).unwrap();
        assert_eq!(fs::read_dir(&journal).unwrap().count(), 0);
        let mut left: Vec<_> = fs::read_dir(&data)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let content = fs::read_to_string(entry.path()).unwrap_or_else(|_| "a folder".into());
                (entry.file_name().into_string().unwrap(), content)
            })
            .collect();
        left.sort();
        left
    }

    const BEFORE: &str =
        "printf old1 >kept; printf old2 >replaced; printf old3 >removed; sync kept replaced removed .; ";
    const CHANGES: &str = "printf newer >>kept; printf cut >removed; printf x >fresh; mkdir folder; \
        printf y >folder/inside; mv fresh replaced; rm removed; mv kept moved; ";

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, content)| (name.to_string(), content.to_string())).collect()
    }

    #[test]
    fn names_and_contents_come_back() {
        let shim = Shim::compile().unwrap();
        let old = pairs(&[("kept", "old1"), ("removed", "old3"), ("replaced", "old2")]);
        let script = format!("{BEFORE}{CHANGES}");
        assert_eq!(after(&shim, &script, Loss::All, &[]), old);
        // Names whose folder was synced stay; contents have a sync of their own.
        let script = format!("{BEFORE}{CHANGES} sync .");
        let names = pairs(&[("folder", "a folder"), ("moved", "old1"), ("replaced", "")]);
        assert_eq!(after(&shim, &script, Loss::All, &[]), names);
    }

    #[test]
    fn what_is_synced_stays() {
        let shim = Shim::compile().unwrap();
        let script = format!("{BEFORE}{CHANGES} sync moved replaced .");
        let new = pairs(&[("folder", "a folder"), ("moved", "old1newer"), ("replaced", "x")]);
        for loss in [Loss::All, Loss::Pieces] {
            assert_eq!(after(&shim, &script, loss, &[]), new);
        }
        assert_eq!(after(&shim, &script, Loss::All, &[Fault::SyncIsNoop]), pairs(&[]));
    }

    #[test]
    fn a_fault_meets_only_the_files_that_it_is_for() {
        let shim = Shim::compile().unwrap();
        let script = "for f in log/own log/peer core/own store; do mkdir -p $f; \
            echo x | cat 2>/dev/null >$f/file || echo $f >>failed; done; sync failed .";
        for (only, wanted) in [
            (Fault::OnlyOwnLog, "log/own\n"),
            (Fault::OnlyPeerLog, "log/peer\n"),
            (Fault::OnlyCore, "core/own\n"),
            (Fault::OnlyStore, "store\n"),
        ] {
            let left = after(&shim, script, Loss::All, &[Fault::WriteFails, only]);
            let failed = left.into_iter().find(|(name, _)| name == "failed");
            assert_eq!(failed.map(|(_, which)| which).as_deref(), Some(wanted), "{only:?}");
        }
    }

    #[test]
    fn one_sync_fails_of_the_files_that_it_is_for_and_the_next_does_not() {
        let shim = Shim::compile().unwrap();
        let script = "for f in log/own log/peer core/own; do mkdir -p $f; echo x >$f/file; for try in 1 2; do \
            sync -d $f/file 2>/dev/null || echo $f $try >>failed; done; done; sync failed .";
        for (only, wanted) in [
            (Fault::OnlyOwnLog, "log/own 1\n"),
            (Fault::OnlyPeerLog, "log/peer 1\n"),
            (Fault::OnlyCore, "core/own 1\n"),
        ] {
            let left = after(&shim, script, Loss::All, &[Fault::SyncFails, Fault::Once, only]);
            let failed = left.into_iter().find(|(name, _)| name == "failed");
            assert_eq!(failed.map(|(_, which)| which).as_deref(), Some(wanted), "{only:?}");
        }
    }

    #[test]
    fn pieces_are_lost_one_by_one() {
        let shim = Shim::compile().unwrap();
        let script = "printf %1000000s >big; sync .";
        let left = after(&shim, script, Loss::Pieces, &[]);
        let (spaces, zeros) = left[0].1.bytes().partition::<Vec<_>, _>(|b| *b == b' ');
        assert!(zeros.iter().all(|b| *b == 0) && !spaces.is_empty() && !zeros.is_empty());
    }
    #[test]
    fn a_size_is_one_that_the_file_had_or_ends_with_a_page() {
        let sizes = |entries: &[Entry]| {
            let (mut found, mut rng) = (std::collections::BTreeSet::new(), StdRng::seed_from_u64(1));
            for _ in 0..200 {
                let file = tempfile::tempfile().unwrap();
                file.set_len(10_000).unwrap();
                undo_sizes(entries, &HashMap::from([(1, file.try_clone().unwrap())]), &mut rng).unwrap();
                found.insert(file.metadata().unwrap().len());
            }
            found.into_iter().collect::<Vec<_>>()
        };
        let entry =
            |kind: u8, a: u64, b: u64, c: u64| Entry { time: 0, kind, inode: 1, a, b, c, bytes: Vec::new() };
        assert_eq!(sizes(&[entry(b'T', 10_000, 100, 0)]), [100, 10_000]);
        assert_eq!(sizes(&[entry(b'W', 100, 100, 9_900)]), [100, 4_096, 8_192, 10_000]);
        let some = [entry(b'W', 100, 100, 400), entry(b'T', 10_000, 500, 0), entry(b'W', 500, 10_000, 9_500)];
        assert_eq!(sizes(&some), [100, 500, 10_000]);
    }
}
