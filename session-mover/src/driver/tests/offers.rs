//! What offers of a void branch are compared with (D7): all that the other log has taken since the branches parted.

use presence_engine::ids::Mode;
use presence_engine::record::{Forward, Verifiers};

use super::sides::{Disk, Side, pair, reg, start, taken};
use super::*;
use crate::log::Which;

/// A message that somebody took from its sender in another session than the other branch did.
fn message(to: &str, number: u32) -> Forward {
    let stanza = format!(
        "<message xmlns='jabber:client' type='chat' id='m' from='who@d/x' to='{to}@d'><body>x</body></message>"
    );
    let id = StanzaId { session: SmId([7; 16]), number };
    Forward { to: jid(to).into(), id, stanza: stanza.into() }
}

fn kept(effect: Effect) -> Record {
    Record::Kept { stanza: StanzaId::default(), at_ms: 1, effects: vec![effect] }
}

/// A frame of `writer`'s log that holds one record.
fn written(seq: u64, applied_peer: Position, record: Record) -> Frame {
    let at = |seq| Position { seq, inc: if seq == 0 { 0 } else { INC } };
    Frame { at: at(seq), prev: at(seq - 1), applied_peer, records: vec![record], ..frame(1, 0) }
}

/// B's log brings A the next frame, with this record, written when B had so much of A's log.
fn bring(a: &mut Side, had: Position, record: Record) {
    let prev = a.driver.peer_end();
    let at = Position { seq: prev.seq + 1, ..prev };
    let frame = Frame { at, prev, terms: [Term(2), Term(3)], groups: 2, ..written(1, had, record) };
    a.driver.on_in(Msg::Frame(frame.encode()), &mut a.disk);
    while a.run() {}
}

fn waiting(side: &Side, name: &str) -> usize {
    side.driver.engine().state().user(&jid(name)).unwrap().offline.len()
}

/// The sender's message came by the valid branch before the void one was heard of, whoever led what alone meanwhile.
#[test]
fn an_offer_is_compared_with_all_that_its_writer_did_not_have() {
    let [mut a, _] = pair(&[0, 1]);
    let parted = a.driver.own_end();
    bring(&mut a, parted, kept(Effect::Forward(message("a0", 1))));
    assert_eq!(waiting(&a, "a0"), 1);
    assert!(a.driver.own_end().seq > parted.seq, "a frame that the writer of the offer did not have");
    bring(&mut a, parted, kept(Effect::Offer(message("a0", 2))));
    assert_eq!(waiting(&a, "a0"), 1, "it is there, by its names");
    assert_eq!(a.driver.engine().state().undone().count(), 0);
}

/// What the writer of the offer had when the branches parted is not the other branch's: a client may use an id again.
#[test]
fn an_offer_is_not_compared_with_what_its_writer_had() {
    let [mut a, _] = pair(&[0, 1]);
    let before = a.driver.own_end();
    bring(&mut a, before, kept(Effect::Forward(message("a0", 1))));
    let had = a.driver.own_end();
    assert!(had.seq > before.seq);
    bring(&mut a, had, kept(Effect::Offer(message("a0", 2))));
    assert_eq!(waiting(&a, "a0"), 2);
}

/// A takes B's users over.
fn take_over(a: &mut Side) {
    let regs = [reg(NodeIx::A, Mode::Solo), taken()].map(Some);
    a.driver.set_view(View { regs, release: [Release::Alone(0); 2], accept: [false; 2] });
    let lead = Input::Lead { group: NodeIx::B, reg: taken(), late: false };
    a.driver.turn(2, vec![lead, Input::Serving { group: NodeIx::B, on: true }], &mut a.disk);
}

/// A client may give an id twice: that the first of two offers was taken says nothing of the second.
#[test]
fn two_offers_that_are_alike_are_both_taken() {
    let [mut a, _] = pair(&[0, 1]);
    let parted = a.driver.own_end();
    for number in [1, 2] {
        bring(&mut a, parted, kept(Effect::Offer(message("a0", number))));
    }
    assert_eq!(waiting(&a, "a0"), 2);
}

/// The same where another run of the node, or the other node, answered the first.
#[test]
fn two_offers_that_are_alike_are_both_taken_whoever_answers_them() {
    let at = |seq| Position { seq, inc: if seq == 0 { 0 } else { INC } };
    let lead = Record::Lead { group: NodeIx::B, reg: reg(NodeIx::B, Mode::Solo), at_ms: 1, late: false };
    let account = Record::UserAdd { user: jid("b0"), home: NodeIx::B, verifiers: Verifiers::default() };
    let [first, second] = [1, 2].map(|number| message("b0", number));
    let stored = Effect::Offline {
        user: jid("b0"),
        id: first.id,
        at_ms: 1,
        open: true,
        due: Default::default(),
        stanza: first.stanza.clone(),
    };
    let forward = RecordId { log: NodeIx::A, at: at(1), index: 0 };
    let done = Record::Done { forward, effects: vec![stored] };
    let theirs = [written(1, at(0), lead), written(2, at(0), account), written(3, at(1), done)];
    let offers = [(1, first), (2, second)];
    let own = offers.map(|(seq, offer)| written(seq, at(2), kept(Effect::Offer(offer))));
    let mut a = start(NodeIx::A, 1, Disk::of(own, theirs));
    assert_eq!((waiting(&a, "b0"), a.driver.engine().state().undone().count()), (1, 1));
    take_over(&mut a);
    assert_eq!((waiting(&a, "b0"), a.driver.engine().state().undone().count()), (2, 0));
}

