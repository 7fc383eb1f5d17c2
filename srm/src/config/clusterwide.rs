//! The settings that must be equal on both nodes, and the hash by which beacons tell whether they are.
//!
//! Two versions of the program do not know the same settings. So that a new one is no difference while nobody has set it, the hash
//! is of those only that are not what they were at first.

use super::Config;
use super::link::first_u64;

/// What each of them was by default in the version that brought it: a node that does not know a setting yet does what this
/// value says. It stays what it is when the default changes, so that two versions with two defaults differ, and with one value in
/// both files do not. Names and domains have none.
const FIRST_DEFAULTS: &[(&str, &str)] = &[
    ("c2s.mechanisms", "SCRAM-SHA-512 SCRAM-SHA-256 SCRAM-SHA-1"),
    ("c2s.plain", "false"),
    ("limits.stanza_bytes", "262144"),
    ("limits.sessions_per_account", "32"),
    ("limits.session_stanzas", "5000"),
    ("limits.session_bytes", "8388608"),
    ("limits.offline_messages", "2000"),
    ("limits.offline_bytes", "16777216"),
    ("limits.roster_items", "2000"),
    ("limits.directed_presences", "1000"),
    ("limits.parks_per_minute", "30"),
    ("limits.resume_timeout", "300s"),
    ("link.commit", "peer"),
    ("link.policy", "available"),
    ("srm.critical_service_delay", "90s"),
    ("srm.enable_automatic_fallback", "false"),
    ("srm.automatic_fallback_after", "30m"),
    ("srm.scheduled_fallback", "false"),
    ("srm.scheduled_fallback_window", "03:00-06:00"),
    ("srm.time_zone", "system"),
    ("srm.initialization_keep_alive_timeout", "120s"),
    ("srm.keep_alive_timeout", "60s"),
    ("srm.keep_alive_interval", "15s"),
    ("srm.enable_authentication_monitoring", "false"),
    ("srm.user_assignment_mode", "balanced"),
    ("srm.disable_automatics", "false"),
    ("srm.allow_adding_users_in_failover", "false"),
    ("srm.automatic_failovers_per_hour", "1"),
    ("srm.failover_on_events", ""),
];

impl Config {
    /// The settings that must be equal on both nodes, as text, for showing where two nodes differ.
    pub fn clusterwide(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("node names", self.members().join(" ")),
            ("node.domains", self.node.domains.join(" ")),
            ("c2s.mechanisms", self.c2s.mechanisms.join(" ")),
            ("c2s.plain", self.c2s.plain.to_string()),
        ];
        self.limits.clusterwide(&mut all);
        if let Some(link) = &self.link {
            all.push(("link.commit", link.commit.as_str().into()));
            all.push(("link.policy", link.policy.as_str().into()));
        }
        self.srm.clusterwide(&mut all);
        all
    }

    /// Digest of [`Config::clusterwide`]: the same on both nodes exactly when those settings are equal, where one that a node
    /// does not know has its first default there.
    pub fn hash(&self) -> u64 {
        digest(&self.clusterwide(), FIRST_DEFAULTS)
    }
}

/// What a node that does not know this setting does; `None`: this version does not know it either, or every version does.
pub(crate) fn first_default(key: &str) -> Option<&'static str> {
    FIRST_DEFAULTS.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
}

/// In the order of their names, which the order in the program does not change.
fn digest(settings: &[(&str, String)], first: &[(&str, &str)]) -> u64 {
    let mut lines: Vec<String> = settings
        .iter()
        .filter(|(key, value)| !first.iter().any(|(known, at_first)| known == key && at_first == value))
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect();
    lines.sort_unstable();
    first_u64(ring::digest::digest(&ring::digest::SHA256, lines.concat().as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: (&str, &str) = ("node names", "a b");
    /// Of a version, and of the next one, which has another setting.
    const OLDER: &[(&str, &str)] = &[("link.commit", "peer"), ("srm.delay", "90s")];
    const NEWER: &[(&str, &str)] = &[("link.commit", "peer"), ("srm.new", "off"), ("srm.delay", "90s")];

    fn of(settings: &[(&'static str, &str)], first: &[(&str, &str)]) -> u64 {
        let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        digest(&settings, first)
    }

    #[test]
    fn a_setting_that_one_version_does_not_know_is_a_difference_when_it_is_set() {
        for delay in ["90s", "91s"] {
            let delay = ("srm.delay", delay);
            let older = of(&[NAMES, ("link.commit", "peer"), delay], OLDER);
            let newer = |new: &str| of(&[NAMES, ("srm.new", new), delay, ("link.commit", "peer")], NEWER);
            assert_eq!(newer("off"), older, "at its default it is nothing new, and the order is nothing");
            assert_ne!(newer("on"), older);
        }
    }

    #[test]
    fn what_both_versions_know_is_a_difference_whatever_their_defaults_are() {
        let older = |delay: &str| of(&[NAMES, ("link.commit", "peer"), ("srm.delay", delay)], OLDER);
        let newer = |delay: &str| of(&[NAMES, ("srm.new", "off"), ("srm.delay", delay)], NEWER);
        // If 60 s is the default from now on, files that say nothing mean two things, and files that say the same do not.
        assert_ne!(older("90s"), newer("60s"));
        for same in ["60s", "90s", "120s"] {
            assert_eq!(older(same), newer(same), "{same}");
        }
        assert_ne!(of(&[NAMES], OLDER), of(&[("node names", "a c")], OLDER));
    }
}
