//! `tandem user`: accounts.

use std::io::{self, BufRead};

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::Client;
use super::args::{UserAddArgs, UserPasswdArgs};
use super::output::{Answer, Exit, Failure, Paint, table};

/// 32 characters that are not mistaken for one another.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Adds an account. A password that was made is in the answer, and nowhere else.
pub(super) fn add(args: &UserAddArgs) -> Result<Answer, Failure> {
    let client = Client::find(&args.client)?;
    let given = if args.password_stdin { Some(read_password(&mut io::stdin().lock())?) } else { None };
    add_with(&client, args, given)
}

pub(super) fn add_with(
    client: &Client,
    args: &UserAddArgs,
    given: Option<String>,
) -> Result<Answer, Failure> {
    let made = if given.is_none() { Some(make_password()?) } else { None };
    let password = given.or(made.clone()).unwrap_or_default();
    let user = client.user_add(&args.user, &password, args.home.as_deref())?;
    Ok(match made {
        Some(password) => Answer::new(
            format!("added {user}\npassword: {password}\n(it is not shown again)\n"),
            json!({ "user": user, "password": password }),
        ),
        None => Answer::new(format!("added {user}\n"), json!({ "user": user })),
    })
}

/// Gives an account another password. One that was made is in the answer, and nowhere else.
pub(super) fn passwd(args: &UserPasswdArgs) -> Result<Answer, Failure> {
    let client = Client::find(&args.client)?;
    let given = if args.password_stdin { Some(read_password(&mut io::stdin().lock())?) } else { None };
    passwd_with(&client, &args.user, given)
}

pub(super) fn passwd_with(client: &Client, user: &str, given: Option<String>) -> Result<Answer, Failure> {
    let made = if given.is_none() { Some(make_password()?) } else { None };
    let password = given.or(made.clone()).unwrap_or_default();
    let user = client.user_passwd(user, &password)?;
    let text = format!("{user} has another password; its sessions were ended\n");
    Ok(match made {
        Some(password) => Answer::new(
            format!("{text}password: {password}\n(it is not shown again)\n"),
            json!({ "user": user, "password": password }),
        ),
        None => Answer::new(text, json!({ "user": user })),
    })
}

/// Removes an account.
pub(super) fn remove(client: &Client, user: &str) -> Result<Answer, Failure> {
    let user = client.user_remove(user)?;
    Ok(Answer::new(format!("removed {user}; its sessions were ended\n"), json!({ "user": user })))
}

/// Lists the sessions of an account, by its local part or address, or of all.
pub(super) fn sessions(client: &Client, user: Option<&str>) -> Result<Answer, Failure> {
    let mut sessions = client.sessions()?;
    if let Some(wanted) = user {
        let named =
            |user: &str| user == wanted || user.split_once('@').is_some_and(|(name, _)| name == wanted);
        if !client.users()?.iter().any(|known| named(&known.user)) {
            let error = format!("there is no account {wanted}");
            return Err(Failure::new(Exit::Refused, error, "see `tandem user list`"));
        }
        sessions.retain(|session| named(&session.user));
    }
    let paint = Paint::stdout();
    let head = ["session", "served by", "stream", "presence", "queued"].map(|name| paint.dim(name));
    let mut rows = vec![head.to_vec()];
    for s in &sessions {
        let owner = if s.owner.is_empty() { paint.red("nobody") } else { s.owner.clone() };
        let stream = match (s.connected, s.dual) {
            (false, _) => "awaited",
            (true, true) => "dual",
            (true, false) => "plain",
        };
        let presence = if s.available { "available" } else { "none" };
        let full = format!("{}/{}", s.user, s.resource);
        rows.push(vec![full, owner, stream.into(), presence.into(), s.queued.to_string()]);
    }
    let text = match sessions.len() {
        0 => "there are no sessions\n".to_owned(),
        _ => table(&rows, &[4]).join("\n") + "\n",
    };
    Ok(Answer::new(text, json!({ "sessions": sessions })))
}

/// Lists all accounts.
pub(super) fn list(client: &Client, unassigned: bool, home: Option<&str>) -> Result<Answer, Failure> {
    let mut users = client.users()?;
    if let Some(home) = home {
        is_a_node(client, home)?;
    }
    users.retain(|user| !unassigned || user.home.is_empty());
    users.retain(|user| home.is_none_or(|home| user.home == home));
    let paint = Paint::stdout();
    let head = ["user", "home", "served by", "sessions"].map(|name| paint.dim(name));
    let mut rows = vec![head.to_vec()];
    for user in &users {
        let owner = if user.owner.is_empty() { paint.red("nobody") } else { user.owner.clone() };
        let home = if user.home.is_empty() { paint.yellow("none") } else { user.home.clone() };
        rows.push(vec![user.user.clone(), home, owner, user.sessions.to_string()]);
    }
    let text = match users.len() {
        0 if home.is_some() => "no account is at home on this node\n".to_owned(),
        0 if unassigned => "every account is assigned to a node\n".to_owned(),
        0 => "there are no accounts; add one with `tandem user add NAME`\n".to_owned(),
        _ => table(&rows, &[3]).join("\n") + "\n",
    };
    Ok(Answer::new(text, json!({ "users": users })))
}

/// Whether the pair has a node of this name.
fn is_a_node(client: &Client, name: &str) -> Result<(), Failure> {
    let names: Vec<String> = client.status()?.nodes.into_iter().map(|node| node.name).collect();
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let error = format!("there is no node {name}");
    Err(Failure::new(Exit::Refused, error, format!("nodes are: {}", names.join(", "))))
}

fn read_password(input: &mut impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| {
        let error = format!("the password cannot be read from standard input: {error}");
        Failure::new(Exit::Environment, error, "write it in UTF-8, on one line")
    })?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        let hint = "write it there on one line, or leave --password-stdin out to have one made";
        return Err(Failure::new(Exit::Usage, "there is no password on standard input", hint));
    }
    Ok(password.to_owned())
}

/// Four groups of five characters: 100 random bits.
pub(super) fn make_password() -> Result<String, Failure> {
    let mut bytes = [0; 20];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Failure::new(Exit::Environment, "the system gives no random bytes", ""))?;
    let chars: Vec<char> = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
    Ok(chars.chunks(5).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_the_password_without_its_end() {
        for (input, expected) in
            [("secret\n", "secret"), ("two words\r\nmore\n", "two words"), ("ends", "ends")]
        {
            assert_eq!(read_password(&mut input.as_bytes()).unwrap(), expected);
        }
        assert_eq!(read_password(&mut "\n".as_bytes()).unwrap_err().exit, Exit::Usage);
        assert_eq!(read_password(&mut [0xff, b'\n'].as_slice()).unwrap_err().exit, Exit::Environment);
    }

    #[test]
    fn made_passwords_differ_and_can_be_read_out() {
        let (one, two) = (make_password().unwrap(), make_password().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 23);
        assert!(one.bytes().all(|byte| byte == b'-' || ALPHABET.contains(&byte)));
    }
}
