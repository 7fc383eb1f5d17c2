//! What strangers and disks may say, as functions of bytes. Each target takes any bytes and panics where a property does not
//! hold. A coverage-guided fuzzer drives them (`load-tests/fuzz`), and so does a short run among the tests.

mod input;
mod jid;
mod link;
mod log;
pub mod mutate;
mod route;
mod sasl;
pub mod seeds;
mod xml;

/// Something that is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: of the folder with its seeds too.
    pub name: &'static str,
    /// Plays one input. A panic is a finding.
    pub run: fn(&[u8]),
    /// Mutations of seeds that the short run plays, about two seconds' worth.
    pub cases: u64,
    /// Longest input that is worth the time, in bytes.
    pub longest: usize,
}

/// All targets.
pub const TARGETS: [Target; 6] = [
    Target { name: "xml", run: xml::run, cases: 150_000, longest: 4_096 },
    Target { name: "jid", run: jid::run, cases: 70_000, longest: 2_048 },
    Target { name: "sasl", run: sasl::run, cases: 60_000, longest: 2_048 },
    Target { name: "route", run: route::run, cases: 6_000, longest: 8_192 },
    Target { name: "link", run: link::run, cases: 700_000, longest: 4_096 },
    Target { name: "log", run: log::run, cases: 15_000, longest: 4_096 },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
