//! One-time tokens: whom they let in, to what, and until when (D16).

use xmpp_core::dual::Dual;
use xmpp_core::sasl::TokenKey;

use super::*;

const ROMEO: &str = "romeo@example.org/orchard";
const SALT: &[u8] = b"salt of romeo's";

/// Both nodes know of tokens; romeo has a password of his own.
fn duo() -> Duo {
    let mut duo = Duo::new();
    duo.know_tokens(true);
    let verifiers = Verifiers { salt: Bytes::from_static(SALT), ..Verifiers::default() };
    duo.input(A, Input::UserPasswd { user: bare(ROMEO), verifiers });
    duo
}

/// Romeo, with a dual session at a; and the token that he was told.
fn romeo(duo: &mut Duo) -> (Client, String) {
    let romeo = duo.open_with("romeo@example.org", A, SALT);
    duo.send(romeo, "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>orchard</resource></bind></iq>");
    duo.send(romeo, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    duo.raw(romeo);
    duo.send(romeo, "<request xmlns='urn:tandem:dual:0'/>");
    let told = told(&duo.raw(romeo));
    (romeo, told.expect("an offer with a token"))
}

/// The token that these elements tell, if any does.
fn told(got: &[String]) -> Option<String> {
    let mut tokens = got.iter().filter_map(|s| match Dual::parse(&Stanza::parse(s.as_bytes()).unwrap()) {
        Ok(Some(Dual::Offer { token, .. } | Dual::Parked { token, .. })) => token,
        _ => None,
    });
    tokens.next_back().map(Into::into)
}

/// A stream at `node` that authenticated by the token; it is checked as a server would.
fn open_by(duo: &mut Duo, node: NodeIx, token: &str) -> Client {
    let number = token.split_once('.').unwrap().0.parse().unwrap();
    let name = Token { session: duo.sm_id(ROMEO), number };
    assert_eq!(key().token("romeo", SALT, name.into()), token, "that is no token of his session");
    duo.open_by(bare(ROMEO), node, Bytes::from_static(SALT), Some(name))
}

fn key() -> TokenKey {
    TokenKey::new(&[5; 32])
}

fn park(duo: &mut Duo, client: Client) -> Vec<String> {
    let id = duo.sm_id(ROMEO);
    duo.send(client, &format!("<standby xmlns='urn:tandem:dual:0' sm-id='{id}'/>"));
    duo.raw(client)
}

fn resume(duo: &mut Duo, client: Client) -> Vec<String> {
    let (id, h) = (duo.sm_id(ROMEO), duo.session(ROMEO).unwrap().acked);
    duo.send(client, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>"));
    duo.raw(client)
}

fn refused(duo: &Duo, client: Client, why: &str) {
    let last = duo.closed(client).expect("the stream has ended");
    assert!(last.contains("<not-authorized") && last.contains(why), "{last}");
}

#[test]
fn a_token_parks_once_and_the_next_comes_with_it() {
    let mut duo = duo();
    let (_, first) = romeo(&mut duo);
    let parked = open_by(&mut duo, B, &first);
    let second = told(&park(&mut duo, parked)).expect("the next token");
    assert!(first.starts_with("1.") && second.starts_with("2."), "{first} {second}");
    // The owner was told, and wrote it down for both.
    assert_eq!(duo.session(ROMEO).unwrap().token, 1);
    // The answer may have been lost: the first is good until the second is used.
    let again = open_by(&mut duo, B, &first);
    assert_eq!(told(&park(&mut duo, again)), Some(second.clone()));
    let next = open_by(&mut duo, B, &second);
    assert!(told(&park(&mut duo, next)).unwrap().starts_with("3."));
    for node in [A, B] {
        let dead = open_by(&mut duo, node, &first);
        assert!(park(&mut duo, dead).is_empty());
        refused(&duo, dead, "a later one-time token");
    }
}

#[test]
fn a_token_resumes_at_the_backup_when_home_is_dead_and_dies_by_it() {
    let mut duo = duo();
    let (_, first) = romeo(&mut duo);
    let parked = open_by(&mut duo, B, &first);
    let second = told(&park(&mut duo, parked)).unwrap();
    duo.kill(A);
    duo.drop_tcp(parked);
    let back = open_by(&mut duo, B, &second);
    let got = resume(&mut duo, back);
    assert!(got.iter().any(|s| s.starts_with("<resumed")), "{got:?}");
    assert_eq!(duo.session(ROMEO).unwrap().token, 2);
    assert!(told(&got).unwrap().starts_with("3."), "{got:?}");
    let dead = open_by(&mut duo, B, &first);
    assert!(resume(&mut duo, dead).is_empty());
    refused(&duo, dead, "a later one-time token");
}

#[test]
fn a_stream_that_a_token_parked_takes_the_session_whatever_token_came_after_it() {
    let mut duo = duo();
    let (main, first) = romeo(&mut duo);
    let parked = open_by(&mut duo, B, &first);
    let second = told(&park(&mut duo, parked)).unwrap();
    duo.drop_tcp(main);
    let main = open_by(&mut duo, A, &second);
    assert!(resume(&mut duo, main).iter().any(|s| s.starts_with("<resumed")));
    duo.kill(A);
    assert!(resume(&mut duo, parked).iter().any(|s| s.starts_with("<resumed")));
    assert_eq!(duo.session(ROMEO).unwrap().token, 2);
}

#[test]
fn a_token_resumes_by_the_other_node_as_its_front() {
    let mut duo = duo();
    let (main, first) = romeo(&mut duo);
    duo.drop_tcp(main);
    let front = open_by(&mut duo, B, &first);
    let got = resume(&mut duo, front);
    assert!(got.iter().any(|s| s.starts_with("<resumed")), "{got:?}");
    assert_eq!(duo.session(ROMEO).unwrap().token, 1);
    // The node that has the socket tells the token, of what it knows.
    assert!(told(&got).is_some(), "{got:?}");
}

#[test]
fn a_token_lets_in_to_its_session_and_to_nothing_else() {
    let mut duo = duo();
    let (_, first) = romeo(&mut duo);
    let bind = "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    let other = SmId([9; 16]);
    for said in [
        bind.to_owned(),
        format!("<resume xmlns='urn:xmpp:sm:3' previd='{other}' h='0'/>"),
        format!("<standby xmlns='urn:tandem:dual:0' sm-id='{other}'/>"),
    ] {
        let client = open_by(&mut duo, A, &first);
        duo.send(client, &said);
        refused(&duo, client, "its own session only");
    }
    assert_eq!(duo.session(ROMEO).unwrap().token, 0, "none was used");
}

#[test]
fn tokens_die_with_the_password_and_with_the_session() {
    let mut duo = duo();
    let (main, first) = romeo(&mut duo);
    let over = duo.sm_id(ROMEO);
    let mut ended = open_by(&mut duo, B, &first);
    duo.close(main);
    duo.send(ended, &format!("<standby xmlns='urn:tandem:dual:0' sm-id='{over}'/>"));
    assert!(duo.raw(ended).concat().contains("<item-not-found/>"));

    let mut duo = self::duo();
    let (_, first) = romeo(&mut duo);
    // The exchange began before the password was changed.
    let name = Token { session: duo.sm_id(ROMEO), number: 1 };
    let verifiers = Verifiers { salt: Bytes::from_static(b"another"), ..Verifiers::default() };
    duo.input(A, Input::UserPasswd { user: bare(ROMEO), verifiers });
    ended = duo.open_by(bare(ROMEO), A, Bytes::from_static(SALT), Some(name));
    assert!(duo.closed(ended).unwrap().contains("the password was changed"));
    assert_ne!(key().token("romeo", b"another", name.into()), first);
}

#[test]
fn tokens_die_with_the_account_whoever_gets_its_name() {
    let mut duo = duo();
    let (main, first) = romeo(&mut duo);
    let session = duo.sm_id(ROMEO);
    let parked = open_by(&mut duo, B, &first);
    let second = told(&park(&mut duo, parked)).unwrap();
    duo.input(A, Input::UserRemove { user: bare(ROMEO) });
    for stream in [main, parked] {
        refused(&duo, stream, "the account was removed");
    }
    // The exchange began before the removal.
    let name = Token { session, number: 2 };
    for node in [A, B] {
        for said in [
            format!("<standby xmlns='urn:tandem:dual:0' sm-id='{session}'/>"),
            format!("<resume xmlns='urn:xmpp:sm:3' previd='{session}' h='0'/>"),
        ] {
            let late = duo.open_by(bare(ROMEO), node, Bytes::from_static(SALT), Some(name));
            duo.send(late, &said);
            assert!(duo.raw(late).is_empty());
            refused(&duo, late, "the account was removed");
        }
    }
    // Another romeo has another salt: a token that was told of the first is none of his.
    let salt = b"of another romeo";
    let verifiers = Verifiers { salt: Bytes::from_static(salt), ..Verifiers::default() };
    duo.input(A, Input::UserAdd { user: bare(ROMEO), home: A, verifiers });
    for node in [A, B] {
        let late = duo.open_by(bare(ROMEO), node, Bytes::from_static(SALT), Some(name));
        assert!(duo.closed(late).unwrap().contains("the password was changed"));
    }
    assert_eq!(key().token("romeo", SALT, name.into()), second);
    assert_ne!(key().token("romeo", salt, name.into()), second);
}

#[test]
fn nothing_of_tokens_reaches_a_peer_of_the_version_before() {
    let mut duo = duo();
    duo.know_tokens(false);
    let romeo = duo.open_with("romeo@example.org", A, SALT);
    duo.send(romeo, "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>orchard</resource></bind></iq>");
    duo.send(romeo, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    duo.send(romeo, "<request xmlns='urn:tandem:dual:0'/>");
    assert_eq!(told(&duo.raw(romeo)), None);
    // One that was told while the peer was of this version still lets in, and nothing is written of it.
    let name = Token { session: duo.sm_id(ROMEO), number: 1 };
    let parked = open_by(&mut duo, A, &key().token("romeo", SALT, name.into()));
    assert_eq!(told(&park(&mut duo, parked)), None);
    assert_eq!(duo.session(ROMEO).unwrap().token, 0);
    assert!(!duo.log.iter().any(|record| matches!(record, Record::Token { .. })));
}

#[test]
fn a_stream_that_a_token_parked_takes_no_other_session_of_the_account() {
    let mut duo = duo();
    let (_, first) = romeo(&mut duo);
    let other = duo.open_with("romeo@example.org", A, SALT);
    duo.send(other, "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>tomb</resource></bind></iq>");
    duo.send(other, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let tomb = duo.sm_id("romeo@example.org/tomb");
    for node in [A, B] {
        let parked = open_by(&mut duo, node, &first);
        assert!(told(&park(&mut duo, parked)).is_some());
        duo.send(parked, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{tomb}' h='0'/>"));
        refused(&duo, parked, "its own session only");
    }
    assert!(duo.closed(other).is_none(), "its stream goes on");
    assert_eq!(duo.session("romeo@example.org/tomb").unwrap().token, 0);
}

#[test]
fn a_use_is_written_down_where_uses_were_before_although_the_peer_has_not_said_its_version() {
    let mut duo = duo();
    let (_, first) = romeo(&mut duo);
    let parked = open_by(&mut duo, B, &first);
    let second = told(&park(&mut duo, parked)).unwrap();
    duo.know_tokens(false);
    let main = open_by(&mut duo, A, &second);
    assert!(resume(&mut duo, main).iter().any(|s| s.starts_with("<resumed")));
    assert_eq!(duo.session(ROMEO).unwrap().token, 2);
    let dead = open_by(&mut duo, A, &first);
    assert!(resume(&mut duo, dead).is_empty());
    refused(&duo, dead, "a later one-time token");
}

#[test]
fn a_front_drops_whom_a_token_let_in_when_the_owner_could_not_read_of_it() {
    let mut duo = duo();
    let (main, first) = romeo(&mut duo);
    duo.drop_tcp(main);
    duo.know_tokens(false);
    let front = open_by(&mut duo, B, &first);
    assert!(resume(&mut duo, front).is_empty());
    assert!(duo.closed(front).is_some(), "its client comes again, by its password");
    assert_eq!(duo.session(ROMEO).unwrap().token, 0);
}
