//! Where the nodes differ, though they should not: versions, clocks, settings.

use std::collections::{BTreeMap, BTreeSet};

use crate::admin::NodeStatus;
use crate::config::{Config, first_default};
use crate::node::SETTINGS_DIFFER;
use crate::version;

/// From here on a difference of the nodes' clocks is told.
pub(crate) const CLOCKS_APART_MS: u64 = 5_000;
/// Each node has its own; they are shown where they differ, because few mean that.
const LIMITS: [&str; 2] = ["srm.client_re_login_lower_limit", "srm.client_re_login_upper_limit"];

/// What the nodes compare: all that must be equal, and the re-login limits.
pub(super) fn settings(config: &Config) -> BTreeMap<String, String> {
    let limits = [config.srm.client_re_login_lower_limit, config.srm.client_re_login_upper_limit];
    let limits = LIMITS.into_iter().zip(limits.map(crate::config::text));
    config.clusterwide().into_iter().chain(limits).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// By their names: both nodes say the same.
fn in_order<'a>(here: &'a NodeStatus, peer: &'a NodeStatus) -> (&'a NodeStatus, &'a NodeStatus) {
    if here.name <= peer.name { (here, peer) } else { (peer, here) }
}

/// Names every setting that differs, with both values; `None`: no difference is known. What only one node knows, because it is of
/// another version, differs if it is not at its first default. Of what this version does not know it cannot tell: that is
/// named where nothing else differs.
pub(super) fn settings_differ(here: &NodeStatus, peer: &NodeStatus) -> Option<String> {
    let (here, peer) = in_order(here, peer);
    let keys: BTreeSet<&String> = here.settings.keys().chain(peer.settings.keys()).collect();
    let told = !here.settings.is_empty() && !peer.settings.is_empty();
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    for key in keys.into_iter().filter(|key| told && !LIMITS.contains(&key.as_str())) {
        let (at, value, other) = match (here.settings.get(key), peer.settings.get(key)) {
            (Some(a), Some(b)) => {
                if a != b {
                    found.push(format!("{key} is {a} at {} and {b} at {}", here.name, peer.name));
                }
                continue;
            }
            (Some(value), None) => (here, value, peer),
            (None, Some(value)) => (peer, value, here),
            (None, None) => continue,
        };
        let text = format!(
            "{key} is {value} at {}, and {} does not know it (take it out until both run the same version)",
            at.name, other.name
        );
        match first_default(key) {
            Some(first) if first == value => {}
            Some(_) => found.push(text),
            None => unknown.push(text),
        }
    }
    let found = if found.is_empty() { unknown } else { found };
    (!found.is_empty()).then(|| format!("{SETTINGS_DIFFER}: {}", found.join("; ")))
}

/// The limits may differ, for nodes that are not equally fast.
pub(super) fn limits_differ(here: &NodeStatus, peer: &NodeStatus) -> Option<String> {
    let (here, peer) = in_order(here, peer);
    let of = |node: &NodeStatus| {
        let [lower, upper] = LIMITS.map(|key| node.settings.get(key).cloned());
        Some(format!("{} to {} at {}", lower?, upper?, node.name))
    };
    let differ = LIMITS.iter().any(|key| here.settings.get(*key) != peer.settings.get(*key));
    let (here, peer) = (of(here)?, of(peer)?);
    differ.then(|| {
        format!(
            "the re-login limits differ: {here}, {peer}; clients are told those of the node that they would log in at again: \
             make them equal unless that is meant"
        )
    })
}

/// The clocks order what two histories of one user hold, and date what was delayed: they should agree to seconds.
pub(super) fn clocks_differ(peer: &NodeStatus, asked_ms: u64, answered_ms: u64) -> Option<String> {
    if peer.clock_ms == 0 {
        return None;
    }
    let here = asked_ms.midpoint(answered_ms);
    let apart = here.abs_diff(peer.clock_ms).saturating_sub(answered_ms.saturating_sub(asked_ms));
    (apart >= CLOCKS_APART_MS).then(|| {
        format!(
            "the clocks of the nodes differ by {} s: see to it that both run NTP; leases do not depend on them",
            apart / 1_000
        )
    })
}

/// A fallback at a time of the day is begun by the node in backup mode, whichever that is: both must mean the same by it.
pub(super) fn zones_differ(here: &NodeStatus, peer: &NodeStatus) -> Option<String> {
    let (here, peer) = in_order(here, peer);
    let known = !here.time_zone.is_empty() && !peer.time_zone.is_empty();
    (known && here.time_zone != peer.time_zone).then(|| {
        format!(
            "the time zones of the nodes differ: {} at {}; {} at {}: set [srm] time_zone, or give both machines the same zone and \
             tzdata; the scheduled fallback goes by that of the node that gives users back",
            here.time_zone, here.name, peer.time_zone, peer.name
        )
    })
}

