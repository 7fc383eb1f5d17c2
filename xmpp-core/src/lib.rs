//! What is said on the wire: JIDs, XML, stanzas, stream negotiation, stream management and the shell around sockets.
//!
//! Everything but [`net`] is pure: bytes and entropy come in, values and bytes come out.

pub mod dual;
pub mod error;
pub mod jid;
pub mod negotiate;
pub mod net;
pub mod ns;
pub mod sasl;
pub mod sm;
pub mod stanza;
pub mod tls;
pub mod xml;

pub use error::{StanzaCondition, StanzaError, StanzaErrorType, StreamCondition, StreamError};
pub use jid::{BareJid, FullJid, Jid, JidError};
pub use stanza::{Child, Head, Kind, Stanza};
pub use xml::tree::{Attribute, Element};
