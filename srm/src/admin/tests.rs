//! The API over real HTTP on loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::fake::{Fake, TOKEN};
use super::{Forced, ServiceAction, Stop, listen};

/// Sends a request with these header lines, gives status and body.
async fn raw(to: SocketAddr, line: &str, headers: &[&str], body: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(to).await.unwrap();
    let mut request = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
    headers.iter().for_each(|header| request.push_str(&format!("{header}\r\n")));
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// A request as the command line sends it.
async fn ask(to: SocketAddr, line: &str, body: &str) -> (u16, Value) {
    let host = format!("Host: {to}");
    let token = format!("Authorization: Bearer {TOKEN}");
    let headers = [host.as_str(), token.as_str(), "Content-Type: application/json"];
    let (status, body) = raw(to, line, &headers, body).await;
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}")))
}

async fn start() -> (Arc<Fake>, SocketAddr) {
    let fake = Arc::new(Fake::default());
    (Arc::clone(&fake), Fake::start(fake).await)
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let why = listen(address, "a").await.unwrap_err().to_string();
    assert!(why.starts_with(&format!("admin.listen: {address} cannot be listened on: ")), "{why}");
    assert!(why.contains("another process has it"), "{why}");
}

#[tokio::test]
async fn the_status_is_told_with_the_names_that_operators_know() {
    let (_, api) = start().await;
    let (code, status) = ask(api, "GET /v1/status", "").await;
    assert_eq!(code, 200);
    assert_eq!(status["domain"], "im.example");
    assert_eq!(status["nodes"][0]["counters"]["JsmSessionsClient"], 5);
    assert_eq!(status["nodes"][1]["state"], "Normal");
    for counter in
        ["JsmSessionsClientInactive", "JsmSessionsComposed", "ActiveJsmSessions", "InactiveJsmSessions"]
    {
        assert_eq!(status["nodes"][0]["counters"][counter], 0, "{counter}");
    }
}

#[tokio::test]
async fn nothing_is_told_without_the_token() {
    let (fake, api) = start().await;
    let host = format!("Host: {api}");
    let paths = [
        "GET /v1/status",
        "GET /v1/users",
        "POST /v1/users",
        "POST /v1/nodes/a/failover",
        "POST /v1/nodes/a/force-active",
        "POST /v1/nodes/a/services/router",
        "POST /v1/recover",
        "POST /v1/check",
        "GET /v1/sessions",
        "POST /v1/reload",
        "GET /v1/log",
        "POST /v1/log",
        "GET /metrics",
        "DELETE /v1/users/anna",
        "POST /v1/users/anna/password",
        "GET /nonsense",
        "GET /",
        "GET //v1/status",
        "GET /v1/%73tatus",
        "GET /healthz/../v1/status",
        "GET /healthz%2f..%2fv1/status",
        "DELETE /v1/users",
    ];
    let wrong = format!("Authorization: Bearer {}x", TOKEN);
    let basic = format!("Authorization: Basic {TOKEN}");
    for path in paths {
        for auth in ["X: y", "Authorization: Bearer ", "Authorization: Bearer wrong", &wrong, &basic] {
            let (code, body) = raw(api, path, &[&host, auth], "").await;
            assert_eq!(code, 401, "{path} {auth}: {body}");
            assert!(body.contains("token_file") && !body.contains("Normal"), "{body}");
        }
    }
    assert!(fake.accounts().is_empty());
}

#[tokio::test]
async fn another_host_is_refused_even_with_the_token() {
    let (_, api) = start().await;
    let token = format!("Authorization: Bearer {TOKEN}");
    for host in ["Host: evil.example", "Host: evil.example:20075", "Host: localhost.evil.example", "Host: "] {
        let (code, body) = raw(api, "GET /v1/status", &[host, &token], "").await;
        assert_eq!(code, 403, "{host}: {body}");
    }
    for host in
        ["Host: localhost", "Host: LOCALHOST:1", "Host: 127.0.0.1:20075", "Host: [::1]:20075", "Host: [::1]"]
    {
        assert_eq!(raw(api, "GET /v1/status", &[host, &token], "").await.0, 200, "{host}");
    }
    assert_eq!(raw(api, "GET /healthz", &["Host: evil.example"], "").await.0, 403);
}