/// A node that yielded offers the other what it had taken. The other dies before it has answered: who offered takes its users
/// over, and answers its own offers. With whose log does it compare them?
#[test]
fn who_takes_over_compares_its_own_offers_with_the_log_of_the_dead() {
    let at = |seq| Position { seq, inc: INC };
    for (had, waits) in [(at(2), 1), (at(3), 2)] {
        let lead = Record::Lead { group: NodeIx::B, reg: reg(NodeIx::B, Mode::Solo), at_ms: 1, late: false };
        let account = Record::UserAdd { user: jid("b0"), home: NodeIx::B, verifiers: Verifiers::default() };
        let message = |number| message("b0", number);
        let told = Effect::Offline {
            user: jid("b0"),
            id: message(1).id,
            at_ms: 1,
            open: true,
            due: Default::default(),
            stanza: message(1).stanza,
        };
        let none = Position::default();
        let theirs = [written(1, none, lead), written(2, none, account), written(3, none, kept(told))];
        let offer = written(1, had, kept(Effect::Offer(message(2))));
        let mut a = start(NodeIx::A, 1, Disk::of([offer], theirs));
        assert_eq!((waiting(&a, "b0"), a.driver.engine().state().undone().count()), (1, 1));
        // As long as the other leads they are not this node's to answer, and nothing is read for them.
        let regs = [reg(NodeIx::A, Mode::Solo), reg(NodeIx::B, Mode::Solo)].map(Some);
        a.driver.set_view(View { regs, release: [Release::Nothing; 2], accept: [false; 2] });
        a.driver.turn(1, Vec::new(), &mut a.disk);
        assert_eq!(a.driver.compared_to, [None; 2]);
        take_over(&mut a);
        assert_eq!(a.driver.engine().state().undone().count(), 0, "it is answered");
        assert_eq!(waiting(&a, "b0"), waits, "had {had}");
    }
}

/// What came with a snapshot has no frame here: all that there is of the other log is compared then.
#[test]
fn an_offer_whose_frame_is_gone_is_compared_with_everything() {
    let [mut a, _] = pair(&[0, 1]);
    assert!(a.disk.first(Which::Peer) > 1, "its beginning is gone");
    let gone = Position { seq: 1, inc: 7 };
    assert_eq!(a.driver.had_at(NodeIx::B, gone, &mut a.disk), 0);
    let (end, parted) = (a.driver.peer_end(), a.driver.own_end());
    bring(&mut a, parted, kept(Effect::Forward(message("a0", 1))));
    let there = Position { seq: end.seq + 1, ..end };
    assert_eq!(a.driver.had_at(NodeIx::B, there, &mut a.disk), parted.seq);
    let other = Position { inc: there.inc + 1, ..there };
    assert_eq!(a.driver.had_at(NodeIx::B, other, &mut a.disk), 0, "another frame has its number now");
}

/// What the writer had of the other log was cut there, and another frame has its number: it had what stayed.
#[test]
fn of_what_was_cut_in_the_other_log_the_writer_had_nothing() {
    let [mut a, _] = pair(&[0, 1]);
    let (end, parted) = (a.driver.peer_end(), a.driver.own_end());
    bring(&mut a, parted, kept(Effect::Forward(message("a0", 1))));
    let (prev, now) = (a.driver.peer_end(), a.driver.own_end());
    assert!(prev.seq > end.seq && now.seq > parted.seq, "the own log went on");
    let gone = Position { inc: now.inc + 1, ..now };
    let at = Position { seq: prev.seq + 1, ..prev };
    let frame = Frame { at, prev, ..written(1, gone, kept(Effect::Offer(message("a0", 2)))) };
    a.disk.log.append(Which::Peer, at, frame.encode());
    assert_eq!(a.driver.had_at(NodeIx::B, at, &mut a.disk), parted.seq);
}

/// More of the peer's tail may come: what was read of the own log is not read again for each part.
#[test]
fn the_own_branch_is_read_once_while_more_offers_may_come() {
    let [mut a, _] = pair(&[0, 1]);
    let parted = a.driver.own_end();
    // The own log does not flow: the tail that this node waits for may have more.
    a.driver.disconnected();
    bring(&mut a, parted, kept(Effect::Offer(message("a0", 1))));
    assert_eq!((waiting(&a, "a0"), a.driver.engine().state().has_offers()), (1, false));
    a.driver.turn(0, vec![Input::Tick], &mut a.disk);
    assert!(a.driver.compared_to[NodeIx::B.index()].is_some_and(|next| next > parted.seq));
}

/// What an offer is compared with stays in the log while it waits.
#[test]
fn nothing_leaves_the_logs_while_an_offer_waits() {
    for waits in [true, false] {
        let [mut a, _] = pair(&[0, 1]);
        let parted = a.driver.own_end();
        // For a user of B's, whom A does not serve.
        let message = message("b0", 2);
        bring(&mut a, parted, kept(if waits { Effect::Offer(message) } else { Effect::Forward(message) }));
        assert_eq!(a.driver.engine().state().undone().count(), 1);
        let first = |a: &Side| [Which::Own, Which::Peer].map(|which| a.disk.first(which));
        let before = first(&a);
        a.driver.stored = [a.driver.own_end().seq, a.driver.peer_end().seq];
        a.driver.checkpointed(true, &mut a.disk);
        assert_eq!(first(&a) == before, waits);
    }
}
