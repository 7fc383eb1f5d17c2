//! The beacon: one datagram a second with what each core has to say, authenticated with the cluster secret.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use presence_engine::ids::NodeIx;
use presence_engine::record::Cursor;
use ring::hmac;

use crate::pause::Pause;
use crate::safety::{self, Role};
use crate::version;
use crate::view::{Cause, Failure};

/// First bytes of every beacon.
const MAGIC: [u8; 4] = *b"TDM3";
/// Bytes of the MAC that are sent.
const MAC_BYTES: usize = 16;

/// What a node is doing to sessions, for the peer's display.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, PartialOrd, Ord, Hash)]
pub enum Activity {
    /// Nothing.
    #[default]
    None,
    /// Hands its users over at the operator's request.
    FailingOver,
    /// Hands the peer's users back at the operator's request.
    FallingBack,
    /// Hands everything over because it stops.
    Leaving,
    /// Hands the peer's users back because it cannot serve any more.
    Recovering,
}

impl Activity {
    const ALL: [Activity; 5] = [
        Activity::None,
        Activity::FailingOver,
        Activity::FallingBack,
        Activity::Leaving,
        Activity::Recovering,
    ];
}

/// What a node tells for the table of states only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// For each group: this run of the sender began after what the group is in.
    pub restarted: [bool; 2],
    /// A critical service of the sender is down.
    pub lacks_service: bool,
    /// More clients log in there than its processors can take.
    pub crowded: bool,
    /// For each group: why it is not at home, or on its way, where the sender brought that about.
    pub causes: [Cause; 2],
    /// Why both nodes run in failed mode.
    pub failed: Option<Failure>,
    /// The sender's log says that high availability is disabled.
    pub ha_off: bool,
    /// The sender does not serve its own users although it might.
    pub held: Held,
    /// This run of the sender has led, or has heard who leads.
    pub knows: bool,
    /// The node at which an operator asked for the move that the sender is about.
    pub asked: Option<NodeIx>,
    /// Lower and upper limit, in seconds, for clients that log in again at the sender; `None`: an older version.
    pub limits: Option<(u32, u32)>,
    /// The sender's disk stands still.
    pub disk_stalls: bool,
    /// Why the move pauses that the sender is about.
    pub paused: Option<Pause>,
    /// How far the sender is with the checks before high availability.
    pub checking: Checking,
}

/// How far a node is with the checks before high availability.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checking {
    /// Nothing is to be looked at: it is off, or has begun; or the version is an older one.
    #[default]
    Not,
    /// A check fails, or has not been made yet.
    Fails,
    /// All hold.
    Holds,
}

impl Checking {
    /// In the order of their numbers in a beacon.
    const ALL: [Checking; 3] = [Checking::Not, Checking::Fails, Checking::Holds];
}

/// Why a node does not serve although it might.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Held {
    /// It may serve.
    #[default]
    No,
    /// It was restarted while automatics are disabled, and its peer serves nobody.
    Restarted,
    /// The operator forced it inactive.
    Forced,
}

/// In the byte behind the cores: limits follow.
const LIMITS: u8 = 128;
/// In the byte behind the limits: the disk stands still. The rest of it is the alarm for which a move pauses.
const DISK_STALLS: u8 = 128;

impl Told {
    fn encode(self, out: &mut Vec<u8>) {
        let flags = [
            self.restarted[0],
            self.restarted[1],
            self.lacks_service,
            self.ha_off,
            self.crowded,
            self.held == Held::Restarted,
            self.held == Held::Forced,
            self.knows,
        ];
        out.push(flags.iter().enumerate().fold(0, |bits, (i, flag)| bits | (u8::from(*flag) << i)));
        let number = |cause| Cause::ALL.iter().position(|known| *known == cause).unwrap_or(0) as u8;
        out.extend(self.causes.map(number));
        let failed = self.failed.and_then(|failure| Failure::ALL.iter().position(|known| *known == failure));
        out.push(failed.map_or(0, |n| n as u8 + 1));
    }

