//! What one account or session may cost (S8, S28). Each limit is checked where a record is made, never where it is
//! applied: two nodes with different settings still hold the same state.

/// Limits of accounts and sessions. Defaults are those of [`Limits::DEFAULT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions of one account. One more: `resource-constraint` to the binding (RFC 6120 7.6.2.1). Default 32.
    pub resources: usize,
    /// Stanzas in one session's queue that its client has not acknowledged (XEP-0198). One more ends the session; its
    /// messages go offline. Default 5,000.
    pub queue_stanzas: usize,
    /// Bytes of the same. Default 8 MiB.
    pub queue_bytes: u64,
    /// Volatile stanzas that the client has not acknowledged, and full JIDs whose presence it missed, of which no copy is
    /// kept. One more ends the session. A login is told of every contact at once, so this is larger. Default 50,000.
    pub queue_gaps: usize,
    /// Messages that wait offline for one account. One more goes back to its sender: `service-unavailable` (XEP-0160).
    /// Default 2,000.
    pub offline_messages: usize,
    /// Bytes of the same. Default 16 MiB.
    pub offline_bytes: u64,
    /// Items of one roster. One more: `resource-constraint`. Default 2,000.
    pub roster_items: usize,
    /// Contacts that are in no roster and ask to be (RFC 6121 3.1.3). One more is refused: `unsubscribed`. Default 200.
    pub requests: usize,
    /// Groups of one roster item. Default 32.
    pub roster_groups: usize,
    /// Longest name of a roster item or group, in bytes. Default 1,023.
    pub roster_name_bytes: usize,
    /// Longest subscription request that is kept and shown as it came, in bytes; of a longer one only the request is
    /// kept. Default 4 KiB.
    pub request_bytes: usize,
    /// Longest presence that is broadcast, in bytes. A longer one: `policy-violation`. It goes to every contact, so it costs
    /// more than a message of its size. Default 16 KiB.
    pub presence_bytes: usize,
    /// Addresses with directed presence of one session (RFC 6121 4.6). One more: `resource-constraint`. Default 1,000.
    pub directed: usize,
    /// Streams parked for one session in a minute. One more: `resource-constraint`. A well-behaved client parks once in
    /// minutes. Default 30.
    pub parks_per_minute: u32,
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Limits = Limits {
        resources: 32,
        queue_stanzas: 5_000,
        queue_bytes: 8 << 20,
        queue_gaps: 50_000,
        offline_messages: 2_000,
        offline_bytes: 16 << 20,
        roster_items: 2_000,
        requests: 200,
        roster_groups: 32,
        roster_name_bytes: 1_023,
        request_bytes: 4 << 10,
        presence_bytes: 16 << 10,
        directed: 1_000,
        parks_per_minute: 30,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}
