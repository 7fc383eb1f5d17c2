//! Writes the seeds that are made of what this version writes: after a change of a format, before a run of the fuzzer.

use load_tests::fuzz::seeds;

fn main() -> std::io::Result<()> {
    for (target, seeds) in [("link", seeds::of_link()), ("log", seeds::of_log())] {
        let folder = seeds::folder(target);
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds {
            std::fs::write(folder.join(name), bytes)?;
        }
        println!("{}", folder.display());
    }
    Ok(())
}