    /// What stands behind the cores: versions before do not know it.
    fn encode_more(&self, out: &mut Vec<u8>) {
        let asked = self.asked.map_or(0, |node| node.index() as u8 + 1);
        out.push(asked | if self.limits.is_some() { LIMITS } else { 0 });
        let (lower, upper) = self.limits.unwrap_or_default();
        for seconds in [lower, upper] {
            out.extend_from_slice(&u16::try_from(seconds).unwrap_or(u16::MAX).to_le_bytes());
        }
        let paused = self.paused.map_or(0, |pause| pause as u8 + 1);
        out.push(paused | if self.disk_stalls { DISK_STALLS } else { 0 });
        out.push(self.checking as u8);
    }

    fn decode_more(self, c: &mut Cursor) -> Told {
        let first = c.u8().unwrap_or(0);
        let asked = usize::from(first & !LIMITS).checked_sub(1).and_then(NodeIx::from_index);
        let mut seconds = || Some(u32::from(u16::from_le_bytes([c.u8().ok()?, c.u8().ok()?])));
        let limits = seconds().zip(seconds()).filter(|_| first & LIMITS != 0);
        let last = c.u8().unwrap_or(0);
        let disk_stalls = last & DISK_STALLS != 0;
        let paused = usize::from(last & !DISK_STALLS).checked_sub(1).and_then(|n| Pause::ALL.get(n).copied());
        let checking = Checking::ALL.get(usize::from(c.u8().unwrap_or(0))).copied().unwrap_or_default();
        Told { asked, limits, disk_stalls, paused, checking, ..self }
    }

    /// What a newer version may say is nothing.
    fn decode(c: &mut Cursor) -> Option<Told> {
        let flags = c.u8().ok()?;
        let mut cause = || Some(Cause::ALL.get(usize::from(c.u8().ok()?)).copied().unwrap_or_default());
        let causes = [cause()?, cause()?];
        let failed = usize::from(c.u8().ok()?).checked_sub(1);
        Some(Told {
            restarted: [flags & 1 != 0, flags & 2 != 0],
            lacks_service: flags & 4 != 0,
            crowded: flags & 16 != 0,
            ha_off: flags & 8 != 0,
            held: match flags >> 5 & 3 {
                1 => Held::Restarted,
                2 => Held::Forced,
                _ => Held::No,
            },
            knows: flags & 128 != 0,
            // These stand at the end of the datagram: older versions do not say them.
            asked: None,
            limits: None,
            disk_stalls: false,
            paused: None,
            checking: Checking::Not,
            causes,
            failed: failed.and_then(|n| Failure::ALL.get(n).copied()),
        })
    }
}

/// Beacons come in threes: each node's own clock sends the first; it is answered at once, and the answer confirmed. So
/// both nodes know of each other what is at most a way and a half old (D6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, PartialOrd, Ord, Hash)]
pub enum Turn {
    /// Sent because it was time, or because something changed.
    #[default]
    First,
    /// The answer to one.
    Answer,
    /// The last word.
    Confirmation,
}

impl Turn {
    /// What is said to this.
    pub fn next(self) -> Option<Turn> {
        match self {
            Turn::First => Some(Turn::Answer),
            Turn::Answer => Some(Turn::Confirmation),
            Turn::Confirmation => None,
        }
    }
}

/// One beacon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Sender: index of its name.
    pub node: u8,
    /// The sender's run.
    pub boot: u64,
    /// The receiver's run as the sender knows it: words about holdings and acknowledgements are for that run only.
    pub to_boot: u64,
    /// Counts up within a run: an older one is a replay or came late.
    pub number: u32,
    /// Hash of the clusterwide configuration.
    pub config: u64,
    /// What the sender does.
    pub activity: Activity,
    /// Whether it is answered.
    pub turn: Turn,
    /// The receiver's last beacon that the sender had heard, of the run `to_boot`; 0: none.
    pub heard: u32,
    /// For each group that the sender leads in Pair: ticks of its lease that are left (D6).
    pub lease: [u16; 2],
    /// For the table of states.
    pub told: Told,
    /// Both cores.
    pub groups: [safety::Beacon; 2],
    /// The sender's program, for whoever looks before the nodes are a pair.
    pub program: Program,
}

