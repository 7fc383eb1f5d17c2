//! `[srm]`: the parameters of the Server Recovery Manager, with the defaults of the product it recreates.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::zone::Zone;
use crate::events::kinds::KINDS;

/// `[srm]`. All have defaults; durations are text with units, such as `"90s"`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Srm {
    /// How long a critical service may be down before failover. Clients that wait at the other node may bring it about before
    /// (`force_failover_on_client_login`), unless the operator stopped the service. Default 90 s, 10 s to 600 s. Clusterwide.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub critical_service_delay: Duration,
    /// Whether a home node that is well again gets its users back by itself. Default false. Clusterwide.
    pub enable_automatic_fallback: bool,
    /// How long it must have been well without interruption first. Default 30 min, 1 s to 24 h. Clusterwide.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub automatic_fallback_after: Duration,
    /// Whether that happens within a daily window instead. Default false. Clusterwide.
    pub scheduled_fallback: bool,
    /// The window, in the time of `time_zone`, may span midnight. Default `"03:00-06:00"`. Clusterwide.
    pub scheduled_fallback_window: Window,
    /// The time zone of the group, by which windows of the day are read: a name such as `"Europe/Berlin"`, with daylight
    /// saving as the machine's tzdata has it; an offset such as `"+01:00"`; `"UTC"`; or `"system"`, the zone of each machine, an
    /// alarm where they are not the same. Default `"system"`. Clusterwide.
    pub time_zone: Zone,
    /// How long the peer may be missing while this node starts. Default 120 s, at least `keep_alive_timeout`.
    /// Clusterwide.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub initialization_keep_alive_timeout: Duration,
    /// How long the peer may be silent. Default 60 s, at least 4 intervals and more than twice the lease of 3 s.
    /// Clusterwide.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub keep_alive_timeout: Duration,
    /// How often the nodes exchange their versions, clocks and settings, which alarms compare. Beacons, by which leases and
    /// silence are measured, go every second whatever this says; the time-outs are at least four times it. Default 15 s, 1 s to 60 s. Clusterwide.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub keep_alive_interval: Duration,
    /// Whether the authentication service counts as critical. Default false. Clusterwide.
    pub enable_authentication_monitoring: bool,
    /// Least time before a client opens a stream that nobody waits for: one to be parked at this node, at first or anew; it is a
    /// random time between the two limits. A client that has no stream at all does not wait for it: those who come at once
    /// wait at the door (`limits.login_share`). Default 120 s, up to the upper limit. Each node.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub client_re_login_lower_limit: Duration,
    /// Most time before that. Default 537 s, 0 s to 7200 s. Each node.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub client_re_login_upper_limit: Duration,
    /// Whether these two limits are told as they are (`"fixed"`, default), or shorter ones while they suffice
    /// (`"computed"`): from 10 s on, for as long as the sessions that there are take to log in at what a login costs, as
    /// measured, twice over. Each node.
    pub client_re_login_limits: ReLogin,
    /// How users are spread over the nodes: `"balanced"` (default), `"active-standby"`, `"none"`. Clusterwide.
    pub user_assignment_mode: Assignment,
    /// Whether clients that lost the other node, and log in at this one with the sessions that they had there, bring about a
    /// failover when it has been silent for 10 s and no client vouches for it, or when it is heard and has answered nobody
    /// who logs in here for `keep_alive_timeout`. Default true. Each node.
    pub force_failover_on_client_login: bool,
    /// From how many distinct accounts on. Default 3, 1 to 1000. Each node.
    pub force_failover_clients: u32,
    /// Whether nothing happens without the operator (for troubleshooting; an alarm while set): no node takes over or falls
    /// back, and when both were restarted neither serves until `tandem force-active`. Default false. Clusterwide.
    pub disable_automatics: bool,
    /// Whether users may be added while failed over. Default false. Clusterwide.
    pub allow_adding_users_in_failover: bool,
    /// Failovers an hour of a node, for a service, for clients that it does not answer or by `failover_on_events`, before
    /// there is an alarm and no more of them. A restart of the node does not begin the hour anew. Default 1, 1 to 60. Clusterwide.
    pub automatic_failovers_per_hour: u32,
    /// Whether the store, and the peer's copies of this node's users, are checked once a day. Default true. Each node.
    pub nightly_check: bool,
    /// When, in the time of `time_zone`; may span midnight. It begins as soon as all is at rest and clients say little: over the
    /// last minute less than one element a second, or at most a quarter of the busiest minute since the check before. If they
    /// never do, it begins at the end of the window. Default `"02:00-05:00"`. Each node.
    pub nightly_check_window: Window,
    /// Events of a node that have it fail over, as soon as both nodes are Normal, by their kinds
    /// ([events.md](events.md)), or by kind and words: `"alarm: clocks of the nodes differ"`. They count for
    /// `automatic_failovers_per_hour`; the way back is the operator's. Default none. Clusterwide.
    pub failover_on_events: Vec<EventRule>,
}

impl Default for Srm {
    fn default() -> Self {
        Srm {
            critical_service_delay: Duration::from_secs(90),
            enable_automatic_fallback: false,
            automatic_fallback_after: Duration::from_secs(30 * 60),
            scheduled_fallback: false,
            scheduled_fallback_window: Window { from_min: 3 * 60, to_min: 6 * 60 },
            time_zone: Zone::default(),
            initialization_keep_alive_timeout: Duration::from_secs(120),
            keep_alive_timeout: Duration::from_secs(60),
            keep_alive_interval: Duration::from_secs(15),
            enable_authentication_monitoring: false,
            client_re_login_lower_limit: Duration::from_secs(120),
            client_re_login_upper_limit: Duration::from_secs(537),
            client_re_login_limits: ReLogin::Fixed,
            user_assignment_mode: Assignment::Balanced,
            force_failover_on_client_login: true,
            force_failover_clients: 3,
            disable_automatics: false,
            allow_adding_users_in_failover: false,
            automatic_failovers_per_hour: 1,
            nightly_check: true,
            nightly_check_window: Window { from_min: 2 * 60, to_min: 5 * 60 },
            failover_on_events: Vec::new(),
        }
    }
}

