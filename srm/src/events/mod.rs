//! What happened, for operators: numbered, durable, with its cause and the row of the table of states.

pub mod journal;
pub mod kinds;

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much an event matters, by the names and in the order of RFC 5424 section 6.2.1.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
    ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// In the course of things.
    #[default]
    Info,
    /// In the course of things, and worth knowing.
    Notice,
    /// Something is to be looked at soon.
    Warning,
    /// Something does not work.
    Error,
    /// Users are not served, or may not be soon.
    Critical,
}

impl Severity {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Notice => "notice",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Critical => "critical",
        }
    }

    /// The number of RFC 5424 section 6.2.1.
    pub fn syslog(self) -> u8 {
        match self {
            Severity::Info => 6,
            Severity::Notice => 5,
            Severity::Warning => 4,
            Severity::Error => 3,
            Severity::Critical => 2,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One event, as it is kept, shown and sent to who is to be notified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Counts up from 1 on each node, without gaps, for as long as its disk lives.
    pub number: u64,
    /// The node that writes it.
    pub node: String,
    /// Wall clock in milliseconds since 1970 (UTC).
    pub at_ms: u64,
    /// How much it matters.
    pub severity: Severity,
    /// What kind it is, such as `failover-complete`.
    pub event: String,
    /// Row of the table of states that holds from then on.
    pub row: Option<u32>,
    /// State and reason of each node from then on, by the names of the nodes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub states: BTreeMap<String, (String, String)>,
    /// What brought it about, such as `operator` or `node crashed`; empty where that says nothing.
    pub cause: String,
    /// Who asked for it and where, such as `alice at node a`; empty where nobody did. The name is what was claimed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub asked_by: String,
    /// How many users were moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<u64>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// The whole of it in one sentence.
    pub text: String,
}

impl Record {
    /// Its name among the events of both nodes, such as `a-17`.
    pub fn id(&self) -> String {
        format!("{}-{}", self.node, self.number)
    }
}
