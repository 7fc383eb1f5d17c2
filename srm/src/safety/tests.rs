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
