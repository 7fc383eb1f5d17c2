//! XML namespaces of the wire, each under the word the RFC or XEP uses for it.

/// Default namespace of a client's stream and of its stanzas (RFC 6120 4.8.2).
pub const CLIENT: &str = "jabber:client";
/// Default namespace between servers (RFC 6120 4.8.2).
pub const SERVER: &str = "jabber:server";
/// The stream element and its features (RFC 6120 4.8.1).
pub const STREAM: &str = "http://etherx.jabber.org/streams";
/// Conditions inside a stream error (RFC 6120 4.9.2).
pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// Conditions inside a stanza error (RFC 6120 8.3.2).
pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// STARTTLS negotiation (RFC 6120 5.4).
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// SASL negotiation (RFC 6120 6.4).
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// Types of channel binding, as a stream feature (XEP-0440 0.5).
pub const SASL_BINDING: &str = "urn:xmpp:sasl-cb:0";
/// Resource binding (RFC 6120 7.4).
pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// Stream management (XEP-0198 1.6).
pub const SM: &str = "urn:xmpp:sm:3";
/// Limits of a stream, as a stream feature (XEP-0478 0.1).
pub const STREAM_LIMITS: &str = "urn:xmpp:stream-limits:0";
/// The prefix `xml`, bound to this everywhere (XML-NAMES 3).
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// The prefix `xmlns`; never to be declared (XML-NAMES 3).
pub const XMLNS: &str = "http://www.w3.org/2000/xmlns/";
