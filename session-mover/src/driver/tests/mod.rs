//! Two drivers without nodes around them.

mod acknowledged;
mod ahead;
mod alone;
mod bounds;
mod checkpoints;
mod checks;
mod early;
mod fronts;
mod memory;
mod moves;
mod offers;
mod rejoin;
mod sent;
mod sides;
mod snapshots;
mod taken;
mod told;
mod twice;
mod unread;
mod void;

use bytes::Bytes;
use presence_engine::ids::{SmId, StanzaId};
use presence_engine::record::Effect;
use xmpp_core::jid::BareJid;

use super::*;
use crate::log::{LogStore, MemoryLog};
use crate::msg::VERSIONS;

const INC: u64 = 5;

fn driver(me: NodeIx, boot: u64, disk: &mut dyn Storage) -> Driver {
    let engine = engine::Config {
        me,
        peer: None,
        domain: "d".into(),
        resume_ms: 300_000,
        relogin_s: (0, 1),
        limits: engine::Limits::DEFAULT,
        tokens: None,
        trap: None,
    };
    Driver::start(
        Config { engine, versions: VERSIONS, cluster: 1, boot, ack_synced: false, checkpoint_frames: 10 },
        boot,
        disk,
    )
}

fn jid(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@d")).unwrap()
}

/// A frame whose record is about so large.
fn frame(seq: u64, bytes: usize) -> Frame {
    let user = jid("u");
    let id = StanzaId { session: SmId([1; 16]), number: seq as u32 };
    let stanza = Bytes::from(vec![b'x'; bytes]);
    let forward = RecordId { log: NodeIx::B, at: Position::default(), index: 0 };
    let effects = vec![Effect::Offline { user, id, at_ms: 0, open: true, due: Default::default(), stanza }];
    let at = |seq| Position { seq, inc: if seq == 0 { 0 } else { INC } };
    Frame {
        groups: 1,
        solo: 0,
        terms: [Term(0); 2],
        at: at(seq),
        prev: at(seq - 1),
        applied_peer: Position::default(),
        now_ms: 0,
        records: vec![Record::Done { forward, effects }],
    }
}

/// A node that lost its disk gets its whole log back from the peer's copy, and what is on its way at any moment is one
/// piece of it, or one frame.
#[test]
fn a_fetched_log_is_never_in_memory_at_once() {
    let sizes = [300 << 10, 300 << 10, 300 << 10, 3 << 20, 10, 900 << 10, 200 << 10, 20 << 10];
    let (mut own, mut copy) = (MemoryLog::default(), MemoryLog::default());
    for (i, bytes) in (1..).zip(sizes.iter().cycle().take(40)) {
        let frame = frame(i, *bytes);
        copy.append(Which::Peer, frame.at, frame.encode());
    }
    copy.sync(Which::Peer);
    let mut asks = driver(NodeIx::A, 1, &mut own);
    let mut serves = driver(NodeIx::B, 2, &mut copy);
    asks.connected();
    let mut rounds = 0;
    while !asks.fetched() {
        rounds += 1;
        assert!(rounds < 200, "it does not end");
        for question in asks.take() {
            if let Do::Send(_, msg) = question {
                serves.on_in(msg, &mut copy);
            }
        }
        let answers = serves.take();
        let bytes: usize = answers
            .iter()
            .map(|answer| match answer {
                Do::Send(_, msg @ Msg::Fetched(frames, _)) => {
                    assert!(frames.len() == 1 || msg.encode().len() <= 2 << 20, "{}", frames.len());
                    msg.encode().len()
                }
                _ => 0,
            })
            .sum();
        assert!(bytes <= (3 << 20) + 1_000, "{bytes} bytes at once");
        for answer in answers {
            if let Do::Send(_, msg) = answer {
                asks.on_out(msg, &mut own);
            }
        }
    }
    assert_eq!(asks.own_end(), Position { seq: 40, inc: INC });
    assert_eq!(own.frames(Which::Own), copy.frames(Which::Peer));
    assert!(asks.ships() && !serves.hears_log(), "it has not said that this is on its disk");
}