/// What a node tells of its program.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    /// Its clock, in milliseconds since 1970; 0: an older version, which does not tell.
    pub clock_ms: u64,
    /// Its version; empty: likewise.
    pub version: String,
    /// Bytes that are free on the disk of its data folder; `None`: likewise, or it cannot tell.
    pub room: Option<u64>,
}

impl Program {
    /// That of this node.
    pub fn of_this_node(clock_ms: u64, room: Option<u64>) -> Program {
        Program { clock_ms, version: version::program().to_owned(), room }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.clock_ms.to_le_bytes());
        let version = &self.version.as_bytes()[..self.version.len().min(usize::from(u8::MAX))];
        out.push(version.len() as u8);
        out.extend_from_slice(version);
        out.extend_from_slice(&self.room.unwrap_or(u64::MAX).to_le_bytes());
    }

    /// It stands at the end of the datagram: older versions do not say it.
    fn decode(c: &mut Cursor) -> Program {
        let mut take = || {
            let clock_ms = c.u64().ok()?;
            let length = usize::from(c.u8().ok()?);
            let version = String::from_utf8(c.take(length).ok()?.to_vec()).ok()?;
            let room = c.u64().ok().filter(|bytes| *bytes != u64::MAX);
            Some(Program { clock_ms, version, room })
        };
        take().unwrap_or_default()
    }
}

/// The keys that beacons and proofs of life are made with: the first makes them, all are accepted. There is more than
/// one while the cluster's secret is being replaced.
#[derive(Clone, Debug)]
pub struct Secret(Vec<hmac::Key>);

impl Secret {
    /// From the one secret that there is.
    pub fn new(bytes: &[u8]) -> Secret {
        Secret::all(&[bytes])
    }

    /// From the cluster secrets of the configuration, at least one.
    pub fn all(secrets: &[impl AsRef<[u8]>]) -> Secret {
        Secret(secrets.iter().map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, bytes.as_ref())).collect())
    }

    /// Proof that this node, which knows the secret, was asked this nonce (R9). It names the node: the asker's own
    /// proof, got through another session of a client, is none for its peer.
    pub fn vouch(&self, node: NodeIx, nonce: &str) -> String {
        vouch(&self.0[0], node, nonce)
    }

    /// Whether `mac` is the proof for this nonce; constant time.
    pub fn vouched(&self, node: NodeIx, nonce: &str, mac: &str) -> bool {
        self.0.iter().any(|key| equal(vouch(key, node, nonce).as_bytes(), mac.as_bytes()))
    }

    fn seal(&self, body: &[u8]) -> Vec<u8> {
        seal(&self.0[0], body)
    }

    fn sealed(&self, body: &[u8], mac: &[u8]) -> bool {
        self.0.iter().any(|key| equal(&seal(key, body), mac))
    }
}

