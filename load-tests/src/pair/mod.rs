//! Two whole nodes on a virtual clock, with disks, networks and clients that fail as a seed says.
//!
//! Everything derives from the seed: a failing one is printed and replays exactly (`PAIR_SEED=n`). First faults happen
//! under load, then they end, and the pair must heal by itself: everything acknowledged was shown, nothing twice,
//! nothing out of order, and both nodes hold the same.

mod alone;
pub mod client;
mod config;
pub mod deaths;
mod disks;
mod due;
mod early;
pub mod faults;
pub mod group;
pub mod held;
pub mod host;
pub mod late;
pub mod ledger;
pub mod link;
pub mod names;
mod news;
mod oracle;
mod path;
mod patience;
pub mod people;
mod program;
pub mod questions;
mod restarts;
pub mod rng;
pub mod rows;
pub mod seek;
mod services;
pub mod socket;
pub mod storm;
mod tokens;
mod trace;
mod witness;
pub mod world;

pub use faults::Fault;
pub use host::Then;
pub use oracle::{Verdict, replay, run, scenario};
pub use program::{Player, program};

/// What a run is like.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// `commit = "peer-and-disk"`.
    pub peer_and_disk: bool,
    /// Policy `available`. Otherwise `strict`: nobody takes over but by an operator's word, given where the other is dead.
    pub available: bool,
    /// A witness decides: policy `strict+witness`.
    pub witness: bool,
    /// Faults at most; 0: none.
    pub faults: u64,
    /// Power is lost.
    pub power: bool,
    /// Longest pause and cut, in milliseconds.
    pub longest: u64,
    /// Beacons that are lost, in a hundred.
    pub beacon_loss: u64,
    /// What the path between the nodes takes for one way, in milliseconds.
    pub latency: u64,
    /// How far the wall clock of each node is off, in milliseconds.
    pub skew: [i64; 2],
    /// Sessions may be refused after a takeover that could not know everything (D6).
    pub may_refuse: bool,
    /// Both nodes may lead one group alone for a while: what was acknowledged may come late, or twice (D6, D7).
    pub weak: bool,
    /// Clients have contacts and change their presence.
    pub people: bool,
    /// Users write into their rosters while things go wrong.
    pub names: bool,
    /// Critical services stop, and nodes fail over for it.
    pub services: bool,
    /// Operators switch high availability and assign users to other homes.
    pub group: bool,
    /// They have both nodes checked, again and again: nothing is ever different.
    pub checks: bool,
    /// Automatics are disabled, and operators force nodes inactive and active.
    pub held: bool,
    /// The group has one node, the first.
    pub single: bool,
    /// All clients are plain and give up an attempt to resume after 0.3 to 3 s, and the path between the nodes is slow at
    /// times.
    pub impatient: bool,
    /// Among them are dual clients after all.
    pub mixed: bool,
    /// Operators have nodes restarted, which say so before (rows 5 to 9).
    pub restarts: bool,
    /// With `weak`: the nodes are cut off from each other with some of the clients each, until both serve everybody, and meet
    /// again. What may come late, or twice, may only then.
    pub alone: bool,
}

