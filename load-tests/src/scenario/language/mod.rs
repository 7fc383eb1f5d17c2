//! The language of scenarios: what a file may say. `parse.rs` reads it.

mod condition;
mod forms;
mod parse;

use std::fmt;
use std::time::Duration;

pub use forms::FORMS;
pub use parse::{ParseError, parse};

/// A node of the pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Node {
    A,
    B,
}

impl Node {
    /// Both.
    pub const BOTH: [Node; 2] = [Node::A, Node::B];

    /// 0 or 1.
    pub fn index(self) -> usize {
        usize::from(self == Node::B)
    }

    /// The peer.
    pub fn other(self) -> Node {
        Node::BOTH[1 - self.index()]
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["a", "b"][self.index()])
    }
}

/// A machine with a cable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Site {
    Node(Node),
    Witness,
    Clients,
    Half,
    Rest,
}

impl Site {
    /// Whether it is some of the clients: those have an address of their own, and the way into the network of all.
    pub(super) fn is_part(self) -> bool {
        matches!(self, Site::Half | Site::Rest)
    }
}

/// What holds the registers beside the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arbiter {
    /// `tandem witness`.
    Witness,
    /// An etcd with one member.
    Etcd,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Name of the file without its ending.
    pub name: String,
    /// Its first lines: what it shows.
    pub shows: String,
    /// Settings of both nodes besides the usual ones: `section.key`, and the value as TOML.
    pub settings: Vec<(String, String)>,
    /// Who decides who goes on alone, beside the nodes.
    pub witness: Option<Arbiter>,
    /// Both nodes begin with the program of the version before.
    pub before: bool,
    /// Who is logged in.
    pub clients: Clients,
    /// What happens, in order.
    pub lines: Vec<Line>,
}

/// Who is logged in, half at home on each node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// Clients with a second, parked stream.
    pub dual: usize,
    /// Clients that know nothing of it.
    pub plain: usize,
    /// Clients that others wrote: slixmpp.
    pub slixmpp: usize,
    /// They talk and change presence all the time.
    pub chat: bool,
    /// Each message is at least so long.
    pub bytes: Option<usize>,
}

/// One line of what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file.
    pub number: usize,
    /// Its text.
    pub text: String,
    /// Not before this time since the chat began.
    pub at: Option<Duration>,
    /// What is done.
    pub step: Step,
}

/// What a line does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `kill -9`, as close together as possible.
    Kill(Vec<Node>),
    /// SIGTERM; it must end well, by itself.
    Stop(Node),
    /// SIGSTOP.
    Pause(Vec<Node>),
    /// The same, at the moment between the decision that something may leave and its way to the socket.
    PauseReleasing(Node),
    /// SIGCONT.
    Continue(Vec<Node>),
    /// Starts what does not run.
    Start(Vec<Node>),
    /// The program of a node is of this version from now on, and is started unless it runs.
    StartVersion(Node, String),
    /// It is the one of the version before, and is started unless it runs.
    StartBefore(Node),
    /// Pulls the network cable.
    Unplug(Node),
    /// Puts it in again.
    Plug(Node),
    /// No path between the first and the others any more; each still sees everybody else.
    Cut(Site, Vec<Site>),
    /// No path from the first to the others any more; the way back is there.
    CutOneWay(Site, Vec<Site>),
    /// What goes between the two takes a path that does this to it.
    Path(Site, Site, PathFaults),
    /// All paths are there again, and well.
    Mend,
    /// `kill -9` of the witness.
    KillWitness,
    /// Starts it again.
    StartWitness,
    /// Its disk is replaced by an empty one; it does not run.
    EmptyWitness,
    /// Its process is gone, and all writes that were not synced.
    PowerOffWitness,
    /// The next write to its disk fails, the one after it does not.
    FailWitnessWrite,
    /// The network is gone without a word, the process too, and writes that were not synced in part.
    PowerOff(Vec<Node>),
    /// A client says something that hits a bug, which panics.
    Panic(Node),
    /// A client says something that hits a bug in the task of its connection.
    PanicStream(Node),
    /// A supervisor of critical services panics.
    PanicServices(Node),
    /// Something happens to the disk.
    Disk(Node, DiskStep),
    /// The wall clock is put forward or back, in seconds.
    Clock(Node, i64),
    /// `tandem fallback` or `tandem failover`, asked of the other node.
    Move(Node, &'static str),
    /// A command of the operator at a node.
    Tandem(Node, String),
    /// Both slixmpp clients say so many messages to each other.
    Talk(usize),
    /// Waits until it is so.
    Wait(Condition, Duration),
    /// It must be so all the time.
    Hold(Condition, Duration),
    /// It must be so now.
    Assert(Condition),
    /// The books are closed.
    Ledger(Books),
}

