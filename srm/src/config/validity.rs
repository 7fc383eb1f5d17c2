//! When certificates are valid. A wrong time never keeps a node from starting or serving, because its streams, and the
//! pair, live on; it is told, loudly and in time.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime_serde::re::humantime;
use x509_parser::pem::Pem;

use super::Config;

/// From here on an operator is told that a certificate ends.
const SOON_S: i64 = 30 * 24 * 60 * 60;

/// The time of one certificate, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The setting that names its file.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// First second.
    pub from_s: i64,
    /// Last second.
    pub to_s: i64,
}

impl Validity {
    /// What the operator should know at `now_s`; nothing for most of a certificate's life.
    pub fn trouble(&self, now_s: i64) -> Option<String> {
        let (key, path) = (self.key, self.path.display());
        let (from, to, now) = (date(self.from_s), date(self.to_s), date(now_s));
        if now_s < self.from_s {
            return Some(format!(
                "{key}: {path} is not valid before {from}, and the clock of this machine says {now}: is the clock right?"
            ));
        }
        if now_s > self.to_s {
            return Some(format!(
                "{key}: {path} is not valid since {to} (the clock of this machine says {now}): put a new one in its \
                 place; the node takes it up by itself"
            ));
        }
        let days = (self.to_s - now_s) / (24 * 60 * 60);
        (self.to_s - now_s < SOON_S).then(|| {
            format!("{key}: {path} is valid for {days} more days, until {to}: put a new one in its place")
        })
    }
}

/// The present by the wall clock, in seconds since 1970.
pub fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64)
}

fn date(seconds: i64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    humantime::format_rfc3339_seconds(time).to_string()
}

impl Config {
    /// The times of the certificates that the file names, of each file the one that ends first.
    pub fn validities(&self) -> Vec<Validity> {
        let mut files = vec![("c2s.cert", &self.c2s.cert)];
        if let Some((_, link)) = self.pair() {
            files.extend([("link.cert", &link.cert), ("link.ca", &link.ca)]);
        }
        files.into_iter().filter_map(|(key, path)| of_file(key, path)).collect()
    }
}

fn of_file(key: &'static str, path: &PathBuf) -> Option<Validity> {
    let text = std::fs::read(path).ok()?;
    let times = Pem::iter_from_buffer(&text).filter_map(|pem| {
        let pem = pem.ok()?;
        let validity = pem.parse_x509().ok()?.validity().clone();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    });
    let (from_s, to_s) = times.min_by_key(|(_, to)| *to)?;
    Some(Validity { key, path: path.clone(), from_s, to_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_a_month_before_and_a_wrong_clock_is_suspected() {
        const DAY: i64 = 24 * 60 * 60;
        let (from_s, to_s) = (1_700_000_000, 1_700_000_000 + 100 * DAY);
        let validity = Validity { key: "c2s.cert", path: "/etc/tandem/c2s.pem".into(), from_s, to_s };
        let trouble = |now| validity.trouble(now).unwrap_or_default();
        assert_eq!((trouble(from_s), trouble(to_s - 31 * DAY)), (String::new(), String::new()));
        assert!(trouble(to_s - 29 * DAY - 1).contains("for 29 more days, until 2024-02-22T22:13:20Z"));
        assert!(trouble(to_s + 1).contains("not valid since 2024-02-22"), "{}", trouble(to_s + 1));
        let early = trouble(from_s - DAY);
        assert!(early.contains("says 2023-11-13T22:13:20Z: is the clock right?"), "{early}");
    }
}