impl Profile {
    /// Nothing goes wrong.
    pub const CALM: Profile = Profile {
        peer_and_disk: false,
        available: true,
        witness: false,
        faults: 0,
        power: false,
        longest: 0,
        beacon_loss: 0,
        latency: 0,
        skew: [0; 2],
        may_refuse: false,
        weak: false,
        people: false,
        names: false,
        services: false,
        group: false,
        checks: false,
        held: false,
        single: false,
        impatient: false,
        mixed: false,
        restarts: false,
        alone: false,
    };
    /// All faults under which the full promise holds.
    pub const STRICT: Profile =
        Profile { faults: 4, power: true, longest: 7_000, beacon_loss: 2, ..Profile::CALM };
    /// The same with contacts: nobody is shown a flicker, and everybody the present in the end.
    pub const PEOPLE: Profile = Profile { people: true, ..Profile::STRICT };
    /// The same with `commit = "peer-and-disk"`.
    pub const DISK: Profile = Profile { peer_and_disk: true, ..Profile::STRICT };
    /// The same with critical services that stop, and contacts.
    pub const SERVICES: Profile = Profile { services: true, faults: 6, ..Profile::PEOPLE };
    /// The same with operators who switch high availability and assign users.
    pub const GROUP: Profile = Profile { group: true, checks: true, faults: 7, ..Profile::PEOPLE };
    /// The same with a witness.
    pub const GROUP_APART: Profile = Profile { group: true, faults: 7, ..Profile::WITNESS };
    /// All faults under policy `strict`, with an operator.
    pub const OPERATED: Profile = Profile { available: false, ..Profile::STRICT };
    /// The same without automatics: who is restarted waits where its peer serves nobody, and operators say who serves.
    pub const HELD: Profile = Profile { held: true, faults: 6, ..Profile::OPERATED };
    /// The same with a witness, and longer cuts.
    pub const HELD_APART: Profile = Profile { held: true, faults: 6, ..Profile::WITNESS };
    /// Partitions and pauses that outlast every time-out, without a witness: policy `available`.
    pub const PARTITION: Profile =
        Profile { longest: 90_000, may_refuse: true, weak: true, ..Profile::STRICT };
    /// The same with a witness, which is cut off and loses its disk at times: the full promise holds.
    pub const WITNESS: Profile =
        Profile { witness: true, available: false, longest: 90_000, ..Profile::STRICT };
    /// The same with contacts.
    pub const PEOPLE_APART: Profile = Profile { people: true, ..Profile::PARTITION };
    /// The same with clocks that are ten minutes apart.
    pub const CLOCKS_APART: Profile = Profile { skew: [-300_000, 300_000], ..Profile::PEOPLE_APART };
    /// `PEOPLE` with plain clients that give up attempts to resume which are late between the nodes.
    pub const IMPATIENT: Profile = Profile { impatient: true, ..Profile::PEOPLE };
    /// The same among dual clients, with a witness.
    pub const IMPATIENT_WITNESS: Profile =
        Profile { impatient: true, mixed: true, people: true, ..Profile::WITNESS };
    /// The same among dual clients of several devices, in long partitions without a witness.
    pub const IMPATIENT_APART: Profile = Profile { impatient: true, mixed: true, ..Profile::PARTITION };
    /// `PEOPLE` with operators who have nodes restarted, in failovers and fallbacks too.
    pub const RESTARTS: Profile = Profile { restarts: true, faults: 6, ..Profile::PEOPLE };
    /// Policy `available`: both nodes serve everybody, each those of its own side, and die while they merge that.
    pub const ALONE: Profile =
        Profile { alone: true, weak: true, may_refuse: true, faults: 3, longest: 5_000, ..Profile::PEOPLE };
    /// The same with users of several devices, and without contacts.
    pub const ALONE_DEVICES: Profile = Profile { people: false, ..Profile::ALONE };
    /// `ALONE` with users who write into their rosters on both sides.
    pub const ROSTERS: Profile = Profile { names: true, ..Profile::ALONE };
    /// The same with clocks that are ten seconds apart: less than most cuts last, so that most words are told apart all the same.
    pub const ROSTERS_APART: Profile = Profile { skew: [-5_000, 5_000], ..Profile::ROSTERS };
}

/// All of them, by the names that they have on command lines and in `docs/testing.md`.
pub const PROFILES: [(&str, Profile); 22] = [
    ("calm", Profile::CALM),
    ("strict", Profile::STRICT),
    ("people", Profile::PEOPLE),
    ("disk", Profile::DISK),
    ("services", Profile::SERVICES),
    ("group", Profile::GROUP),
    ("group-apart", Profile::GROUP_APART),
    ("operated", Profile::OPERATED),
    ("held", Profile::HELD),
    ("held-apart", Profile::HELD_APART),
    ("partition", Profile::PARTITION),
    ("apart", Profile::PEOPLE_APART),
    ("clocks-apart", Profile::CLOCKS_APART),
    ("witness", Profile::WITNESS),
    ("impatient", Profile::IMPATIENT),
    ("impatient-witness", Profile::IMPATIENT_WITNESS),
    ("impatient-apart", Profile::IMPATIENT_APART),
    ("restarts", Profile::RESTARTS),
    ("alone", Profile::ALONE),
    ("alone-devices", Profile::ALONE_DEVICES),
    ("rosters", Profile::ROSTERS),
    ("rosters-apart", Profile::ROSTERS_APART),
];