#[tokio::test]
async fn who_asks_is_who_the_request_names_and_a_name_is_no_token() {
    let (fake, api) = start().await;
    let (host, token) = (format!("Host: {api}"), format!("Authorization: Bearer {TOKEN}"));
    let named = |name: &str| format!("Tandem-Operator: {name}");
    let (alice, json) = (named("alice"), "Content-Type: application/json");
    let line = "POST /v1/nodes/a/failover";
    assert_eq!(raw(api, line, &[&host, &alice], "").await.0, 401, "a claim lets nobody in");
    assert_eq!(raw(api, line, &[&host, &token, &alice], "").await.0, 202);
    let set = r#"{"key":"srm.keep_alive_timeout","value":"9"}"#;
    let jorg = named("Jörg O'Hara");
    assert_eq!(raw(api, "POST /v1/settings", &[&host, &token, json, &jorg], set).await.0, 200);
    assert_eq!(raw(api, "POST /v1/settings", &[&host, &token, json], set).await.0, 200);
    assert_eq!(fake.operators(), ["alice", "Jörg O'Hara", ""]);
    let long = "x".repeat(65);
    for bad in ["", "a\tb", "a\u{202e}b", "a\u{85}b", &long] {
        let (code, body) = raw(api, "POST /v1/settings", &[&host, &token, json, &named(bad)], set).await;
        assert!(
            code == 400 && body.contains("Tandem-Operator") && body.contains("printable"),
            "{bad:?}: {body}"
        );
    }
    let (code, body) = raw(api, line, &[&host, &token, &alice, &named("bob")], "").await;
    assert!(code == 400 && body.contains("Tandem-Operator"), "two names are none: {body}");
    assert_eq!(fake.operators().len(), 3, "nothing was done for those");
}

#[tokio::test]
async fn web_pages_are_refused() {
    let (_, api) = start().await;
    let (host, token) = (format!("Host: {api}"), format!("Authorization: Bearer {TOKEN}"));
    for origin in ["Origin: http://127.0.0.1", "Origin: null"] {
        let (code, body) = raw(api, "POST /v1/nodes/a/failover", &[&host, &token, origin], "").await;
        assert!(code == 403 && body.contains("web pages"), "{body}");
    }
}

