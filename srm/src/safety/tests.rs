//! What the searches cannot tell.

use presence_engine::ids::{Mode, NodeIx, Reg, Term};

use super::*;

fn config(me: NodeIx, available: bool) -> Config {
    let register = RegisterKind::Consent(Consent { available });
    Config { me, home: NodeIx::A, single: false, register, peer_disk: false, lease: 12 }
}

fn reg(term: u64, primary: NodeIx, mode: Mode) -> Reg {
    Reg { term: Term(term), primary, mode, settled: Term(0) }
}

/// R8: after the operator's word a power loss takes what the word allowed, so no search sees the difference; but what
/// was received may be all that there is.
#[test]
fn what_was_received_is_synced_before_force_active_takes_effect() {
    for available in [false, true] {
        for me in NodeIx::BOTH {
            for mode in [Mode::Pair, Mode::Solo] {
                for primary in NodeIx::BOTH {
                    let cfg = config(me, available);
                    let mut core = Core::start(&cfg, Some(reg(4, primary, mode)));
                    let mut out = Vec::new();
                    core.on(&cfg, In::ForceActive { overrule: false }, &mut out);
                    assert_eq!(core.role(), Role::Primary, "{cfg:?} {primary:?} {mode:?}");
                    assert_eq!(core.release(), Release::Alone);
                    let sync = out.iter().position(|o| *o == Out::SyncReceived);
                    let persist = out.iter().position(|o| matches!(o, Out::Persist(_)));
                    assert!(sync.is_some() && sync < persist, "{out:?}");
                }
            }
        }
    }
}

/// A run that died may have asked the witness for the next value, and have got it unheard: what is issued in the place of the
/// witness is another term, or the two would never agree which of them is later.
#[test]
fn who_overrules_the_witness_issues_no_term_that_the_run_before_may_have_asked_for() {
    let register = RegisterKind::Witness(Witness);
    for me in NodeIx::BOTH {
        for primary in NodeIx::BOTH {
            let cfg = Config { register, ..config(me, false) };
            let mut core = Core::start(&cfg, Some(reg(6 + me.index() as u64, primary, Mode::Solo)));
            let asked = core.reg().term.next(Term(0), me);
            core.on(&cfg, In::ForceActive { overrule: true }, &mut Vec::new());
            assert_eq!((core.role(), core.reg().term.issuer()), (Role::Primary, me));
            assert!(core.reg().term > asked, "{:?} is not above {asked:?}", core.reg());
        }
        // Nor one that this run has asked for itself.
        let cfg = Config { register, ..config(me, false) };
        let mut core = Core::start(&cfg, Some(reg(6 + me.index() as u64, me, Mode::Solo)));
        let mut out = Vec::new();
        core.on(&cfg, In::InitTimeout, &mut out);
        let asked = out.iter().find_map(|o| if let Out::Cas(_, _, to) = o { Some(to.term) } else { None });
        let asked = asked.expect("the witness is asked");
        core.on(&cfg, In::ForceActive { overrule: true }, &mut Vec::new());
        assert!(core.reg().term > asked, "{:?} is not above {asked:?}", core.reg());
    }
}

#[test]
fn force_active_does_nothing_to_who_leads() {
    let cfg = Config { single: true, ..config(NodeIx::A, false) };
    let mut core = Core::start(&cfg, None);
    let mut out = Vec::new();
    core.on(&cfg, In::Ticks(1), &mut out);
    assert_eq!(core.role(), Role::Primary);
    let before = core.clone();
    out.clear();
    core.on(&cfg, In::ForceActive { overrule: false }, &mut out);
    assert_eq!((core, out), (before, vec![]));
}

