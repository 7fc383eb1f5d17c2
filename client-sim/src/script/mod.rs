//! Wire scripts: what each client sends and what it must receive, in a text that reads like the XMPP on the wire.
//!
//! ```text
//! # A chat message to a bare JID reaches every available resource (RFC 6121 8.5.2.1.1)
//! Romeo is romeo@example.org/orchard
//! Juliet is juliet@example.org/balcony
//!
//! Romeo connects
//! Juliet connects
//! Juliet sends:
//!     <presence/>
//! Juliet receives:
//!     <presence from='juliet@example.org/balcony'/>
//! Romeo sends:
//!     <message to='juliet@example.org' type='chat' id='m1'><body>Wherefore?</body></message>
//! Juliet receives:
//!     <message from='romeo@example.org/orchard' to='juliet@example.org' type='chat' id='m1'>
//!       <body>Wherefore?</body>
//!     </message>
//! Romeo receives nothing
//! ```
//!
//! | step | means |
//! |---|---|
//! | `X is user@example.org/resource` | who X is; nothing happens yet |
//! | `X connects` | logs in, binds its resource, and enables stream management, which it then does by itself |
//! | `X opens a stream` | logs in and binds nothing: from here on the script says and sees everything itself |
//! | `X disconnects` | ends the stream in good order and waits until the server has done so too |
//! | `X loses the connection` | breaks TCP without a word |
//! | `X sends:` | what is indented below, as it stands |
//! | `X receives:` | the next stanzas are these, in this order |
//! | `X receives in any order:` | the next stanzas are these |
//! | `X receives nothing` | everything done so far brought X nothing more: proved by pings that went every way behind it |
//! | `X's stream ends with condition` | a stream error with this condition, and the end |
//! | `play name` | the steps of another script of the same folder |
//! | `not over a failover: reason` | the script is not played with a node killed in its middle |
//!
//! `on Server` behind `sends`, `receives`, ... makes a step one for this server only. At its end each script proves that
//! nobody was sent anything more.
//!
//! Stanzas are compared as XML: prefixes, order of attributes, quotes and white space at the ends of text do not matter;
//! the order of children does not either. Everything else must be as written. `to` may be left out where it names the
//! receiving client, `from` where it names that client's account, and `xml:lang` everywhere. Instead of a value: `{any}`, `{any?}` (any or none), `{name}` (the first time any, then that one
//! again; also in what is sent). `...` as text of an element lets it have more children than are written.

mod actor;
mod parse;
mod pattern;
mod player;

use std::path::PathBuf;

use xmpp_core::Element;

pub use parse::{Names, ScriptError};
pub use player::{Failure, Middle, Player, Stage};

/// A script, read for one pair of a domain and a tag.
#[derive(Clone, Debug)]
pub struct Script {
    /// File name without its extension.
    pub name: String,
    /// The first line of the first comment.
    pub title: String,
    /// Who plays.
    pub cast: Vec<Role>,
    /// Localparts of the accounts, each once, in the order in which they appear.
    pub accounts: Vec<String>,
    /// Why it is not played with a failover in the middle, if it is not.
    pub no_failover: Option<String>,
    steps: Vec<Step>,
    names: Names,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// What the script calls it.
    pub name: String,
    /// Localpart of its account.
    pub user: String,
    /// Its resource.
    pub resource: String,
}

#[derive(Clone, Debug)]
struct Step {
    file: PathBuf,
    line: usize,
    /// Index of the client.
    who: usize,
    /// For this server only.
    only: Option<String>,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Connect,
    Open,
    Disconnect,
    Lose,
    /// Stanzas as they stand, placeholders included.
    Send(String),
    Receive {
        stanzas: Vec<Element>,
        any_order: bool,
    },
    Nothing,
    Ends(String),
}

impl Script {
    /// Steps before which a node may be killed: behind the first that sends something, and where no client has a stream
    /// of its own, whose end the script would have to tell.
    pub fn middles(&self) -> Vec<usize> {
        let mut open = vec![false; self.cast.len()];
        let mut sent = false;
        let mut found = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            if sent && !open.contains(&true) {
                found.push(index);
            }
            match step.what {
                What::Open => open[step.who] = true,
                What::Disconnect | What::Lose | What::Ends(_) => open[step.who] = false,
                What::Send(_) => sent = true,
                _ => {}
            }
        }
        found
    }

    /// File and line of a step.
    pub fn place(&self, step: usize) -> String {
        self.steps.get(step).map_or_else(
            || format!("{}: the end", self.name),
            |step| format!("{}:{}", step.file.display(), step.line),
        )
    }
}
