//! How alarms begin of which users wait: they are critical, whatever else they say.

pub(super) const FENCED: &str = "fenced:";
pub(super) const DISK_STALLS: &str = "the disk of this node";
pub(super) const NOTHING_YET: &str = "this node has nothing yet";
pub(super) const INACTIVE: &str = "inactive";
pub(super) const CRITICAL_SERVICE: &str = "critical service";
pub(super) const FAILED_MODE: &str = "both nodes run in failed mode";

/// Whether users wait because of what this alarm says.
pub(crate) fn users_wait(alarm: &str) -> bool {
    [FENCED, DISK_STALLS, NOTHING_YET, INACTIVE, CRITICAL_SERVICE, FAILED_MODE]
        .iter()
        .any(|begin| alarm.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_looked_at_soon_is_not_what_users_wait_for() {
        for alarm in
            ["unprotected: users of a are served without a standby", "a critical service of b is down"]
        {
            assert!(!users_wait(alarm), "{alarm}");
        }
        assert!(users_wait("fenced: users of a are not served here"));
    }
}