/// R5: what the peer said while this node stood still is heard before this node goes on alone, and the peer may have
/// taken its place.
#[test]
fn who_stood_still_listens_before_it_goes_on_alone() {
    let cfg = config(NodeIx::A, true);
    let word = |reg, role| Beacon {
        reg,
        role,
        ack: Some(1),
        holds: false,
        alone: false,
        took_other: false,
        stopped: false,
    };
    let pair = reg(4, NodeIx::A, Mode::Pair);
    let primary = || {
        let mut core = Core::start(&cfg, Some(pair));
        let mut out = Vec::new();
        core.on(&cfg, In::Beacon(word(pair, Role::Backup)), &mut out);
        core.on(&cfg, In::Fetched, &mut out);
        assert_eq!((core.role(), core.reg()), (Role::Primary, pair));
        core
    };
    let mut paused = primary();
    let mut out = Vec::new();
    paused.on(&cfg, In::Ticks(cfg.lease + 1), &mut out);
    assert_eq!((paused.role(), paused.reg(), out.len()), (Role::Fenced, pair, 0));
    // The peer is there, and follows: it leads on.
    let mut goes_on = paused.clone();
    goes_on.on(&cfg, In::Sent(1), &mut out);
    goes_on.on(&cfg, In::Beacon(word(pair, Role::Backup)), &mut out);
    assert_eq!((goes_on.role(), goes_on.reg()), (Role::Primary, pair));
    goes_on.on(&cfg, In::Ticks(1), &mut out);
    assert_eq!(goes_on.role(), Role::Primary);
    // The peer has taken its place: it follows, and has acknowledged nothing beside it.
    let mut follows = paused.clone();
    let taken = reg(5, NodeIx::B, Mode::Solo);
    follows.on(&cfg, In::Beacon(word(taken, Role::Primary)), &mut out);
    assert_eq!((follows.role(), follows.reg()), (Role::Backup, taken));
    // Nobody says anything: then it goes on.
    for tick in 1..=cfg.lease {
        assert_eq!(paused.role(), Role::Fenced, "tick {tick}");
        paused.on(&cfg, In::Ticks(1), &mut out);
    }
    assert_eq!((paused.role(), paused.release()), (Role::Primary, Release::Alone));
    // One that heard nothing while it ran has nothing to read: it goes on at once.
    let mut alone = primary();
    for _ in 0..cfg.lease {
        alone.on(&cfg, In::Ticks(1), &mut out);
    }
    assert_eq!((alone.role(), alone.release()), (Role::Primary, Release::Alone));
}

/// Each word of the peer would bring it back, but for the operator's: it says nothing new to any of them.
#[test]
fn who_is_held_answers_no_beacon_with_another() {
    let cfg = config(NodeIx::A, true);
    let pair = reg(2, NodeIx::A, Mode::Pair);
    let word = |ack| {
        let (reg, role, holds, alone) = (pair, Role::Backup, false, false);
        In::Beacon(Beacon { reg, role, ack, holds, alone, took_other: false, stopped: false })
    };
    for fetches_first in [true, false] {
        let (mut core, mut out) = (Core::start(&cfg, Some(pair)), Vec::new());
        core.on(&cfg, word(Some(1)), &mut out);
        if fetches_first {
            core.on(&cfg, In::Fetched, &mut out);
            assert_eq!(core.role(), Role::Primary);
        }
        core.on(&cfg, In::Hold(true), &mut out);
        core.on(&cfg, In::Fetched, &mut out);
        out.clear();
        for number in 2..20 {
            core.on(&cfg, In::Sent(number), &mut out);
            core.on(&cfg, word(Some(number)), &mut out);
        }
        assert_eq!((core.role(), core.release(), &out[..]), (Role::Fenced, Release::Nothing, &[][..]));
        assert!(core.waits(), "it knows what its backup holds");
        core.on(&cfg, In::Hold(false), &mut out);
        core.on(&cfg, In::Sent(20), &mut out);
        core.on(&cfg, word(Some(20)), &mut out);
        assert_eq!((core.role(), core.release()), (Role::Primary, Release::Both));
    }
}

/// R6: what a node finds on its disk it has led under; what it is only told, the witness may have granted to a run before
/// that died of it, and the peer went on leading.
#[test]
fn who_is_told_that_it_leads_learns_first_and_who_finds_it_does_not() {
    let cfg = config(NodeIx::B, true);
    let (before, granted) = (reg(6, NodeIx::A, Mode::Pair), reg(9, NodeIx::B, Mode::Solo));
    let word = |reg| {
        let (role, holds, alone) = (Role::Backup, false, false);
        In::Beacon(Beacon { reg, role, ack: None, holds, alone, took_other: false, stopped: false })
    };
    for (on_disk, learns) in [(before, true), (granted, false)] {
        let (mut core, mut out) = (Core::start(&cfg, Some(on_disk)), Vec::new());
        core.on(&cfg, word(granted), &mut out);
        assert_eq!((core.role(), core.wants_fetch(), core.learns()), (Role::Fenced, true, learns));
        assert_eq!(core.durable(), Some(on_disk), "nothing is led yet");
        core.on(&cfg, In::Fetched, &mut out);
        assert_eq!((core.role(), core.learns()), (Role::Primary, false));
        assert_eq!(core.durable(), Some(granted));
    }
}

