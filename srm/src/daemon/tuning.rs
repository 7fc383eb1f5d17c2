//! What a running node takes up of the configuration.

use std::time::Duration;

use presence_engine::engine;

use super::ticks;
use crate::beacon::Secret;
use crate::config::{Config, Link as LinkConfig, ReLogin};
use crate::{evidence, node};

/// What of the configuration the node takes up while it runs.
pub(super) fn tuning(config: &Config) -> node::Tuning {
    let srm = &config.srm;
    let seconds = |d: Duration| d.as_secs() as u32;
    node::Tuning {
        engine: engine::Tuning {
            resume_ms: config.limits.resume_timeout.as_millis() as u64,
            relogin_s: (seconds(srm.client_re_login_lower_limit), seconds(srm.client_re_login_upper_limit)),
            limits: config.limits.engine(),
        },
        evidence: evidence::Config {
            silence: ticks(srm.keep_alive_timeout),
            quick: ticks(Duration::from_secs(10)).min(ticks(srm.keep_alive_timeout)),
            init: ticks(srm.initialization_keep_alive_timeout),
            callers: if srm.force_failover_on_client_login { srm.force_failover_clients } else { 0 },
        },
        secret: config.pair().map_or(Secret::new(&[0; 32]), |(_, link)| beacon_secret(link)),
        config_hash: config.hash(),
        park_wait: ticks(srm.client_re_login_upper_limit).saturating_add(20),
        automatics: node::Automatics {
            disabled: srm.disable_automatics,
            fallback: srm.enable_automatic_fallback,
            window: srm.scheduled_fallback.then_some(srm.scheduled_fallback_window),
            after: ticks(srm.automatic_fallback_after),
            delay: ticks(srm.critical_service_delay),
            authentication: srm.enable_authentication_monitoring,
            failovers_per_hour: srm.automatic_failovers_per_hour,
            add_users: srm.allow_adding_users_in_failover,
            check: srm.nightly_check.then_some(srm.nightly_check_window),
            computed_limits: srm.client_re_login_limits == ReLogin::Computed,
            assignment: srm.user_assignment_mode,
        },
    }
}

fn beacon_secret(link: &LinkConfig) -> Secret {
    Secret::all(&link.secret.derive_all("beacon"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "[node]\nname = \"a\"\ndomains = [\"im.example\"]\n[c2s]\ncert = \"c\"\nkey = \"k\"\n[srm]\n";

    fn tuned(srm: &str) -> node::Tuning {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tandem.toml");
        std::fs::write(&path, format!("{FILE}{srm}\n")).unwrap();
        tuning(&Config::load(&path).unwrap())
    }

    /// Each parameter arrives at the node: said alone, it changes what the node is told, and that as it is said.
    #[test]
    fn each_parameter_of_the_server_recovery_manager_reaches_the_node() {
        let default = tuned("");
        assert_eq!(default.evidence.callers, 3);
        assert_eq!(tuned("force_failover_on_client_login = false").evidence.callers, 0);
        assert_eq!(tuned("force_failover_clients = 7").evidence.callers, 7);
        assert_eq!((default.evidence.silence, default.evidence.init, default.evidence.quick), (240, 480, 40));
        assert_eq!(tuned("keep_alive_timeout = \"61s\"").evidence.silence, 244);
        assert_eq!(tuned("initialization_keep_alive_timeout = \"121s\"").evidence.init, 484);
        let limits = tuned("client_re_login_lower_limit = \"11s\"\nclient_re_login_upper_limit = \"22s\"");
        assert_eq!((default.engine.relogin_s, limits.engine.relogin_s), ((120, 537), (11, 22)));

        let told = |srm: &str| tuned(srm).automatics;
        let automatics = default.automatics;
        assert!(!automatics.disabled && told("disable_automatics = true").disabled);
        assert!(!automatics.fallback && told("enable_automatic_fallback = true").fallback);
        assert_eq!((automatics.after, told("automatic_fallback_after = \"5s\"").after), (7_200, 20));
        assert!(automatics.window.is_none());
        let window = told("scheduled_fallback = true\nscheduled_fallback_window = \"01:00-02:00\"").window;
        assert_eq!(window.map(|window| window.to_string()).as_deref(), Some("01:00-02:00"));
        assert_eq!((automatics.delay, told("critical_service_delay = \"10s\"").delay), (360, 40));
        assert!(!automatics.authentication && told("enable_authentication_monitoring = true").authentication);
        let most = told("automatic_failovers_per_hour = 4").failovers_per_hour;
        assert_eq!((automatics.failovers_per_hour, most), (1, 4));
        assert!(!automatics.add_users && told("allow_adding_users_in_failover = true").add_users);
        assert!(automatics.check.is_some() && told("nightly_check = false").check.is_none());
        assert!(!automatics.computed_limits);
        assert!(told("client_re_login_limits = \"computed\"").computed_limits);
        assert_eq!(automatics.assignment, crate::config::Assignment::Balanced);
        let none = told("user_assignment_mode = \"none\"").assignment;
        assert_eq!(none, crate::config::Assignment::None);
    }
}