/// What a path does to the packets on it. Chances are in percent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathFaults {
    /// Chance that one is lost.
    pub loss: u8,
    /// Each takes so long, in either direction.
    pub delay: Duration,
    /// Chance that one comes twice.
    pub twice: u8,
    /// Chance that one is held back, so that later ones overtake it.
    pub disorder: u8,
    /// Those with more bytes are lost, all of them.
    pub at_most: Option<usize>,
    /// Chance that one with data of a TCP connection is the last of it, and comes by half.
    pub resets: u8,
    /// All are lost for so long, none for so long, and again.
    pub flaps: Option<Duration>,
    /// Bits that go in a second, in either direction; `None`: as many as come. Measurements have it, scenarios have no word
    /// for it.
    pub rate: Option<u64>,
}

/// How strictly the books are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Books {
    /// Every session goes on, and everybody gets everything once and in order.
    Strict,
    /// A plain client whose session was refused gets again what it had not acknowledged.
    Refused,
    /// Both nodes led the same users alone, which the policy `available` permits: any session may be refused, and messages may
    /// be shown twice or late, and presence changes for a moment. Nothing is lost, and nothing shown more often than this, if
    /// the scenario says how often.
    Apart(Option<u32>),
}

/// What happens to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskStep {
    /// Replaced by an empty one.
    Empty,
    /// Its content is copied.
    Keep,
    /// The copy is put back.
    PutBack,
    /// The other node's content.
    OfPeer,
    /// The content of a disk of the same node in another cluster.
    OfOtherCluster,
    /// Its store is gone.
    StoreLost,
    /// A file of its store is damaged.
    StoreDamaged,
    /// The store is that of the other node.
    StoreOfPeer,
    /// The last record of this log is torn.
    Torn(Part),
    /// A byte in the middle of the node's own log is another.
    Rotten,
    /// Another process fills it.
    Full,
    /// That process removes what it wrote.
    Free,
    /// The file system gives up and is read-only.
    ReadOnly,
    /// It is repaired and can be written again.
    Writable,
    /// The next fdatasync of this fails, the one after it does not.
    SyncFailsOnce(Part),
    /// The next write to this fails, the one after it does not.
    WriteFailsOnce(Part),
    /// The next write to this is cut short.
    WriteShortOnce(Part),
    /// Each fdatasync takes so long.
    Slow(Duration),
    /// The next fdatasync of this takes so long.
    Stalls(Part, Duration),
    /// Each write to the store fails.
    StoreFails,
    /// None of these any more, from [`DiskStep::SyncFailsOnce`] on.
    Well,
}

/// What of a node's disk it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The node's own log.
    OwnLog,
    /// Its copy of the other node's log.
    Copy,
    /// Who leads, as it remembers it.
    Core,
}

