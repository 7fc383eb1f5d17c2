//! One node or a pair in a temporary folder.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use srm::demo::pair::{DOMAIN, Pair};
use srm::setup::Plan;

use super::{Turn, place, tandem, turn, with};

/// How long they may take until they serve.
const LIMIT: Duration = Duration::from_secs(30);

/// The processes of a test, whose turn it is. All ends with this.
pub struct Nodes {
    pair: Pair,
    dir: tempfile::TempDir,
    _turn: Turn,
}

impl Nodes {
    /// Makes one node, or a pair of two, with these settings, and starts nothing yet.
    pub async fn make(nodes: usize, settings: &[(&str, &str)]) -> Nodes {
        Nodes::make_as(turn().await, nodes, false, settings)
    }

    /// Makes one node, or a pair of two, with these settings, and starts them.
    pub async fn start(nodes: usize, settings: &[(&str, &str)]) -> Nodes {
        let mut made = Nodes::make(nodes, settings).await;
        made.serve();
        made
    }

    pub(super) fn make_as(turn: Turn, nodes: usize, witness: bool, settings: &[(&str, &str)]) -> Nodes {
        let mut dir = tempfile::Builder::new();
        let dir = dir.prefix("tandem-test-").tempdir_in(place()).expect("a temporary folder");
        let plan = match nodes {
            2 => Plan::local_pair(DOMAIN, dir.path()),
            _ => Plan::local_single(DOMAIN, dir.path()),
        };
        let plan = with(plan.expect("free ports"), settings);
        let plan = if witness { plan.local_witness().expect("a free port") } else { plan };
        Nodes { pair: Pair::make(&tandem(), &plan).expect("files are made"), dir, _turn: turn }
    }

    /// Starts all of them, and waits until they serve.
    pub fn serve(&mut self) {
        let nodes = self.made.nodes.len();
        (0..nodes).for_each(|node| self.pair.start(node).expect("the node starts"));
        let served = match nodes {
            2 => self.wait_normal(LIMIT),
            _ => self.wait_status(0, LIMIT, "serving", |s| matches!(s.row, Some(1 | 120))).map(drop),
        };
        served.unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
    }

    /// Where all of them have their files.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The last lines of their logs.
    pub fn logs(&self) -> String {
        last_lines(&self.pair)
    }
}

impl Deref for Nodes {
    type Target = Pair;

    fn deref(&self) -> &Pair {
        &self.pair
    }
}

impl DerefMut for Nodes {
    fn deref_mut(&mut self) -> &mut Pair {
        &mut self.pair
    }
}

/// The last lines of the nodes' logs.
pub fn last_lines(pair: &Pair) -> String {
    let mut all = String::new();
    for node in 0..pair.made.nodes.len() {
        let text = std::fs::read_to_string(pair.log_file(node)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(25)..];
        all.push_str(&format!("--- {}\n{}\n", pair.made.nodes[node].name, last.join("\n")));
    }
    all
}