/// How many figures [`Coverage::figures`] has.
pub const FIGURES: usize = 44;

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Nodes killed under load.
    pub kills: u32,
    /// Power lost under load.
    pub powers: u32,
    /// Groups taken over from their home.
    pub takeovers: u32,
    /// Fallbacks begun.
    pub fallbacks: u32,
    /// Hand-overs that crossed an element of the client.
    pub crossings: u32,
    /// Tails set aside.
    pub asides: u32,
    /// Resumes by a search.
    pub resumes: u32,
    /// Resumes of plain clients at the other node.
    pub resumes_elsewhere: u32,
    /// Flips by their cause: take, lost, moving, stalled.
    pub flips: [u32; 4],
    /// Logins and resumes at a node that has not the session.
    pub fronted: u32,
    /// Streams that went on under another name: at a hand-over, or after the path between the nodes had broken.
    pub reattached: u32,
    /// Streams that went on at their front when their owner had died.
    pub outlived: u32,
    /// Planned exits.
    pub leaves: u32,
    /// Critical services that stopped.
    pub services: u32,
    /// Stanzas of a node to itself that came back.
    pub loops: u32,
    /// Users moved because of one.
    pub service_moves: u32,
    /// Rebalances that began.
    pub rebalances: u32,
    /// Checks that compared all accounts.
    pub checks: u32,
    /// Times that high availability was switched.
    pub switches: u32,
    /// Sessions refused.
    pub refused: u32,
    /// Resumes whose count cannot be: the client gives the session up (only where the profile is weak).
    pub bad_counts: u32,
    /// Nodes made active by the operator.
    pub forced: u32,
    /// Nodes made inactive by force.
    pub held: u32,
    /// Disks that the witness lost.
    pub witnesses: u32,
    /// Messages.
    pub messages: u32,
    /// Starts from a store instead of the beginnings of the logs.
    pub stores: u32,
    /// Disks lost on a node whose logs had no beginning any more.
    pub disks: u32,
    /// Beginnings of logs removed.
    pub trims: u32,
    /// Tails of which something was written in their place (D7).
    pub merges: u32,
    /// Presence stanzas that were shown to contacts.
    pub presences: u32,
    /// Requests that were answered.
    pub answers: u32,
    /// Requests that were called off, because the node that should have them did not answer.
    pub called_off: u32,
    /// Logins by a one-time token.
    pub tokens: u32,
    /// Attempts to resume that an impatient client gave up.
    pub given_up: u32,
    /// Attempts to resume that came to the session's node behind a grant of which their front did not know.
    pub overtaken: u32,
    /// Restarts that were announced.
    pub restarts: u32,
    /// Cuts in which both nodes led everybody alone when they met.
    pub alone: u32,
    /// After how many of them all was well again while clients talked.
    pub together: u32,
    /// Messages that a client was shown again after one.
    pub again: u32,
    /// Nodes that died while they set the tail of a log aside.
    pub cut_kills: u32,
    /// Words of users on their own rosters.
    pub words: u32,
    /// Messages that were lost on their way to a client that had not enabled stream management.
    pub early: u32,
}

impl Coverage {
    /// Names and numbers, for a table.
    pub fn figures(&self) -> [(&'static str, u32); FIGURES] {
        [
            ("kills under load", self.kills),
            ("power losses", self.powers),
            ("takeovers", self.takeovers),
            ("fallbacks", self.fallbacks),
            ("hand-overs that cross a message", self.crossings),
            ("tails set aside", self.asides),
            ("resumes", self.resumes),
            ("plain resumes at the other node", self.resumes_elsewhere),
            ("flips: take", self.flips[0]),
            ("flips: lost", self.flips[1]),
            ("flips: moving", self.flips[2]),
            ("logins at the other node", self.fronted),
            ("streams attached again", self.reattached),
            ("streams that outlive their owner", self.outlived),
            ("planned exits", self.leaves),
            ("services that stop", self.services),
            ("stanzas of a node to itself", self.loops),
            ("moves for a service", self.service_moves),
            ("rebalances", self.rebalances),
            ("checks of all accounts", self.checks),
            ("switches of high availability", self.switches),
            ("sessions refused", self.refused),
            ("impossible counts", self.bad_counts),
            ("made active by force", self.forced),
            ("made inactive by force", self.held),
            ("disks of the witness lost", self.witnesses),
            ("messages", self.messages),
            ("tails merged", self.merges),
            ("logins by token", self.tokens),
            ("starts from a store", self.stores),
            ("lost disks", self.disks),
            ("logs trimmed", self.trims),
            ("presence shown", self.presences),
            ("requests answered", self.answers),
            ("requests called off", self.called_off),
            ("resumes given up", self.given_up),
            ("resumes behind an unknown grant", self.overtaken),
            ("restarts announced", self.restarts),
            ("cuts with two leaders of everybody", self.alone),
            ("such cuts after which all was well", self.together),
            ("messages shown again after one", self.again),
            ("deaths while a tail is set aside", self.cut_kills),
            ("rosters that users write into", self.words),
            ("messages lost before stream management", self.early),
        ]
    }
}
