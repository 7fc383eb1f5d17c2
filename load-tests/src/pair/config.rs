//! What the nodes of a run are told of themselves and of each other.

use presence_engine::engine;
use presence_engine::ids::NodeIx;
use session_mover::driver;
use session_mover::msg::VERSIONS;
use srm::beacon::Secret;
use srm::evidence;
use srm::node::Config;
use srm::safety::{self, Consent, RegisterKind};

use super::world::{World, peer};

/// After how many ticks of silence a node is held to be gone, and after how many if parked clients agree.
const SILENCE: u32 = 240;
const QUICK: u32 = 40;

impl World {
    pub(super) fn config(&mut self, node: usize, boot: u64) -> Config {
        let engine = engine::Config {
            me: NodeIx::BOTH[node],
            peer: (!self.profile.single).then(|| peer(1 - node)),
            domain: "d".into(),
            resume_ms: 300_000,
            relogin_s: (0, 1),
            limits: engine::Limits::DEFAULT,
            tokens: Some(super::tokens::key()),
            trap: None,
        };
        Config {
            names: ["a".into(), "b".into()],
            driver: driver::Config {
                engine,
                versions: VERSIONS,
                cluster: 1,
                boot,
                ack_synced: self.profile.peer_and_disk,
                checkpoint_frames: 40,
            },
            single: self.profile.single,
            register: match self.profile.witness {
                true => RegisterKind::Witness(safety::Witness),
                false => RegisterKind::Consent(Consent { available: self.profile.available }),
            },
            lease: 12,
            beacon_ticks: 4,
            evidence: evidence::Config {
                silence: self.silence(),
                quick: QUICK,
                init: 480,
                callers: self.callers,
            },
            secret: Secret::new(b"of the cluster"),
            config_hash: 1,
            nonce_key: Secret::new(&self.rng.bits().to_le_bytes()),
            park_wait: 40,
            automatics: self.automatics,
        }
    }

    /// Where both are to go on alone they do not wait for a minute.
    fn silence(&self) -> u32 {
        if self.profile.alone { QUICK } else { SILENCE }
    }
}
