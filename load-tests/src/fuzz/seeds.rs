//! Where seeds are kept, and those that are made of what this version writes: messages of the link, records, frames.

use std::path::{Path, PathBuf};
use std::{fs, io};

use bytes::Bytes;
use presence_engine::engine::Token;
use presence_engine::front::{Attach, Fronted, Relay};
use presence_engine::ids::{Away, Conn, Epoch, Mode, NodeIx, Position, RecordId, Reg, SmId, StanzaId, Term};
use presence_engine::record::{Effect, Forward, Record, Verifiers};
use presence_engine::state::GroupInfo;
use session_mover::driver::check::Part;
use session_mover::frame::{Frame, PREFIX};
use session_mover::msg::{Ack, Hello, Msg, VERSIONS};
use session_mover::runs::Runs;
use xmpp_core::jid::{BareJid, Jid};

use super::route;

/// The folder of a target's seeds.
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

/// A target's seeds in the order of their names.
pub fn read(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut seeds = Vec::new();
    for entry in fs::read_dir(folder(target))? {
        let entry = entry?;
        seeds.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    seeds.sort();
    Ok(seeds)
}

/// Seeds for `link`: one for each kind of message, and a stream of all of them.
pub fn of_link() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut stream = vec![1, 0];
    for (n, msg) in messages().iter().enumerate() {
        let bytes = msg.encode();
        stream.extend_from_slice(&bytes);
        seeds.push((format!("message-{n:02}"), [&[0], &bytes[4..]].concat()));
    }
    seeds.push(("stream".into(), stream));
    seeds
}

/// Seeds for `log`: records and frames that a node wrote, one for each kind, and files of frames.
pub fn of_log() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut kinds = std::collections::BTreeSet::new();
    for (_, script) in read("route").unwrap_or_default() {
        for records in route::play(&script) {
            if records.len() <= 600 && kinds.insert(records[0]) {
                seeds.push((format!("record-{:02}", records[0]), [&[0], &records[..]].concat()));
            }
        }
    }
    for record in rare_records() {
        let mut bytes = vec![0];
        record.encode(&mut bytes);
        seeds.push((format!("rare-{:02}", record.type_number()), bytes));
        let frame = Frame {
            groups: 1,
            solo: 2,
            terms: [Term(2), Term(5)],
            at: Position { seq: 7, inc: 9 },
            prev: Position { seq: 6, inc: 8 },
            applied_peer: Position { seq: 3, inc: 1 },
            now_ms: 11,
            records: vec![record.clone()],
        };
        let inside = &frame.encode()[PREFIX..];
        seeds.push((format!("frame-{:02}", record.type_number()), [&[1], inside].concat()));
    }
    let files: [&[u8]; 6] = [
        &[0, 0, 0, 0, 5, 0, 0, 0],
        &[0, 0, 0, 0, 3, 9],
        &[0, 0, 0, 0, 4, 77, 0, 0],
        &[0, 0, 2, 3, 1, 2, 3],
        &[0, 0, 6, 2, 5, 0, 0, 0],
        &[0, 0, 7, 9],
    ];
    for (n, orders) in files.into_iter().enumerate() {
        seeds.push((format!("files-{n}"), [&[2], orders].concat()));
    }
    let mut trim = Vec::new();
    Record::Trim { session: SmId([3; 16]), h: 4 }.encode(&mut trim);
    seeds.push(("files-record".into(), [&[2, 1, trim.len() as u8], &trim[..], &[0, 0]].concat()));
    seeds
}

fn bare(text: &str) -> BareJid {
    BareJid::parse(text).expect("a JID")
}

