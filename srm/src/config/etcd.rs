//! An etcd that holds the registers in the place of a witness.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ureq::http::Uri;

use super::Login;
use super::check::Faults;
use super::link::Link;

/// `[etcd]`: an etcd (3.4 or later) that decides, in the place of a witness of our own, which node goes on when they cannot
/// see each other. It is asked under the policy `"strict+witness"`, and both nodes must name the same.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EtcdFile {
    /// Its members, such as `["https://e1.example.org:2379"]`, tried in this order. `http://` to loopback addresses only.
    /// No default.
    endpoints: Vec<String>,
    /// PEM file of the authority that signed its certificates. Default: as `link.ca`.
    ca: Option<PathBuf>,
    /// PEM file of the certificate that this node shows it. Default: as `link.cert`, or none where there is a `user`: with
    /// users, etcd refuses certificates with a common name at its gateway.
    cert: Option<PathBuf>,
    /// PEM file of its private key. Default: as `link.key`, or none.
    key: Option<PathBuf>,
    /// The user, where it wants one: it needs the right to read and write keys below `prefix`.
    user: Option<String>,
    /// File of that user's password, which only its owner and group may read.
    password_file: Option<PathBuf>,
    /// What the names of its keys begin with. Default `"/tandem"`.
    #[serde(default = "default_prefix")]
    prefix: String,
}

fn default_prefix() -> String {
    "/tandem".into()
}

/// `[etcd]`: where the registers are.
#[derive(Clone, Debug)]
pub struct EtcdAt {
    /// Its members, at least one.
    pub endpoints: Vec<String>,
    /// PEM file of the authority that signed its certificates.
    pub ca: PathBuf,
    /// PEM files of the certificate that this node shows it, and of its private key; `None`: it shows none.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Where it wants a user.
    pub login: Option<Login>,
    /// What the names of its keys begin with.
    pub prefix: String,
}

impl EtcdFile {
    /// `link`: whose files are used where none are named.
    pub(super) fn resolve(self, base: &Path, link: Option<&Link>, faults: &mut Faults<'_>) -> EtcdAt {
        if self.endpoints.is_empty() {
            faults.add("etcd.endpoints", "it names no member", "name at least one");
        }
        for endpoint in &self.endpoints {
            if let Some((problem, hint)) = endpoint_fault(endpoint) {
                faults.add("etcd.endpoints", format!("{endpoint:?} {problem}"), hint);
            }
        }
        if self.cert.is_some() != self.key.is_some() {
            let (there, missing) = if self.cert.is_some() { ("cert", "key") } else { ("key", "cert") };
            faults.add(
                &format!("etcd.{there}"),
                format!("there is no {missing} with it"),
                "write both, or neither",
            );
        }
        let prefix = self.prefix.trim_end_matches('/');
        if !prefix.starts_with('/') || prefix.bytes().any(|byte| !byte.is_ascii_graphic()) {
            let problem =
                format!("{:?} is not a `/` and at least one ASCII letter, digit or sign", self.prefix);
            faults.add("etcd.prefix", problem, "write it such as \"/tandem\"");
        }
        let login = match (self.user, self.password_file) {
            (Some(user), Some(file)) => Some(Login { user, password_file: base.join(file) }),
            (None, None) => None,
            (Some(_), None) => {
                faults.add("etcd.user", "there is no password_file with it", "name the file of its password");
                None
            }
            (None, Some(_)) => {
                faults.add(
                    "etcd.password_file",
                    "there is no user with it",
                    "name the user whose password it is",
                );
                None
            }
        };
        let own = self.cert.zip(self.key).map(|(cert, key)| (base.join(cert), base.join(key)));
        let of_link = link.filter(|_| login.is_none()).map(|link| (link.cert.clone(), link.key.clone()));
        let ca = self.ca.map(|path| base.join(path)).or_else(|| link.map(|link| link.ca.clone()));
        EtcdAt {
            prefix: prefix.to_owned(),
            ca: ca.unwrap_or_default(),
            identity: own.or(of_link),
            endpoints: self.endpoints,
            login,
        }
    }
}

impl EtcdAt {
    /// Reads the files that it names.
    pub(super) fn check_files(&self, faults: &mut Faults<'_>) {
        if let Some(Err(problem)) = self.login.as_ref().map(Login::password) {
            faults.add("etcd.password_file", problem, "");
        }
        if self.endpoints.iter().any(|endpoint| endpoint.starts_with("https:"))
            && let Err(problem) = crate::notify::authorities(Some(&self.ca))
        {
            faults.add("etcd.ca", problem, "");
        }
    }
}