pub(super) fn versions_differ(peer: &NodeStatus) -> Option<String> {
    let own = version::program();
    (!peer.version.is_empty() && peer.version != own)
        .then(|| format!("{} runs version {}, this node {own}: finish the upgrade", peer.name, peer.version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_and_versions_that_differ_are_told() {
        let peer = |clock_ms| NodeStatus { name: "b".into(), clock_ms, ..NodeStatus::default() };
        assert_eq!(clocks_differ(&peer(0), 1_000_000, 1_000_000), None);
        assert_eq!(clocks_differ(&peer(1_004_000), 1_000_000, 1_000_000), None);
        let told = clocks_differ(&peer(1_000_000 + 7_200_000), 1_000_000, 1_000_010).unwrap_or_default();
        assert!(told.contains("differ by 7199 s"), "{told}");
        assert!(clocks_differ(&peer(100_000), 1_000_000, 1_000_000).is_some());
        // A slow answer tells nothing about the clock.
        assert_eq!(clocks_differ(&peer(1_001_000), 1_000_000, 1_008_000), None);
        assert_eq!(versions_differ(&peer(0)), None);
        let older = NodeStatus { version: "0.0.9".into(), ..peer(0) };
        assert!(versions_differ(&older).is_some_and(|told| told.starts_with("b runs version 0.0.9")));
    }

    #[test]
    fn time_zones_that_differ_are_told_in_the_same_words_by_both() {
        let node = |name: &str, zone: &str| NodeStatus {
            name: name.into(),
            time_zone: zone.into(),
            ..NodeStatus::default()
        };
        let (a, b) = (node("a", "UTC+01:00"), node("b", "UTC+00:00"));
        let told = zones_differ(&a, &b).unwrap();
        assert!(
            told.starts_with("the time zones of the nodes differ: UTC+01:00 at a; UTC+00:00 at b:"),
            "{told}"
        );
        assert_eq!(zones_differ(&b, &a), Some(told));
        assert_eq!(zones_differ(&a, &node("b", "UTC+01:00")), None);
        assert_eq!(zones_differ(&a, &node("b", "")), None, "an older version does not tell");
    }

    #[test]
    fn settings_that_differ_are_named_with_both_values() {
        let node = |name: &str, settings: &[(&str, &str)]| NodeStatus {
            name: name.into(),
            settings: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..NodeStatus::default()
        };
        let [lower, upper] = LIMITS;
        let a =
            node("a", &[("srm.keep_alive_timeout", "60s"), (lower, "120s"), (upper, "537s"), ("x.new", "1")]);
        assert_eq!(settings_differ(&a, &a), None);
        assert_eq!(limits_differ(&a, &a), None);
        let b = node("b", &[("srm.keep_alive_timeout", "30s"), (lower, "120s"), (upper, "600s")]);
        let told = settings_differ(&a, &b).unwrap();
        let differ =
            "the nodes' clusterwide settings differ: srm.keep_alive_timeout is 60s at a and 30s at b";
        assert_eq!(told, differ);
        assert!(!told.contains("x.new") && !told.contains("re_login"), "an older version has less: {told}");
        assert_eq!(settings_differ(&b, &a), Some(told));
        let told = limits_differ(&a, &b).unwrap();
        assert!(
            told.starts_with("the re-login limits differ: 120s to 537s at a, 120s to 600s at b;"),
            "{told}"
        );
        assert_eq!(limits_differ(&a, &NodeStatus::default()), None, "it did not tell");
        assert_eq!(settings_differ(&a, &NodeStatus::default()), None, "it did not tell");
    }

    #[test]
    fn a_setting_that_an_older_version_does_not_know_is_named_where_it_is_set() {
        let node = |name: &str, settings: &[(&str, &str)]| NodeStatus {
            name: name.into(),
            settings: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..NodeStatus::default()
        };
        let (known, other) = ("srm.time_zone", ("link.commit", "peer"));
        let older = node("a", &[other]);
        let newer = |zone| node("b", &[(known, zone), other]);
        assert_eq!(settings_differ(&older, &newer("system")), None, "at its default it is none");
        let told = settings_differ(&older, &newer("UTC")).unwrap();
        assert!(
            told.contains("differ: srm.time_zone is UTC at b, and a does not know it (take it out"),
            "{told}"
        );
        assert_eq!(settings_differ(&newer("UTC"), &older), Some(told));
        // The older one does not know what its default is: it may be that, if it is nothing else.
        let newest = node("b", &[("x.new", "1"), other]);
        let told = settings_differ(&older, &newest).unwrap();
        assert!(told.contains("differ: x.new is 1 at b, and a does not know it"), "{told}");
    }
}