fn vouch(key: &hmac::Key, node: NodeIx, nonce: &str) -> String {
    let tag = hmac::sign(key, format!("vouch:{}:{nonce}", node.index()).as_bytes());
    tag.as_ref().iter().take(MAC_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

fn seal(key: &hmac::Key, body: &[u8]) -> Vec<u8> {
    hmac::sign(key, &[b"beacon:", body].concat()).as_ref()[..MAC_BYTES].to_vec()
}

/// In constant time for a given length.
fn equal(right: &[u8], given: &[u8]) -> bool {
    right.len() == given.len() && right.iter().zip(given).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

fn put_core(out: &mut Vec<u8>, b: &safety::Beacon) {
    b.reg.encode(out);
    out.push(match b.role {
        Role::Primary => 0,
        Role::Backup => 1,
        Role::Fenced => 2,
    });
    out.push(b.ack.is_some() as u8);
    out.extend_from_slice(&b.ack.unwrap_or(0).to_le_bytes());
    let flags = [b.holds, b.alone, b.took_other, b.stopped];
    out.push(flags.iter().enumerate().fold(0, |bits, (i, flag)| bits | (u8::from(*flag) << i)));
}

fn take_core(c: &mut Cursor) -> Option<safety::Beacon> {
    let reg = c.reg().ok()?;
    let role = [Role::Primary, Role::Backup, Role::Fenced].get(usize::from(c.u8().ok()?)).copied()?;
    let acks = c.u8().ok()? == 1;
    let ack = c.u32().ok()?;
    let flags = c.u8().ok()?;
    let flag = |i: u8| flags & (1 << i) != 0;
    let ack = acks.then_some(ack);
    Some(safety::Beacon {
        reg,
        role,
        ack,
        holds: flag(0),
        alone: flag(1),
        took_other: flag(2),
        stopped: flag(3),
    })
}

impl Datagram {
    /// The bytes to send.
    pub fn encode(&self, secret: &Secret) -> Bytes {
        let mut out = MAGIC.to_vec();
        out.push(self.node);
        for n in [self.boot, self.to_boot, self.config] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&[self.activity as u8, self.turn as u8]);
        out.extend_from_slice(&self.heard.to_le_bytes());
        for ticks in self.lease {
            out.extend_from_slice(&ticks.to_le_bytes());
        }
        self.told.encode(&mut out);
        self.groups.iter().for_each(|b| put_core(&mut out, b));
        self.told.encode_more(&mut out);
        self.program.encode(&mut out);
        let mac = secret.seal(&out);
        out.extend_from_slice(&mac);
        Bytes::from(out)
    }

    /// Reads a beacon; `None` for anything that is none of this cluster.
    pub fn decode(secret: &Secret, bytes: &[u8]) -> Option<Datagram> {
        let (body, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        if !secret.sealed(body, mac) || !body.starts_with(&MAGIC) {
            return None;
        }
        let mut c = Cursor::new(Bytes::copy_from_slice(&body[MAGIC.len()..]));
        let node = c.u8().ok()?;
        let (boot, to_boot, config) = (c.u64().ok()?, c.u64().ok()?, c.u64().ok()?);
        let number = c.u32().ok()?;
        let activity = Activity::ALL.get(usize::from(c.u8().ok()?)).copied()?;
        let all = [Turn::First, Turn::Answer, Turn::Confirmation];
        let turn = all.get(usize::from(c.u8().ok()?)).copied()?;
        let heard = c.u32().ok()?;
        let mut ticks = || Some(u16::from_le_bytes([c.u8().ok()?, c.u8().ok()?]));
        let lease = [ticks()?, ticks()?];
        let told = Told::decode(&mut c)?;
        let groups = [take_core(&mut c)?, take_core(&mut c)?];
        let told = told.decode_more(&mut c);
        let program = Program::decode(&mut c);
        // A newer version may say more behind this.
        Some(Datagram {
            node,
            boot,
            to_boot,
            number,
            config,
            activity,
            turn,
            heard,
            lease,
            told,
            groups,
            program,
        })
    }
}

#[cfg(test)]
mod tests {
    use presence_engine::ids::{Mode, Reg, Term};

    use super::*;

    fn datagram() -> Datagram {
        let reg = Reg { term: Term(4), primary: NodeIx::B, mode: Mode::Solo, settled: Term(2) };
        let one = safety::Beacon {
            reg,
            role: Role::Backup,
            ack: Some(7),
            holds: true,
            alone: false,
            took_other: true,
            stopped: false,
        };
        let two = safety::Beacon { role: Role::Fenced, ack: None, stopped: true, ..one };
        let activity = Activity::FallingBack;
        let (turn, heard, lease, groups) = (Turn::Answer, 8, [11, 300], [one, two]);
        let told = Told {
            restarted: [false, true],
            lacks_service: true,
            crowded: true,
            causes: [Cause::Automatic, Cause::Service],
            failed: Some(Failure::Unknown),
            ha_off: true,
            held: Held::Forced,
            knows: true,
            asked: Some(NodeIx::B),
            limits: Some((120, 7_200)),
            disk_stalls: true,
            paused: Some(Pause::PeerCrowd),
            checking: Checking::Holds,
        };
        Datagram {
            node: 1,
            boot: 5,
            to_boot: 6,
            number: 9,
            config: 3,
            activity,
            turn,
            heard,
            lease,
            told,
            groups,
            program: Program { clock_ms: 1_700_000_000_000, version: "0.1.0".into(), room: Some(1 << 33) },
        }
    }

    #[test]
    fn a_beacon_is_read_back_and_every_flipped_bit_is_refused() {
        let secret = Secret::new(b"secret");
        let bytes = datagram().encode(&secret);
        assert_eq!(Datagram::decode(&secret, &bytes), Some(datagram()));
        assert_eq!(Datagram::decode(&Secret::new(b"other"), &bytes), None);
        for n in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[n] ^= 1;
            assert_eq!(Datagram::decode(&secret, &damaged), None);
            assert_eq!(Datagram::decode(&secret, &bytes[..n]), None);
        }
    }

    /// As the versions before wrote it: without the room, without the program, without the byte before it, without the two before it, and without
    /// anything behind the cores.
    #[test]
    fn a_beacon_of_a_version_before_is_read() {
        let secret = Secret::new(b"secret");
        let bytes = datagram().encode(&secret);
        let shorter_by = |n: usize| {
            let mut older = bytes[..bytes.len() - MAC_BYTES - n].to_vec();
            let mac = secret.seal(&older);
            older.extend_from_slice(&mac);
            Datagram::decode(&secret, &older)
        };
        let (program, of_it) = (Program::default(), 8 + 1 + datagram().program.version.len() + 8);
        let without = Program { room: None, ..datagram().program };
        assert_eq!(shorter_by(1), Some(Datagram { program: without.clone(), ..datagram() }), "half of it");
        assert_eq!(shorter_by(8), Some(Datagram { program: without, ..datagram() }));
        assert_eq!(
            shorter_by(9),
            Some(Datagram { program: program.clone(), ..datagram() }),
            "half of the rest"
        );
        assert_eq!(shorter_by(of_it), Some(Datagram { program: program.clone(), ..datagram() }));
        let told = Told { checking: Checking::Not, ..datagram().told };
        assert_eq!(shorter_by(of_it + 1), Some(Datagram { told, program: program.clone(), ..datagram() }));
        let told = Told { disk_stalls: false, paused: None, ..told };
        assert_eq!(shorter_by(of_it + 2), Some(Datagram { told, program: program.clone(), ..datagram() }));
        let told = Told { asked: None, limits: None, ..told };
        assert_eq!(shorter_by(of_it + 7), Some(Datagram { told, program, ..datagram() }));
    }

    #[test]
    fn a_secret_is_replaced_in_three_steps_and_each_beacon_and_proof_is_accepted() {
        let steps: [&[&[u8]]; 4] = [&[b"old"], &[b"old", b"new"], &[b"new", b"old"], &[b"new"]];
        for step in steps.windows(2) {
            let (behind, ahead) = (Secret::all(step[0]), Secret::all(step[1]));
            for (from, to) in [(&behind, &ahead), (&ahead, &behind)] {
                assert_eq!(Datagram::decode(to, &datagram().encode(from)), Some(datagram()));
                assert!(to.vouched(NodeIx::A, "n1", &from.vouch(NodeIx::A, "n1")));
            }
        }
        let (old, new) = (Secret::new(b"old"), Secret::new(b"new"));
        assert!(Datagram::decode(&new, &datagram().encode(&old)).is_none());
    }

    #[test]
    fn a_proof_of_life_fits_its_nonce_only() {
        let secret = Secret::new(b"secret");
        let mac = secret.vouch(NodeIx::A, "n1");
        assert!(secret.vouched(NodeIx::A, "n1", &mac) && !secret.vouched(NodeIx::A, "n2", &mac));
        assert!(!secret.vouched(NodeIx::B, "n1", &mac) && !secret.vouched(NodeIx::A, "n1", ""));
    }
}