/// What is wrong with it, and what to write.
fn endpoint_fault(text: &str) -> Option<(&'static str, &'static str)> {
    const LIKE: &str = "write it such as \"https://e1.example.org:2379\"";
    let Ok(uri) = text.parse::<Uri>() else { return Some(("is not an URL", LIKE)) };
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return Some(("names no host", LIKE));
    };
    if authority.as_str().contains('@') {
        return Some(("has a user in it", "write it as user and password_file"));
    }
    if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return Some(("has a path", LIKE));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let near = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => None,
        Some("http") if near => None,
        Some("http") => Some((
            "is not protected",
            "whoever can write there decides which node serves: use https, or a loopback address",
        )),
        _ => Some(("does not begin with https://", LIKE)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::Config;

    const HEAD: &str = "[node]\nname = \"a\"\ndomains = [\"im.example\"]\n[peer]\nname = \"b\"\nhost = \"b.example\"\n[c2s]\n\
        cert = \"c\"\nkey = \"k\"\n[link]\ncert = \"link.pem\"\nkey = \"link.key\"\nca = \"ca.pem\"\n\
        secret = \"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"\npolicy = \"strict+witness\"\n";

    fn load(dir: &Path, rest: &str) -> Result<Config, String> {
        let path = dir.join("tandem.toml");
        fs::write(&path, format!("{HEAD}{rest}")).unwrap();
        Config::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_named_is_that_of_the_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |rest: &str| load(dir.path(), rest).unwrap().etcd.unwrap();
        let usual = at(
            "[etcd]\nendpoints = [\"https://e1:2379\", \"http://127.0.0.1:2379\", \"http://[::1]:2379\"]\n",
        );
        let file = |name: &str| dir.path().join(name);
        assert_eq!(usual.ca, file("ca.pem"));
        assert_eq!(usual.identity, Some((file("link.pem"), file("link.key"))));
        assert_eq!((usual.prefix.as_str(), usual.login, usual.endpoints.len()), ("/tandem", None, 3));
        let own = at(
            "[etcd]\nendpoints = [\"https://e1\"]\nca = \"/e/ca\"\ncert = \"c\"\nkey = \"k\"\nuser = \"u\"\n\
            password_file = \"p\"\nprefix = \"/x/y/\"\n",
        );
        assert_eq!((own.ca, own.identity), ("/e/ca".into(), Some((file("c"), file("k")))));
        let user = at("[etcd]\nendpoints = [\"https://e1\"]\nuser = \"u\"\npassword_file = \"p\"\n");
        assert_eq!(user.identity, None, "etcd would refuse the certificate of the link");
        assert_eq!((own.prefix.as_str(), own.login.unwrap().password_file), ("/x/y", file("p")));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let good = "[etcd]\nendpoints = [\"https://e1:2379\"]\n";
        for (rest, key, said) in [
            ("", "link.policy", "neither [witness] nor [etcd]"),
            ("[etcd]\nendpoints = []\n", "etcd.endpoints", "it names no member"),
            ("[etcd]\nendpoints = [\"e1:2379\"]\n", "etcd.endpoints", "does not begin with https://"),
            ("[etcd]\nendpoints = [\"http://e1:2379\"]\n", "etcd.endpoints", "is not protected"),
            ("[etcd]\nendpoints = [\"https://u@e1\"]\n", "etcd.endpoints", "has a user in it"),
            ("[etcd]\nendpoints = [\"https://e1/v3\"]\n", "etcd.endpoints", "has a path"),
            ("[etcd]\nendpoints = [\"https://\"]\n", "etcd.endpoints", "is not an URL"),
            (&format!("{good}cert = \"c\"\n"), "etcd.cert", "there is no key with it"),
            (&format!("{good}key = \"k\"\n"), "etcd.key", "there is no cert with it"),
            (&format!("{good}user = \"u\"\n"), "etcd.user", "there is no password_file"),
            (&format!("{good}password_file = \"p\"\n"), "etcd.password_file", "there is no user"),
            (&format!("{good}prefix = \"tandem\"\n"), "etcd.prefix", "write it such as"),
            (&format!("{good}prefix = \"/\"\n"), "etcd.prefix", "write it such as"),
            (&format!("{good}[witness]\naddress = \"w:1\"\n"), "etcd.endpoints", "there is a [witness], too"),
        ] {
            let error = load(dir.path(), rest).expect_err(rest);
            assert!(error.contains(key) && error.contains(said), "{rest}: {error}");
        }
    }
}