impl Srm {
    fn rules(&self) -> Vec<&str> {
        self.failover_on_events.iter().map(EventRule::as_str).collect()
    }

    /// Adds the parameters that must be equal on both nodes.
    pub(super) fn clusterwide(&self, all: &mut Vec<(&'static str, String)>) {
        let text = super::text;
        all.extend([
            ("srm.critical_service_delay", text(self.critical_service_delay)),
            ("srm.enable_automatic_fallback", self.enable_automatic_fallback.to_string()),
            ("srm.automatic_fallback_after", text(self.automatic_fallback_after)),
            ("srm.scheduled_fallback", self.scheduled_fallback.to_string()),
            ("srm.scheduled_fallback_window", self.scheduled_fallback_window.to_string()),
            ("srm.time_zone", self.time_zone.as_str().to_owned()),
            ("srm.initialization_keep_alive_timeout", text(self.initialization_keep_alive_timeout)),
            ("srm.keep_alive_timeout", text(self.keep_alive_timeout)),
            ("srm.keep_alive_interval", text(self.keep_alive_interval)),
            ("srm.enable_authentication_monitoring", self.enable_authentication_monitoring.to_string()),
            ("srm.user_assignment_mode", self.user_assignment_mode.as_str().into()),
            ("srm.disable_automatics", self.disable_automatics.to_string()),
            ("srm.allow_adding_users_in_failover", self.allow_adding_users_in_failover.to_string()),
            ("srm.automatic_failovers_per_hour", self.automatic_failovers_per_hour.to_string()),
            ("srm.failover_on_events", self.rules().join(", ")),
        ]);
    }
}

/// An event that has a node fail over.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct EventRule(String);

impl EventRule {
    /// As it stands in the file.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind of the event.
    pub fn event(&self) -> &str {
        self.0.split_once(':').map_or(&*self.0, |(event, _)| event).trim()
    }

    /// What must stand in its text.
    pub fn text(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, text)| text.trim())
    }
}

impl TryFrom<String> for EventRule {
    type Error = String;

    fn try_from(text: String) -> Result<EventRule, String> {
        let rule = EventRule(text);
        if rule.text().is_some_and(str::is_empty) {
            return Err(format!("\"{}\" has no words behind its colon", rule.0));
        }
        // What a failover brings about would bring about the next one.
        let never = ["state", "rule", "rule-refused", "asked"];
        let kind = KINDS.iter().find(|kind| kind.name == rule.event());
        match kind {
            Some(kind)
                if never.contains(&kind.name)
                    || kind.name.starts_with("failover-")
                    || kind.name.starts_with("fallback-") =>
            {
                Err(format!("events of the kind \"{}\" cannot have a node fail over", kind.name))
            }
            Some(_) => Ok(rule),
            None => {
                Err(format!("there is no kind of events \"{}\"; docs/events.md lists them", rule.event()))
            }
        }
    }
}

impl From<EventRule> for String {
    fn from(rule: EventRule) -> String {
        rule.0
    }
}

/// The lower limit where limits are computed: a client that has no standby need not come before the other node has taken
/// over.
pub(crate) const COMPUTED_LOWER_S: u32 = 10;

/// Which re-login limits clients are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReLogin {
    /// Those that are set.
    #[default]
    Fixed,
    /// Shorter ones, while they suffice.
    Computed,
}

/// How users are spread over the two nodes when they are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Assignment {
    /// Equal shares on each node.
    #[default]
    Balanced,
    /// All on the first node.
    ActiveStandby,
    /// The operator says for each.
    None,
}

impl Assignment {
    /// As it stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Assignment::Balanced => "balanced",
            Assignment::ActiveStandby => "active-standby",
            Assignment::None => "none",
        }
    }
}

/// A daily span of time that may span midnight, such as `03:00-06:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Window {
    /// First minute of it, counted from midnight; 0 to 1439.
    pub from_min: u16,
    /// First minute after it, counted from midnight; 0 to 1439.
    pub to_min: u16,
}

impl Window {
    /// Whether this minute of the day (0 to 1439) lies in it.
    pub fn contains(self, minute: u16) -> bool {
        if self.from_min < self.to_min {
            (self.from_min..self.to_min).contains(&minute)
        } else {
            minute >= self.from_min || minute < self.to_min
        }
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let clock = |minute: u16| (minute / 60, minute % 60);
        let ((from_h, from_m), (to_h, to_m)) = (clock(self.from_min), clock(self.to_min));
        write!(f, "{from_h:02}:{from_m:02}-{to_h:02}:{to_m:02}")
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        window.to_string()
    }
}

impl TryFrom<String> for Window {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parsed = text.split_once('-').and_then(|(from, to)| {
            Some(Window { from_min: minute(from.trim())?, to_min: minute(to.trim())? })
        });
        match parsed {
            Some(window) if window.from_min != window.to_min => Ok(window),
            _ => Err(format!("{text:?} is not a span of time of the day such as \"03:00-06:00\"")),
        }
    }
}

fn minute(clock: &str) -> Option<u16> {
    let (hour, minute) = clock.split_once(':')?;
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}