fn messages() -> Vec<Msg> {
    let reg = Reg { term: Term(4), primary: NodeIx::B, mode: Mode::Solo, settled: Term(2) };
    let mut runs = Runs::default();
    for (seq, inc) in [(1, 8), (2, 8), (3, 9)] {
        runs.push(Position { seq, inc });
    }
    let hello =
        Hello { versions: VERSIONS, cluster: 1, node: NodeIx::A, boot: 2, regs: [Some(reg), None], runs };
    let conn = Conn { node: NodeIx::B, number: 1 << 40 };
    let (session, stanza) = (SmId([7; 16]), Bytes::from_static(b"<message to='juliet@example.org'/>"));
    let attach = Some(Attach { session, stream: 2, written: u32::MAX });
    let (user, salt, entropy) = (bare("romeo@example.org"), Bytes::from_static(b"salt"), [3; 16]);
    let pair = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    let name = Bytes::from_static(b"romeo@example.org");
    vec![
        Msg::Hello(hello),
        Msg::Rewind(4),
        Msg::Fetch(5),
        Msg::Fetched(vec![Bytes::from_static(b"x"), Bytes::new()], true),
        Msg::Frame(Bytes::from_static(b"frame")),
        Msg::Ack(Ack { at: Position { seq: 1, inc: 2 }, applied: 3, kept: 4, own: 5 }),
        Msg::Keep(9),
        Msg::Snapshot(Bytes::from_static(b"mark")),
        Msg::Want(Bytes::new()),
        Msg::Pairs(vec![pair]),
        Msg::Parked(session, true, 3),
        Msg::Control(Bytes::from_static(b"{}")),
        Msg::Relay(Relay::List(true)),
        Msg::Relay(Relay::Open {
            conn,
            user,
            salt,
            entropy,
            attach,
            token: Some(Token { session, number: 3 }),
        }),
        Msg::Relay(Relay::Element { conn, seq: 4, number: Some(0), again: true, stanza }),
        Msg::Relay(Relay::Closed { conn, clean: true }),
        Msg::Fronted(Fronted::Deliver(conn, Bytes::from_static(b"<a/>"))),
        Msg::Fronted(Fronted::Credit(conn)),
        Msg::Fronted(Fronted::Again),
        Msg::Fronted(Fronted::Close(conn, Bytes::new(), true)),
        Msg::Fronted(Fronted::Attached { conn, session, stream: 1, inbound: 2, written: None }),
        Msg::Fronted(Fronted::Offer(conn, Epoch { term: 7, moves: 1 })),
        Msg::Check(Part {
            number: 1,
            at: 9,
            range: Some((Bytes::new(), name.clone())),
            users: vec![(name.clone(), Some(7)), (Bytes::from_static(b"nobody"), None)],
        }),
        Msg::Check(Part { number: 2, at: 9, range: None, users: vec![(name.clone(), Some(7))] }),
        Msg::Checked(1, vec![name]),
    ]
}

/// Records that hostile clients alone do not bring about, or seldom.
fn rare_records() -> Vec<Record> {
    let (session, user) = (SmId([7; 16]), bare("juliet@example.org"));
    let (id, stanza) = (StanzaId { session, number: 3 }, Bytes::from_static(b"<message/>"));
    let at = Position { seq: 3, inc: 1 };
    let forward = RecordId { log: NodeIx::A, at, index: 1 };
    let to = Jid::parse("juliet@example.org/balcony").expect("a JID");
    let offer = Effect::Offer(Forward { to: to.clone(), id, stanza: stanza.clone() });
    let out = Effect::Out { to: session, id, keep: true, stanza: stanza.clone() };
    let gap = Effect::Gap { about: Some(to), to: vec![session] };
    let (open, due) = (true, vec!["balcony".into()]);
    let offline = Effect::Offline { user: user.clone(), id, at_ms: 5, open, due, stanza: stanza.clone() };
    let reg = Reg { term: Term(4), primary: NodeIx::B, mode: Mode::Solo, settled: Term(2) };
    let epoch = Epoch { term: 7, moves: 1 };
    let verifiers =
        Verifiers { salt: Bytes::from_static(b"salt"), iterations: 4_096, ..Verifiers::default() };
    vec![
        Record::Lead { group: NodeIx::A, reg, at_ms: 9, late: true },
        Record::UserPasswd { user: user.clone(), verifiers },
        Record::Dual { session },
        Record::Token { session, number: 2 },
        Record::Group(GroupInfo { number: 7, name: "g".into(), ..GroupInfo::default() }),
        Record::Assign { user: user.clone(), home: Some(NodeIx::B) },
        Record::Absorb { from: NodeIx::A, into: NodeIx::B },
        Record::Away { group: NodeIx::A, why: Some(Away::Service) },
        Record::Kept { stanza: id, at_ms: 9, effects: vec![out, offer, offline] },
        Record::Cancel { forward, effects: vec![gap] },
        Record::Flush { session, count: 3 },
        Record::Lapse { session, effects: Vec::new() },
        Record::Reattached { session, written: 4 },
        Record::HandOver { user, to: NodeIx::B, epoch, applied_peer: at, counters: vec![(session, 1, 2)] },
    ]
}
