//! Stream errors (RFC 6120 4.9) and stanza errors (RFC 6120 8.3). Both are the other side's fault and say what to do.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use compact_str::CompactString;

use crate::ns;
use crate::stanza::{Kind, Stanza};
use crate::xml::Writer;

/// Declares an enum of conditions and the element name of each.
macro_rules! conditions {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl $name {
            /// The element name of the condition.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
            /// The condition with this element name.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

conditions! {
    /// Conditions of a stream error (RFC 6120 4.9.3).
    StreamCondition {
        /// 4.9.3.1: XML that cannot be processed here, such as text between stanzas.
        BadFormat = "bad-format",
        /// 4.9.3.2: a prefix that is not supported, or none where one is needed.
        BadNamespacePrefix = "bad-namespace-prefix",
        /// 4.9.3.3: another stream or session has taken this one's place.
        Conflict = "conflict",
        /// 4.9.3.4: the other side has been silent for too long.
        ConnectionTimeout = "connection-timeout",
        /// 4.9.3.5: the domain is no longer served here.
        HostGone = "host-gone",
        /// 4.9.3.6: the domain is not served here.
        HostUnknown = "host-unknown",
        /// 4.9.3.7: an address is missing or malformed.
        ImproperAddressing = "improper-addressing",
        /// 4.9.3.8: a fault of ours.
        InternalServerError = "internal-server-error",
        /// 4.9.3.9: `from` is not the identity of this stream.
        InvalidFrom = "invalid-from",
        /// 4.9.3.10: the stream or its content is in the wrong namespace.
        InvalidNamespace = "invalid-namespace",
        /// 4.9.3.11: XML that does not fit its schema.
        InvalidXml = "invalid-xml",
        /// 4.9.3.12: not before authentication.
        NotAuthorized = "not-authorized",
        /// 4.9.3.13: not XML, or not well-formed by XML-NAMES.
        NotWellFormed = "not-well-formed",
        /// 4.9.3.14: a limit of this server was passed.
        PolicyViolation = "policy-violation",
        /// 4.9.3.15: a server needed for this cannot be reached.
        RemoteConnectionFailed = "remote-connection-failed",
        /// 4.9.3.16: the stream must begin anew.
        Reset = "reset",
        /// 4.9.3.17: this server lacks the resources.
        ResourceConstraint = "resource-constraint",
        /// 4.9.3.18: comment, processing instruction, document type or foreign entity.
        RestrictedXml = "restricted-xml",
        /// 4.9.3.19: go elsewhere; [`StreamError::see_other_host`] names the place.
        SeeOtherHost = "see-other-host",
        /// 4.9.3.20: this server is going down.
        SystemShutdown = "system-shutdown",
        /// 4.9.3.21: none of the others; an application condition says more.
        UndefinedCondition = "undefined-condition",
        /// 4.9.3.22: not UTF-8.
        UnsupportedEncoding = "unsupported-encoding",
        /// 4.9.3.23: a feature that was required was not negotiated.
        UnsupportedFeature = "unsupported-feature",
        /// 4.9.3.24: neither message, presence nor iq.
        UnsupportedStanzaType = "unsupported-stanza-type",
        /// 4.9.3.25: a version of XMPP that is not spoken here.
        UnsupportedVersion = "unsupported-version",
    }
}

/// What a stream error says beside its condition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Detail {
    Host(CompactString),
    HandledCountTooHigh { h: u32, sent: u32 },
}

/// A stream error (RFC 6120 4.9). It ends the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamError {
    /// What is wrong.
    pub condition: StreamCondition,
    /// One English sentence for whoever debugs the client; never anything the client sent.
    pub text: Option<Cow<'static, str>>,
    detail: Option<Box<Detail>>,
}

impl StreamError {
    /// A stream error without text.
    pub fn new(condition: StreamCondition) -> Self {
        StreamError { condition, text: None, detail: None }
    }

    /// The same error with a sentence for whoever debugs the client.
    pub fn with_text(self, text: impl Into<Cow<'static, str>>) -> Self {
        StreamError { text: Some(text.into()), ..self }
    }

    /// `see-other-host`: `host` or `host:port`, where the client shall connect to (RFC 6120 4.9.3.19).
    pub fn see_other_host(place: &str) -> Self {
        let detail = Some(Box::new(Detail::Host(place.into())));
        StreamError { detail, ..StreamError::new(StreamCondition::SeeOtherHost) }
    }

    /// XEP-0198 4: the client acknowledged `h` although only `sent` stanzas went out.
    pub fn handled_count_too_high(h: u32, sent: u32) -> Self {
        let detail = Some(Box::new(Detail::HandledCountTooHigh { h, sent }));
        StreamError { detail, ..StreamError::new(StreamCondition::UndefinedCondition) }
    }

