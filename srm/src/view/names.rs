//! The names that operators know.

/// Makes an enumeration whose values have published names.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($value:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name {
            $(#[doc = $text] $value,)*
        }

        impl $name {
            /// All of them, in the order in which they are listed.
            pub const ALL: &[$name] = &[$($name::$value),*];

            /// The name that operators know.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$value => $text,)*
                }
            }
        }
    };
}

names! {
    /// State of a node.
    State {
        Initializing = "Initializing",
        Idle = "Idle",
        Normal = "Normal",
        RunningInBackupMode = "Running in Backup Mode",
        TakingOver = "Taking Over",
        FailingOver = "Failing Over",
        FailedOver = "Failed Over",
        FailedOverServicesNotRunning = "Failed Over with Critical Services Not Running",
        TakingBack = "Taking Back",
        FallingBack = "Falling Back",
        RunningInFailedMode = "Running in Failed Mode",
        BackupActivated = "Backup Activated",
        FailoverAffectedServices = "Failover Affected Services",
        Unknown = "Unknown",
        Down = "down",
    }
}

names! {
    /// Reason of a state.
    Reason {
        Normal = "Normal",
        OnAdminRequest = "On Admin Request",
        Initialization = "Initialization",
        AutomaticFallback = "Automatic Fallback",
        CriticalServiceDown = "Critical Service Down",
        DatabaseFailure = "Database Failure",
        StartOfCriticalServicesFailed = "Start of Critical Services Failed",
        PeerDown = "Peer Down",
        PeerReboot = "Peer Reboot",
        PeerDownDuringInitialization = "Peer Down During Initialization",
        TakeOverUsersFailed = "Take Over Users Failed",
        TakeBackUsersFailed = "Take Back Users Failed",
        AutoRecoverDatabaseFailure = "Auto Recover Database Failure",
        AutoRecoverCriticalServiceDown = "Auto Recover Critical Service Down",
        Unknown = "Unknown",
    }
}

impl State {
    /// Whether users may be added: in all other states the group is failed over.
    pub fn lets_users_be_added(self) -> bool {
        matches!(self, State::Normal | State::Initializing)
    }
}