/// A run that was granted to lead alone died before it kept that, and the next leads in Pair as its disk has it.
#[test]
fn who_leads_in_pair_and_was_granted_more_before_asks_for_that_again() {
    let cfg = Config { register: RegisterKind::Witness(Witness), ..config(NodeIx::B, false) };
    let pair = reg(5, NodeIx::B, Mode::Pair);
    let leads = || {
        let mut core = Core::start(&cfg, Some(pair));
        let mut out = Vec::new();
        let beacon = Beacon {
            reg: pair,
            role: Role::Backup,
            ack: None,
            holds: false,
            alone: false,
            took_other: false,
            stopped: false,
        };
        core.on(&cfg, In::Beacon(beacon), &mut out);
        core.on(&cfg, In::Fetched, &mut out);
        assert_eq!((core.role(), core.reg()), (Role::Primary, pair));
        core
    };
    let (held, to) = (reg(7, NodeIx::B, Mode::Solo), reg(9, NodeIx::B, Mode::Solo));
    let mut core = leads();
    let mut out = Vec::new();
    core.on(&cfg, In::Held(held), &mut out);
    assert_eq!(out, [Out::Cas(1, held, to)]);
    assert_eq!(core.release(), Release::Nothing, "what it holds may be another by now");
    core.on(&cfg, In::Held(held), &mut out);
    assert_eq!(out.len(), 1, "it asks already");
    core.on(&cfg, In::CasReply(1, CasResult::Won), &mut out);
    assert_eq!((core.role(), core.reg()), (Role::Primary, to));
    let (other, older) = (reg(7, NodeIx::A, Mode::Solo), reg(3, NodeIx::B, Mode::Solo));
    for held in [other, older, pair, reg(7, NodeIx::B, Mode::Pair)] {
        let mut out = Vec::new();
        let mut core = leads();
        core.on(&cfg, In::Held(held), &mut out);
        assert_eq!((out, core.release()), (Vec::new(), Release::Both), "{held:?}");
    }
}

/// It stopped, said so, and heard then that the other one leads in Pair, by a word that was older. What it said is heard when it has
/// acknowledged something alone again: that was not compared.
#[test]
fn who_had_stopped_for_another_copy_goes_on_under_another_term() {
    let [a_cfg, b_cfg] = NodeIx::BOTH.map(|me| config(me, true));
    let mut a = Core::start(&a_cfg, Some(reg(6, NodeIx::A, Mode::Solo)));
    let mut b = Core::start(&b_cfg, Some(reg(6, NodeIx::A, Mode::Solo)));
    let mut out = Vec::new();
    a.on(&a_cfg, In::InitTimeout, &mut out);
    let alone = a.beacon();
    b.on(&b_cfg, In::ForceActive { overrule: false }, &mut out);
    b.on(&b_cfg, In::Beacon(alone), &mut out);
    assert!(b.conflict() && b.release() == Release::Nothing);
    let stopped = b.beacon();
    let pair = Beacon { reg: reg(8, NodeIx::A, Mode::Pair), ..alone };
    b.on(&b_cfg, In::Beacon(pair), &mut out);
    assert_eq!((b.role(), b.release()), (Role::Primary, Release::Alone));
    assert!(b.reg().term > stopped.reg.term, "{:?}", b.reg());
    b.on(&b_cfg, In::AckedAlone, &mut out);
    a.on(&a_cfg, In::Beacon(stopped), &mut out);
    assert!(a.reg().settled == stopped.reg.term && !a.conflict(), "it was compared with that");
    a.on(&a_cfg, In::Beacon(b.beacon()), &mut out);
    assert!(a.conflict(), "and what was acknowledged since is met anew");
}