    /// `<stream:error>` without the closing tag of the stream. The prefix `stream` must be declared on the stream.
    pub fn to_bytes(&self) -> Bytes {
        let mut w = Writer::new();
        w.open("stream:error", "");
        w.open(self.condition.name(), ns::STREAM_ERRORS);
        if let Some(Detail::Host(place)) = self.detail.as_deref() {
            w.text(place);
        }
        w.close();
        if let Some(text) = &self.text {
            w.open("text", ns::STREAM_ERRORS).attr("xml:lang", "en").text(text).close();
        }
        if let Some(Detail::HandledCountTooHigh { h, sent }) = self.detail.as_deref() {
            w.open("handled-count-too-high", ns::SM).attr("h", h).attr("send-count", sent).close();
        }
        w.close();
        w.finish()
    }

    /// Reads a received `<stream:error>`; `None` if `stanza` is something else.
    pub fn parse(stanza: &Stanza) -> Option<StreamError> {
        if stanza.head.ns != ns::STREAM || stanza.head.name != "error" {
            return None;
        }
        let tree = stanza.element();
        let condition = tree.children.iter().filter(|c| c.ns == ns::STREAM_ERRORS);
        let mut error = StreamError::new(StreamCondition::UndefinedCondition);
        for child in condition {
            if let Some(condition) = StreamCondition::parse(&child.name) {
                error.condition = condition;
                if error.condition == StreamCondition::SeeOtherHost && !child.text.is_empty() {
                    error.detail = Some(Box::new(Detail::Host(child.text.as_str().into())));
                }
            } else if child.name == "text" {
                error.text = Some(Cow::Owned(child.text.clone()));
            }
        }
        if let Some(high) = tree.child(ns::SM, "handled-count-too-high") {
            let number = |name| high.attr(name).and_then(|text| text.parse().ok()).unwrap_or_default();
            let (h, sent) = (number("h"), number("send-count"));
            error.detail = Some(Box::new(Detail::HandledCountTooHigh { h, sent }));
        }
        Some(error)
    }

    /// Whether this is `handled-count-too-high` (XEP-0198 section 4): our count and the server's do not fit, so the
    /// session cannot be resumed, now or later.
    pub fn is_handled_count_too_high(&self) -> bool {
        matches!(self.detail.as_deref(), Some(Detail::HandledCountTooHigh { .. }))
    }

    /// Where `see-other-host` points to.
    pub fn other_host(&self) -> Option<&str> {
        match self.detail.as_deref() {
            Some(Detail::Host(place)) => Some(place),
            _ => None,
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.condition.name())?;
        self.text.iter().try_for_each(|text| write!(f, ": {text}"))
    }
}

impl std::error::Error for StreamError {}

conditions! {
    /// What the sender may do about a stanza error (RFC 6120 8.3.2).
    StanzaErrorType {
        /// Retry after providing credentials.
        Auth = "auth",
        /// Do not retry.
        Cancel = "cancel",
        /// Proceed; the condition was only a warning.
        Continue = "continue",
        /// Retry after changing what was sent.
        Modify = "modify",
        /// Retry after waiting.
        Wait = "wait",
    }
}

conditions! {
    /// Conditions of a stanza error (RFC 6120 8.3.3).
    StanzaCondition {
        /// 8.3.3.1: not what the schema or protocol asks for.
        BadRequest = "bad-request",
        /// 8.3.3.2: a resource or name is taken.
        Conflict = "conflict",
        /// 8.3.3.3: known, but not done here.
        FeatureNotImplemented = "feature-not-implemented",
        /// 8.3.3.4: the sender may not do this.
        Forbidden = "forbidden",
        /// 8.3.3.5: the addressee is elsewhere for good.
        Gone = "gone",
        /// 8.3.3.6: a fault of ours.
        InternalServerError = "internal-server-error",
        /// 8.3.3.7: no such address or item.
        ItemNotFound = "item-not-found",
        /// 8.3.3.8: an address that is no JID.
        JidMalformed = "jid-malformed",
        /// 8.3.3.9: does not meet criteria of the addressee.
        NotAcceptable = "not-acceptable",
        /// 8.3.3.10: nobody may do this.
        NotAllowed = "not-allowed",
        /// 8.3.3.11: credentials are needed.
        NotAuthorized = "not-authorized",
        /// 8.3.3.12: against local policy.
        PolicyViolation = "policy-violation",
        /// 8.3.3.13: the addressee is not there now.
        RecipientUnavailable = "recipient-unavailable",
        /// 8.3.3.14: the addressee is elsewhere for now.
        Redirect = "redirect",
        /// 8.3.3.15: the sender must register first.
        RegistrationRequired = "registration-required",
        /// 8.3.3.16: the server of the addressee does not exist or cannot be reached.
        RemoteServerNotFound = "remote-server-not-found",
        /// 8.3.3.17: the server of the addressee does not answer.
        RemoteServerTimeout = "remote-server-timeout",
        /// 8.3.3.18: this server is too busy.
        ResourceConstraint = "resource-constraint",
        /// 8.3.3.19: nobody here understands this.
        ServiceUnavailable = "service-unavailable",
        /// 8.3.3.20: the sender must subscribe first.
        SubscriptionRequired = "subscription-required",
        /// 8.3.3.21: none of the others.
        UndefinedCondition = "undefined-condition",
        /// 8.3.3.22: out of order.
        UnexpectedRequest = "unexpected-request",
    }
}

