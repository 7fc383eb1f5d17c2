//! Who asks: the name that a request bears in [`HEADER`], for the record of events and the log. It is a claim: who may
//! reach the port and has the token passes, under whatever name.

#![allow(clippy::result_large_err, reason = "the error is the answer")]

use std::future::Future;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::Response;
use tracing::Instrument;

use super::answers::refuse;

/// The header, in UTF-8.
pub const HEADER: &str = "Tandem-Operator";
/// Longest name in characters.
pub const LONGEST: usize = 64;
/// What a name may be.
pub const HINT: &str = "a name has 1 to 64 printable characters, none of them at its ends a space";

tokio::task_local! {
    static ASKS: Option<Arc<str>>;
}

/// Whether this can be the name of an operator: it stands in one line of events, mails and logs, and looks there like what
/// it is.
pub fn is_name(name: &str) -> bool {
    // What is not printable is written differently for debugging, and so are these three.
    let others: String = name.chars().filter(|c| !matches!(c, '\'' | '"' | '\\')).collect();
    let length = name.chars().count();
    (1..=LONGEST).contains(&length) && name.trim() == name && others.escape_debug().eq(others.chars())
}

/// The name in a request, if there is one.
pub(super) fn named(headers: &HeaderMap) -> Result<Option<Arc<str>>, Response> {
    let mut all = headers.get_all(HEADER).iter();
    let Some(first) = all.next() else { return Ok(None) };
    let name =
        std::str::from_utf8(first.as_bytes()).ok().filter(|name| is_name(name) && all.next().is_none());
    name.map(|name| Some(name.into())).ok_or_else(|| {
        let error = format!("the header {HEADER} does not name an operator");
        refuse(StatusCode::BAD_REQUEST, error, HINT)
    })
}

/// Answers a request of this operator: [`current`] gives the name within, and lines of the log bear it.
pub(super) async fn asks<T>(who: Option<Arc<str>>, answers: impl Future<Output = T>) -> T {
    match &who {
        Some(name) => {
            let span = tracing::info_span!("asked", by = %name);
            ASKS.scope(who, answers.instrument(span)).await
        }
        None => ASKS.scope(None, answers).await,
    }
}

/// The operator whose request is being answered, if this is one that bears a name.
pub fn current() -> Option<Arc<str>> {
    ASKS.try_with(Clone::clone).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_can_be_read() {
        let longest = "x".repeat(LONGEST);
        for good in
            ["a", "alice", "Alice O'Hara \"ops\" \\ 2", "jörg", "оператор", "管理者", "uid 1000", &longest]
        {
            assert!(is_name(good), "{good:?}");
        }
        let long = "ä".repeat(LONGEST + 1);
        for bad in [
            "",
            " ",
            " a",
            "a ",
            "a\nb",
            "a\tb",
            "a\0",
            "a\u{1b}[2J",
            "a\u{7f}",
            "a\u{85}b",
            "a\u{2028}b",
            "a\u{202e}b",
            "a\u{200b}b",
            "a\u{feff}b",
            "a\u{e0041}",
            &long,
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn the_name_is_known_within_its_request_and_nowhere_else() {
        assert_eq!(current(), None);
        let within = asks(Some("alice".into()), async { current() }).await;
        assert_eq!(within.as_deref(), Some("alice"));
        assert_eq!(asks(None, async { current() }).await, None);
        assert_eq!(current(), None);
    }
}