#[tokio::test]
async fn an_unknown_node_is_named_with_those_that_are_known() {
    let (_, api) = start().await;
    for path in ["POST /v1/nodes/c/failover", "POST /v1/nodes/c/fallback"] {
        let (code, body) = ask(api, path, "").await;
        assert_eq!(
            (code, &body["error"], &body["hint"]),
            (404, &json!("no node is named c"), &json!("the nodes are a and b"))
        );
    }
    let (code, body) = ask(api, "POST /v1/users", r#"{"user":"anna","password":"x","home":"c"}"#).await;
    assert!(code == 404 && body["hint"] == "the nodes are a and b", "{body}");
}

#[tokio::test]
async fn a_failover_begins_and_a_refusal_says_why() {
    let (_, api) = start().await;
    let (code, body) = ask(api, "POST /v1/nodes/a/failover", "").await;
    assert_eq!((code, &body["what"]), (202, &json!("failover of a")));
    let (code, body) = ask(api, "POST /v1/nodes/b/fallback", "").await;
    assert_eq!(code, 409);
    assert_eq!(
        body,
        json!({ "error": "b cannot do that now", "state": "Normal", "reason": "Normal", "hint": "look at the status" })
    );
}

#[tokio::test]
async fn users_are_added_by_name_or_address_and_listed() {
    let (_, api) = start().await;
    let (code, body) = ask(api, "POST /v1/users", r#"{"user":"Anna","password":"x"}"#).await;
    assert_eq!((code, &body["user"]), (201, &json!("anna@im.example")));
    let (code, _) =
        ask(api, "POST /v1/users", r#"{"user":"bob@im.example","password":"x","home":"b"}"#).await;
    assert_eq!(code, 201);
    let (code, body) = ask(api, "GET /v1/users", "").await;
    assert_eq!((code, &body[1]["user"], &body[1]["home"]), (200, &json!("bob@im.example"), &json!("b")));
}

#[tokio::test]
async fn bad_requests_to_add_a_user_are_refused_with_what_to_send() {
    let (fake, api) = start().await;
    let long = format!(r#"{{"user":"anna","password":"{}"}}"#, "x".repeat(1024));
    for body in [
        "",
        "{",
        "[]",
        r#"{"user":"anna"}"#,
        r#"{"user":"anna","password":1}"#,
        r#"{"user":"a","password":"x","admin":true}"#,
        r#"{"user":"","password":"x"}"#,
        r#"{"user":"a b","password":"x"}"#,
        r#"{"user":"a@b/c","password":"x"}"#,
        r#"{"user":"anna@other.example","password":"x"}"#,
        r#"{"user":"anna","password":""}"#,
        &long,
    ] {
        let (code, answer) = ask(api, "POST /v1/users", body).await;
        assert_eq!(code, 400, "{body}: {answer}");
        assert!(answer["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{body}: {answer}");
    }
    let big = format!(r#"{{"user":"anna","password":"{}"}}"#, "x".repeat(20_000));
    assert_eq!(ask(api, "POST /v1/users", &big).await.0, 413);
    let (host, token) = (format!("Host: {api}"), format!("Authorization: Bearer {TOKEN}"));
    let body = r#"{"user":"anna","password":"x"}"#;
    assert_eq!(raw(api, "POST /v1/users", &[&host, &token, "Content-Type: text/plain"], body).await.0, 415);
    assert!(fake.accounts().is_empty());
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told() {
    let (_, api) = start().await;
    assert_eq!(ask(api, "GET /v2/status", "").await.0, 404);
    let (code, body) = ask(api, "GET /v1/nodes/a/failover", "").await;
    assert!(
        code == 405 && body["hint"] == "ask with GET, act with POST, change with PATCH, remove with DELETE",
        "{body}"
    );
}

#[tokio::test]
async fn health_needs_no_token_and_readiness_follows_the_node() {
    let (_, api) = start().await;
    let host = format!("Host: {api}");
    assert_eq!(raw(api, "GET /healthz", &[&host], "").await, (200, "ok\n".into()));
    assert_eq!(raw(api, "GET /readyz", &[&host], "").await.0, 200);
    ask(api, "POST /v1/nodes/a/failover", "").await;
    for _ in 0..5 {
        ask(api, "GET /v1/status", "").await;
    }
    assert_eq!(raw(api, "GET /readyz", &[&host], "").await, (503, "not ready\n".into()));
}

#[tokio::test]
async fn force_active_is_told_first_and_done_when_confirmed() {
    let (fake, api) = start().await;
    let path = "/v1/nodes/a/force-active";
    let (code, body) = ask(api, &format!("GET {path}"), "").await;
    assert_eq!(
        (code, &body["done"], &body["missing"][0]),
        (200, &json!(false), &json!("what b acknowledged alone"))
    );
    for wrong in ["", "{}", r#"{"confirm":"b"}"#, r#"{"confirm":"a","now":true}"#] {
        let (code, body) = ask(api, &format!("POST {path}"), wrong).await;
        assert!(code == 400 && body["error"] == "force-active of a is not confirmed", "{wrong}: {body}");
    }
    assert_eq!(ask(api, "POST /v1/nodes/c/force-active", r#"{"confirm":"c"}"#).await.0, 404);
    assert_eq!(fake.forced(), None);
    let (code, body) = ask(api, &format!("POST {path}"), r#"{"confirm":"a"}"#).await;
    assert_eq!((code, &body["done"]), (200, &json!(true)));
    assert_eq!(ask(api, &format!("POST {path}"), r#"{"confirm":"a"}"#).await.0, 409);
}

#[tokio::test]
async fn who_is_told_that_a_word_is_taken_back_forces_nothing_when_that_is_not_so_any_more() {
    let (fake, api) = start().await;
    let (path, word) = ("POST /v1/nodes/a/force-active", r#"{"confirm":"a","takes_back":true}"#);
    assert_eq!(ask(api, "POST /v1/nodes/a/force-inactive", word).await.0, 400, "that takes nothing back");
    fake.is_held(false);
    let (code, body) = ask(api, path, word).await;
    assert_eq!((code, &body["takes_back"], &body["done"]), (200, &json!(true), &json!(true)));
    let (code, refusal) = ask(api, path, word).await;
    assert_eq!((code, &refusal["error"]), (409, &json!("it has changed since")));
    assert_eq!(fake.forced(), None);
}

/// A node of the version before does not tell it.
#[test]
fn who_does_not_say_that_a_word_is_taken_back_takes_none_back() {
    let told = json!({ "node": "a", "done": true, "missing": [] });
    let forced: Forced = serde_json::from_value(told).unwrap();
    assert!(forced.done && !forced.takes_back);
}

#[tokio::test]
async fn passwords_are_changed_and_accounts_removed_by_name_or_address() {
    let (fake, api) = start().await;
    let (code, _) = ask(api, "POST /v1/users", r#"{"user":"anna","password":"x"}"#).await;
    assert_eq!(code, 201);
    let path = "POST /v1/users/anna@im.example/password";
    let (code, body) = ask(api, path, r#"{"password":"better"}"#).await;
    assert_eq!((code, &body["user"]), (200, &json!("anna@im.example")));
    assert_eq!(fake.passwords(), [("anna@im.example".to_owned(), "better".to_owned())]);
    for bad in ["", "{}", r#"{"password":""}"#, r#"{"password":"x","user":"bob"}"#] {
        assert_eq!(ask(api, path, bad).await.0, 400, "{bad}");
    }
    let (code, body) = ask(api, "POST /v1/users/bob/password", r#"{"password":"x"}"#).await;
    assert_eq!((code, &body["error"]), (409, &json!("there is no account bob@im.example")));
    for path in ["DELETE /v1/users/a%20b", "DELETE /v1/users/anna@other.example"] {
        assert_eq!(ask(api, path, "").await.0, 400, "{path}");
    }
    let (code, body) = ask(api, "GET /v1/sessions", "").await;
    assert_eq!((code, &body[0]["resource"]), (200, &json!("phone")));
    assert_eq!(ask(api, "DELETE /v1/users/Anna", "").await.0, 200);
    assert_eq!(ask(api, "DELETE /v1/users/Anna", "").await.0, 409);
    assert!(fake.accounts().is_empty());
}

#[tokio::test]
async fn the_log_level_and_the_configuration_are_changed_while_the_node_runs() {
    let (fake, api) = start().await;
    assert_eq!(ask(api, "POST /v1/log", "{\"level\":\"debug\"}").await.0, 200);
    assert_eq!(ask(api, "GET /v1/log", "").await, (200, json!({ "level": "debug" })));
    let (code, refusal) = ask(api, "POST /v1/log", "{\"level\":\"loud\"}").await;
    assert_eq!((code, &refusal["error"]), (400, &json!("no level")));
    assert_eq!(ask(api, "POST /v1/log", "{}").await.0, 400);
    let (code, done) = ask(api, "POST /v1/reload", "").await;
    let told = json!({ "taken": ["c2s.cert"], "restart": ["node.data"], "warnings": ["a second look"] });
    assert_eq!((code, done), (200, told));
    fake.breaks();
    let (code, refusal) = ask(api, "POST /v1/reload", "").await;
    assert_eq!((code, &refusal["error"]), (409, &json!("not reloaded")));
}

#[tokio::test]
async fn events_are_told_from_a_number_on() {
    let (_, api) = start().await;
    let (code, all) = ask(api, "GET /v1/events", "").await;
    assert_eq!((code, all.as_array().map(Vec::len), &all[2]["number"]), (200, Some(3), &json!(3)));
    let (code, one) = ask(api, "GET /v1/events?after=1&most=1&wait=1", "").await;
    assert_eq!((code, one.as_array().map(Vec::len), &one[0]["number"]), (200, Some(1), &json!(3)));
    for wrong in ["after=-1", "most=many", "before=3"] {
        let (code, refusal) = ask(api, &format!("GET /v1/events?{wrong}"), "").await;
        assert_eq!(code, 400, "{refusal}");
        assert!(refusal["hint"].as_str().is_some_and(|hint| hint.contains("after=NUMBER")));
    }
}

#[tokio::test]
async fn a_known_node_is_stopped_as_it_is_asked_for() {
    let (fake, api) = start().await;
    let (code, body) = ask(api, "POST /v1/nodes/b/stop", r#"{"text":"until noon","drain_s":60}"#).await;
    assert_eq!((code, body), (202, json!({ "hands_over": false, "streams": 3 })));
    assert_eq!(ask(api, "POST /v1/nodes/a/stop", "{}").await.0, 202);
    assert_eq!(ask(api, "POST /v1/nodes/c/stop", "{}").await.0, 404);
    for (wrong, said) in [
        (r#"{"text":"a\nb"}"#.to_owned(), "one line"),
        (format!(r#"{{"text":"{}"}}"#, "x".repeat(1_025)), "at most 1024"),
        (r#"{"drain_s":86401}"#.to_owned(), "86400 s at most"),
        (r#"{"when":"now"}"#.to_owned(), "unknown field"),
    ] {
        let (code, refusal) = ask(api, "POST /v1/nodes/a/stop", &wrong).await;
        assert!(code == 400 && refusal["error"].as_str().is_some_and(|why| why.contains(said)), "{refusal}");
    }
    let asked = Stop { text: Some("until noon".into()), drain_s: Some(60) };
    assert_eq!(fake.stopped(), [("b".to_owned(), asked), ("a".to_owned(), Stop::default())]);
}

#[tokio::test]
async fn a_known_node_is_restarted_and_a_known_setting_changed() {
    let (fake, api) = start().await;
    let (code, body) = ask(api, "POST /v1/nodes/b/restart", "").await;
    assert_eq!((code, &body["node"]), (202, &json!("b")));
    assert_eq!(ask(api, "POST /v1/nodes/c/restart", "").await.0, 404);
    assert_eq!(fake.restarted(), ["b"]);
    let set = r#"{"key":"srm.keep_alive_timeout","value":"90s"}"#;
    let (code, done) = ask(api, "POST /v1/settings", set).await;
    assert_eq!((code, &done["taken"][0]), (200, &json!("srm.keep_alive_timeout = Some(\"90s\")")));
    let (code, refusal) = ask(api, "POST /v1/settings", r#"{"key":"srm.nothing"}"#).await;
    assert_eq!((code, &refusal["error"]), (409, &json!("there is no setting srm.nothing")));
    assert_eq!(ask(api, "POST /v1/settings", r#"{"name":"x"}"#).await.0, 400);
}

#[tokio::test]
async fn services_are_listed_stopped_and_made_to_fail_and_both_nodes_recovered() {
    let (fake, api) = start().await;
    let (_, status) = ask(api, "GET /v1/status", "").await;
    assert_eq!(status["nodes"][1]["services"][0]["name"], "router");
    let (code, done) = ask(api, "POST /v1/nodes/b/services/router", r#"{"action":"stop"}"#).await;
    assert_eq!((code, done), (200, json!({ "node": "b", "service": "router", "action": "stop" })));
    let fail = r#"{"action":"fail","seconds":90}"#;
    assert_eq!(ask(api, "POST /v1/nodes/a/services/database", fail).await.0, 200);
    let done = [
        ("b".to_owned(), "router", ServiceAction::Stop),
        ("a".to_owned(), "database", ServiceAction::Fail { seconds: 90 }),
    ];
    assert_eq!(fake.services(), done);
    for (path, body, code, hint) in [
        ("b/services/route", r#"{"action":"stop"}"#, 404, "the services are database, presence-engine"),
        ("c/services/router", r#"{"action":"stop"}"#, 404, "the nodes are a and b"),
        ("a/services/router", r#"{"action":"halt"}"#, 400, "start, stop, restart and fail"),
        ("a/services/router", r#"{"action":"stop","seconds":3}"#, 400, "start, stop, restart and fail"),
        ("a/services/router", r#"{"action":"fail","seconds":86401}"#, 400, "stop it instead"),
        ("a/services/router", "", 400, "start, stop, restart and fail"),
    ] {
        let (got, refusal) = ask(api, &format!("POST /v1/nodes/{path}"), body).await;
        assert_eq!(got, code, "{path} {body} {refusal}");
        assert!(refusal["hint"].as_str().is_some_and(|told| told.contains(hint)), "{refusal}");
    }
    assert_eq!(ask(api, "POST /v1/check", "").await, (202, json!({ "nodes": ["a", "b"] })));
    let (code, refusal) = ask(api, "POST /v1/recover", "").await;
    assert_eq!((code, &refusal["error"]), (409, &json!("nothing is to be recovered")));
    fake.breaks();
    assert_eq!(ask(api, "POST /v1/recover", "").await.0, 200);
    assert_eq!(fake.services().len(), 2);
}

#[tokio::test]
async fn a_bug_costs_the_request_that_hits_it_and_nothing_else() {
    let (fake, api) = start().await;
    fake.panics();
    let (code, refusal) = ask(api, "GET /metrics", "").await;
    assert_eq!((code, &refusal["error"]), (500, &json!("a bug ended this request")));
    assert!(refusal["hint"].as_str().is_some_and(|hint| hint.contains("ask for the status")), "{refusal}");
    assert_eq!(ask(api, "GET /v1/status", "").await.0, 200);
}

/// Its thread may wait for its disk.
#[tokio::test]
async fn a_node_that_does_not_say_how_it_is_has_no_empty_status() {
    let (fake, api) = start().await;
    fake.falls_silent();
    for line in ["GET /v1/status", "GET /v1/group", "GET /metrics", "POST /v1/nodes/a/failover"] {
        let (code, refusal) = ask(api, line, "").await;
        assert_eq!((code, &refusal["error"]), (503, &json!("the node does not answer")), "{line}");
        assert!(
            refusal["hint"].as_str().is_some_and(|hint| hint.contains("waits for its disk")),
            "{refusal}"
        );
    }
}
