//! The name under which a command asks a node: for the record of events, not to be let in.

use std::env;

use super::output::{Exit, Failure};
use crate::admin::operator::{HINT, is_name};

/// Names the operator, for programs that log in as one user for many people.
pub(super) const VARIABLE: &str = "TANDEM_OPERATOR";

/// The name that was given, else that of the environment, else that of whoever is logged in.
pub(super) fn name(given: Option<&str>) -> Result<String, Failure> {
    let user = rustix::process::geteuid();
    let variable = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    choose(given, variable, user.as_raw())
}

fn choose(
    given: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
    user: u32,
) -> Result<String, Failure> {
    let named = match given {
        Some(name) => Some(("--operator", name.to_owned())),
        None => variable(VARIABLE).filter(|name| !name.is_empty()).map(|name| (VARIABLE, name)),
    };
    if let Some((place, name)) = named {
        let wrong =
            || Failure::new(Exit::Usage, format!("{place} does not name an operator: {name:?}"), HINT);
        return if is_name(&name) { Ok(name) } else { Err(wrong()) };
    }
    // What stands in other variables is no reason not to ask.
    let login = |name| variable(name).filter(|name| is_name(name));
    let behind_sudo = if user == 0 { login("SUDO_USER") } else { None };
    Ok(behind_sudo
        .or_else(|| login("USER"))
        .or_else(|| login("LOGNAME"))
        .unwrap_or_else(|| format!("uid {user}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(given: Option<&str>, variables: &[(&str, &str)], user: u32) -> Result<String, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        choose(given, variable, user).map_err(|failure| failure.text())
    }

    #[test]
    fn who_asks_is_who_is_named_or_else_who_is_logged_in() {
        const ALL: &[(&str, &str)] =
            &[(VARIABLE, "alice"), ("SUDO_USER", "bob"), ("USER", "carol"), ("LOGNAME", "dave")];
        type Row<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], u32, &'a str);
        let rows: &[Row] = &[
            (Some("eve"), ALL, 0, "eve"),
            (None, ALL, 0, "alice"),
            (None, &[(VARIABLE, ""), ("USER", "carol")], 7, "carol"),
            (None, &ALL[1..], 0, "bob"),
            // Who is not root may have been root before, and asks for himself.
            (None, &ALL[1..], 7, "carol"),
            (None, &ALL[3..], 7, "dave"),
            (None, &[("USER", "a\nb"), ("LOGNAME", "dave")], 7, "dave"),
            (None, &[("SUDO_USER", ""), ("USER", " ")], 0, "uid 0"),
            (None, &[], 1_000, "uid 1000"),
        ];
        for (given, variables, user, expected) in rows {
            assert_eq!(chosen(*given, variables, *user).as_deref(), Ok(*expected), "{given:?} {variables:?}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_shown_is_refused_with_where_it_stands() {
        for bad in ["", " ", "a\nb", "a\u{1b}[2J"] {
            let why = chosen(Some(bad), &[], 7).unwrap_err();
            assert!(why.contains("--operator") && why.contains("printable"), "{why}");
        }
        let why = chosen(None, &[(VARIABLE, "a\nb"), ("USER", "carol")], 7).unwrap_err();
        assert!(why.contains(VARIABLE) && why.contains("1 to 64") && !why.contains("a\nb"), "{why}");
    }
}
