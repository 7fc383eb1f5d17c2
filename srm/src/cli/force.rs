//! `tandem force-active` and `force-inactive`: say what it means, have the node's name typed, then do it.

use std::io::{self, BufRead, IsTerminal, Write};

use serde_json::json;

use super::Client;
use super::args::ForceArgs;
use super::output::{Answer, Exit, Failure};
use crate::admin::Forced;
use crate::node::Force;

/// Makes the node active or inactive once its name was typed, on the terminal or with `--confirm`.
pub(super) fn force(args: &ForceArgs, to: Force) -> Result<Answer, Failure> {
    let client = Client::find(&args.client)?;
    let input = io::stdin();
    let asked = args.confirm.is_none() && input.is_terminal();
    let mut typed = input.lock();
    force_with(&client, args, to, if asked { Some(&mut typed) } else { None }, &mut io::stderr())
}

/// `input`: where the name is typed, if somebody is there to type it.
pub(super) fn force_with(
    client: &Client,
    args: &ForceArgs,
    to: Force,
    input: Option<&mut dyn BufRead>,
    prompt: &mut dyn Write,
) -> Result<Answer, Failure> {
    let node = args.node.as_str();
    let would = client.would_force(node, to)?;
    let typed = match (&args.confirm, input) {
        (Some(name), _) => name.clone(),
        (None, Some(input)) => {
            let _ = write!(prompt, "{}Type {node} to go on: ", warning(&would, to));
            let _ = prompt.flush();
            let mut line = String::new();
            let read = input.read_line(&mut line);
            read.map_err(|error| {
                Failure::new(Exit::Environment, format!("nothing can be read: {error}"), "")
            })?;
            line.trim().to_owned()
        }
        (None, None) => {
            let hint = format!("{}If that is accepted, add --confirm {node}", warning(&would, to));
            let failure =
                Failure::new(Exit::Usage, format!("{} of {node} is not confirmed", to.command()), hint);
            return Err(Failure { more: json!({ "missing": would.missing }), ..failure });
        }
    };
    if typed != node {
        let error = format!("{typed:?} is not {node}: nothing was done");
        return Err(Failure::new(Exit::Usage, error, format!("type {node}, or give --confirm {node}")));
    }
    let forced = client.force(node, to, would.takes_back)?;
    let text = match to {
        Force::Active if forced.takes_back => {
            format!("{node} is no longer inactive by the operator's word\n")
        }
        Force::Active => format!("{node} is active by force\n{}", missing(&forced)),
        Force::Inactive => format!("{node} is inactive by force\n{}", lines(&forced)),
    };
    Ok(Answer::new(text, json!(forced)))
}

fn warning(would: &Forced, to: Force) -> String {
    let node = &would.node;
    if to == Force::Inactive {
        return format!("{node} will serve nobody, also after a restart.\n{}", lines(would));
    }
    if would.takes_back {
        return format!(
            "{node} will no longer be inactive by the operator's word, and serves again whom it led before; its peer is \
             heard, and nothing is forced.\n"
        );
    }
    format!(
        "{node} will serve all users, alone, until its peer returns and follows it.\n{}Make sure that the peer does not \
         serve: stop it, or cut it off. Two nodes that serve the same users diverge.\n",
        missing(would)
    )
}

fn missing(forced: &Forced) -> String {
    if forced.missing.is_empty() {
        return "Nothing that was acknowledged is known to be missing on it.\n".to_owned();
    }
    format!("May be missing on it:\n{}", lines(forced))
}

fn lines(forced: &Forced) -> String {
    forced.missing.iter().map(|line| format!("- {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Pair;
    use super::*;

    /// Its peer is well and goes on: nobody is to be told to stop that.
    #[test]
    fn who_takes_back_a_word_is_not_told_to_stop_the_peer() {
        let would = Forced { node: "a".into(), takes_back: true, ..Forced::default() };
        let text = warning(&would, Force::Active);
        let said = "a will no longer be inactive by the operator's word, and serves again whom it led before; its peer is \
                    heard, and nothing is forced.\n";
        assert_eq!(text, said);
        assert!(!text.contains("alone") && !text.contains("stop it") && !text.contains("diverge"), "{text}");
        let text = warning(&Forced { takes_back: false, ..would }, Force::Active);
        assert!(text.contains("alone") && text.contains("stop it"), "{text}");
    }

    /// While its name is typed it may have become something else.
    #[test]
    fn what_was_shown_as_taken_back_is_nothing_else_when_it_is_done() {
        for changed in [false, true] {
            let pair = Pair::start();
            pair.fake.is_held(changed);
            let args = ForceArgs { node: "a".into(), confirm: None, client: pair.args.clone() };
            let (mut prompt, mut typed) = (Vec::new(), "a\n".as_bytes());
            let done = force_with(&pair.client(), &args, Force::Active, Some(&mut typed), &mut prompt);
            let prompt = String::from_utf8(prompt).unwrap();
            assert!(prompt.contains("nothing is forced"), "{prompt}");
            if changed {
                assert_eq!(done.unwrap_err().exit, Exit::Refused);
            } else {
                assert_eq!(done.unwrap().text, "a is no longer inactive by the operator's word\n");
            }
            assert_eq!(pair.fake.forced(), None);
        }
    }
}
