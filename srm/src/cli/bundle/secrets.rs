//! The secrets that a configuration names, to be taken out of whatever is packed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::config::{Config, Way};

/// What stands in their place.
const MASK: &str = "(secret)";
/// A shorter one is no secret, and would take ordinary words away.
const SHORTEST: usize = 4;

/// All secrets that are known here.
#[derive(Default)]
pub(super) struct Secrets(BTreeSet<String>);

impl Secrets {
    /// Those in the files that the configuration names, and those in itself.
    pub fn of(config: &Config) -> Secrets {
        let mut secrets = Secrets::default();
        let private = |key: &str| {
            ["key", "secret", "secret_file", "password_file", "token_file"]
                .iter()
                .any(|kind| key.rsplit('.').next() == Some(*kind))
        };
        for (_, path) in config.files().into_iter().filter(|(key, _)| private(key)) {
            secrets.file(path);
        }
        if let Some(etcd) = &config.etcd {
            etcd.identity.iter().for_each(|(_, key)| secrets.file(key));
            if let Some(login) = &etcd.login {
                secrets.file(&login.password_file);
                secrets.word(&login.user);
            }
        }
        for notify in &config.notify {
            match &notify.way {
                Way::Snmp(way) => secrets.word(way.community.as_str()),
                Way::Webhook(way) => way.to.iter().for_each(|to| secrets.path(to.path())),
                Way::Smtp(way) => way.login.iter().for_each(|login| secrets.word(&login.user)),
                Way::Syslog(_) | Way::Xmpp(_) => {}
            }
        }
        secrets
    }

    /// Every line of it; what frames a key says nothing.
    fn file(&mut self, path: &Path) {
        let Ok(text) = fs::read_to_string(path) else { return };
        let lines = text.lines().filter(|line| !line.starts_with("-----") && !line.starts_with('#'));
        for line in lines {
            self.word(line);
            // `name = value`, as the file of the cluster's secret has them.
            line.split_whitespace().filter(|word| word.len() >= 16).for_each(|word| self.word(word));
        }
    }

    /// Of an URL: as a whole, and those of its parts that are no ordinary words.
    fn path(&mut self, path: &str) {
        self.word(path.trim_matches('/'));
        let parts = path.split(['/', '?', '&', '=']);
        let odd = |part: &&str| part.len() >= 8 && part.contains(|c: char| c.is_ascii_digit());
        parts.filter(odd).for_each(|part| self.word(part));
    }

    fn word(&mut self, text: &str) {
        let text = text.trim();
        if text.len() >= SHORTEST && text != "public" {
            self.0.insert(text.to_owned());
            // As it stands in JSON.
            let quoted = serde_json::Value::from(text).to_string();
            self.0.insert(quoted[1..quoted.len() - 1].to_owned());
        }
    }

    /// The text without them.
    pub fn mask(&self, text: &str) -> String {
        // The longest first: one may be a part of another.
        let mut all: Vec<&String> = self.0.iter().collect();
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        all.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_wherever_they_stand_the_longest_first() {
        let secrets = Secrets(["abcd".to_owned(), "abcdefgh".to_owned()].into());
        assert_eq!(secrets.mask("x abcdefgh y=abcd;abc"), "x (secret) y=(secret);abc");
        let mut secrets = Secrets::default();
        ["abc", "public", "  spaced  "].iter().for_each(|word| secrets.word(word));
        assert_eq!(secrets.0.into_iter().collect::<Vec<_>>(), ["spaced"]);
        let mut secrets = Secrets::default();
        secrets.word("pass\"word");
        assert_eq!(secrets.mask(r#"{"of":"pass\"word"} pass"word"#), r#"{"of":"(secret)"} (secret)"#);
        let mut secrets = Secrets::default();
        secrets.path("/services/T0KEN1234?key=12345678");
        assert_eq!(
            secrets.0.into_iter().collect::<Vec<_>>(),
            ["12345678", "T0KEN1234", "services/T0KEN1234?key=12345678"]
        );
    }
}
