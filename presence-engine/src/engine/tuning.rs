//! Settings that change while the engine runs.

use super::{Config, Engine, Limits};

/// The part of a [`Config`] that may change while the engine runs. Records tell what was done, so that no log is read
/// in another way for it.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// As [`Config::resume_ms`].
    pub resume_ms: u64,
    /// As [`Config::relogin_s`].
    pub relogin_s: (u32, u32),
    /// As [`Config::limits`].
    pub limits: Limits,
}

impl Config {
    /// Takes other values from now on.
    pub fn tune(&mut self, tuning: Tuning) {
        let Tuning { resume_ms, relogin_s, limits } = tuning;
        (self.resume_ms, self.relogin_s, self.limits) = (resume_ms, relogin_s, limits);
    }
}

impl Engine {
    /// As [`Config::relogin_s`], from now on.
    pub fn set_relogin(&mut self, relogin_s: (u32, u32)) {
        self.cfg.relogin_s = relogin_s;
    }

    /// Takes other settings from the next turn on.
    pub fn tune(&mut self, tuning: Tuning) {
        self.cfg.tune(tuning);
    }
}