/// What may be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The first node shows this state (and reason) of the second.
    State(Node, Node, String),
    /// The first node has not heard the second for so long, and says so.
    Misses(Node, Node, Duration),
    /// The node shows an alarm with this text.
    Alarm(Node, String),
    /// The node's log has this text, since its last start, or since the scenario began.
    Log(Node, String),
    /// The node has written an event with this text since the chat began.
    Event(Node, String),
    /// The node has written so many events with this text since the chat began.
    Events(Node, usize, String),
    /// The samples of this metric of the node are at least this much together.
    Counts(Node, u64, String),
    /// The node has set something aside in a file whose name begins so.
    Aside(Node, String),
    /// The witness has made the first node lead the users of the second, and nobody else since.
    WitnessSays(Node, Node),
    /// The witness has ended by itself, and not well, and its log has this text.
    WitnessEnded(String),
    /// The node's process has ended by itself, and not well.
    Ended(Node),
    /// The node's process is there.
    Runs(Node),
    /// Both groups are in Pair, on both views, and nothing is wrong.
    Pair,
    /// The same, and every group is at home.
    Protected,
    /// As [`Condition::Pair`], but for the alarm that the nodes are of two versions, which both show.
    PairOfTwoVersions,
    /// As [`Condition::Protected`], likewise.
    ProtectedOfTwoVersions,
    /// Both nodes hold the same, and have each other's logs.
    Same,
    /// Everybody, or everybody at home on a node, has a session with a live stream.
    Clients(Option<Node>),
    /// Everybody has one with this node. A cut tells a client nothing: until its limit of silence is over, it takes a
    /// dead stream for a live one, but not for one with the other node.
    ClientsAt(Node),
    /// Everybody of a part of the clients has one with this node.
    PartAt(Site, Node),
    /// Nobody at home on this node has one.
    NoClients(Node),
    /// No client has lost a stream since the chat began.
    NoReconnects,
    /// Every client that a fault hit has its session, and each that had parked then got it on that stream, within this time;
    /// half of these within the other, if there is one.
    Flips(Duration, Option<Duration>),
    /// Every dual client has parked.
    Parked,
    /// No dual client has had to connect anew for its session, and no session was refused, since the chat began.
    StreamsKept,
    /// Clients have lost so many streams since the chat began, their second ones too.
    StreamsLost(u64),
    /// Some message is acknowledged in every span of time of this length, of those at home on a node or of all.
    Flow(Option<Node>, Duration),
    /// No message of anybody, likewise, waits for longer until it is shown or acknowledged.
    FlowEach(Option<Node>, Duration),
    /// The same of what dual clients say to dual clients.
    FlowAmongDual(Duration),
    /// So many more messages are acknowledged, of those at home on a node or of all.
    Traffic(u64, Option<Node>),
    /// So many more messages of a part of the clients are.
    PartTraffic(u64, Site),
    /// So many messages in a hundred of those that are said in a time, or more, are acknowledged in it.
    Throughput(u64),
    /// No message is acknowledged, likewise.
    NoTraffic(Option<Node>),
    /// The last line of the node's log bears a time that is so many seconds ahead.
    Clock(Node, i64),
    /// So many calls of the node have met a fault of its disk.
    Met(Node, u64),
    /// So many packets have met a fault of their path.
    PathMet(u64),
    /// The slixmpp clients are logged in, with the session that they had.
    SlixmppResumed,
    /// It is not so, as whoever is asked answers.
    Not(Box<Condition>),
}

impl Step {
    /// Whether this is what the scenario is about, and not what is done or seen around it.
    pub fn is_fault(&self) -> bool {
        match self {
            Step::Kill(_) | Step::Stop(_) | Step::Pause(_) | Step::PauseReleasing(_) | Step::Continue(_) => {
                true
            }
            Step::Cut(..) | Step::CutOneWay(..) | Step::Path(..) | Step::Mend => true,
            Step::KillWitness | Step::StartWitness | Step::EmptyWitness => true,
            Step::PowerOffWitness | Step::FailWitnessWrite => true,
            Step::Unplug(_) | Step::Plug(_) | Step::PowerOff(_) | Step::Clock(..) => true,
            Step::Panic(_) | Step::PanicStream(_) | Step::PanicServices(_) => true,
            Step::Tandem(_, command) => !command.starts_with("fallback"),
            Step::Disk(_, step) => !matches!(step, DiskStep::Keep),
            _ => false,
        }
    }

    /// Whether this does harm: a fault that does not end one.
    pub fn does_harm(&self) -> bool {
        let ends = matches!(
            self,
            Step::Continue(_)
                | Step::Plug(_)
                | Step::Mend
                | Step::StartWitness
                | Step::Disk(_, DiskStep::Free | DiskStep::Writable | DiskStep::Well)
        );
        self.is_fault() && !ends
    }
}

impl Script {
    /// Whether a condition of the file is about events.
    pub(super) fn asks_for_events(&self) -> bool {
        fn is_event(condition: &Condition) -> bool {
            match condition {
                Condition::Not(inner) => is_event(inner),
                other => matches!(other, Condition::Event(..) | Condition::Events(..)),
            }
        }
        self.has(|step| match step {
            Step::Wait(condition, _) | Step::Hold(condition, _) | Step::Assert(condition) => {
                is_event(condition)
            }
            _ => false,
        })
    }

    /// Whether a step of the file is this.
    pub(super) fn has(&self, fits: impl Fn(&Step) -> bool) -> bool {
        self.lines.iter().any(|line| fits(&line.step))
    }
}