impl StanzaCondition {
    /// The type that RFC 6120 8.3.3 recommends for this condition.
    pub fn usual_type(&self) -> StanzaErrorType {
        use StanzaCondition as C;
        match self {
            C::Forbidden | C::NotAuthorized | C::RegistrationRequired | C::SubscriptionRequired => {
                StanzaErrorType::Auth
            }
            C::BadRequest | C::JidMalformed | C::NotAcceptable | C::PolicyViolation | C::Redirect => {
                StanzaErrorType::Modify
            }
            C::RecipientUnavailable
            | C::RemoteServerTimeout
            | C::ResourceConstraint
            | C::UnexpectedRequest => StanzaErrorType::Wait,
            _ => StanzaErrorType::Cancel,
        }
    }
}

/// A stanza error (RFC 6120 8.3). The stream goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StanzaError {
    /// What the sender may do about it.
    pub type_: StanzaErrorType,
    /// What is wrong.
    pub condition: StanzaCondition,
    /// One English sentence for whoever debugs the client.
    pub text: Option<Cow<'static, str>>,
}

impl StanzaError {
    /// An error with the usual type of its condition.
    pub fn new(condition: StanzaCondition) -> Self {
        StanzaError { type_: condition.usual_type(), condition, text: None }
    }

    /// The same error with another type.
    pub fn with_type(self, type_: StanzaErrorType) -> Self {
        StanzaError { type_, ..self }
    }

    /// The same error with a sentence for whoever debugs the client.
    pub fn with_text(self, text: impl Into<Cow<'static, str>>) -> Self {
        StanzaError { text: Some(text.into()), ..self }
    }

    /// The error stanza that answers `stanza`: same name and id, addresses swapped, no payload echoed. `None` where
    /// no answer may be given: to an error, to an IQ result, and to what is no stanza (RFC 6120 8.3.1).
    pub fn reply(&self, stanza: &Stanza) -> Option<Bytes> {
        let head = &stanza.head;
        let type_ = head.type_.as_deref();
        let result = head.kind == Kind::Iq && type_ == Some("result");
        if head.kind == Kind::Other || type_ == Some("error") || result {
            return None;
        }
        let mut w = Writer::new();
        w.open(head.kind.name(), ns::CLIENT).attr("type", "error");
        w.attr_opt("id", head.id.as_deref());
        w.attr_opt("from", head.to.as_ref()).attr_opt("to", head.from.as_ref());
        self.write(&mut w);
        w.close();
        Some(w.finish())
    }

    /// The `<error/>` element alone.
    pub fn write(&self, w: &mut Writer) {
        w.open("error", "").attr("type", self.type_.name());
        w.open(self.condition.name(), ns::STANZA_ERRORS).close();
        if let Some(text) = &self.text {
            w.open("text", ns::STANZA_ERRORS).attr("xml:lang", "en").text(text).close();
        }
        w.close();
    }
}

impl fmt::Display for StanzaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.condition.name())
    }
}

impl std::error::Error for StanzaError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_errors_say_condition_text_and_detail() {
        let error = StreamError::new(StreamCondition::NotWellFormed).with_text("a < b");
        assert_eq!(
            error.to_bytes(),
            "<stream:error><not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>a &lt; b</text></stream:error>"
        );
        let high = StreamError::handled_count_too_high(5, 3).to_bytes();
        assert!(high.ends_with(
            b"<handled-count-too-high xmlns='urn:xmpp:sm:3' h='5' send-count='3'/></stream:error>"
        ));
        let other = StreamError::see_other_host("b.example:5222");
        assert_eq!(other.other_host(), Some("b.example:5222"));
        assert!(other.to_bytes().starts_with(
            b"<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>b.example:5222</"
        ));
    }

    #[test]
    fn stanza_errors_swap_addresses_and_never_answer_errors() {
        let error = StanzaError::new(StanzaCondition::ServiceUnavailable);
        let iq = Stanza::parse(b"<iq type='get' id='1' from='a@b/c' to='d'><q xmlns='x'/></iq>").unwrap();
        assert_eq!(
            error.reply(&iq).unwrap(),
            "<iq xmlns='jabber:client' type='error' id='1' from='d' to='a@b/c'><error type='cancel'>\
             <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        );
        for silent in ["<iq type='result' id='1'/>", "<message type='error'/>", "<r xmlns='urn:xmpp:sm:3'/>"]
        {
            assert_eq!(error.reply(&Stanza::parse(silent.as_bytes()).unwrap()), None);
        }
    }
}
