//! What a node takes up while it runs: certificates and keys, the secret, the admin token, most settings. Everything is
//! read and checked first; where anything is wrong, nothing changes and the operator is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ring::digest::{SHA256, digest};
use tracing::{error, warn};
use xmpp_core::net::ServerConfig;
use xmpp_core::tls::{self, Authority, Identity, Tickets, TlsError};

use super::chronicle::{self, Chronicle};
use super::metrics::Metrics;
use super::notices::Notices;
use super::stopping::Stopping;
use super::tuning::tuning;
use super::worker::ToNode;
use super::{clients, notify};
use crate::admin::{Reloaded, Token};
use crate::beacon::Secret;
use crate::config::{self, Config, Validity, Zone};

/// How often the files are looked at. A change is taken up once it has lasted so long, so that of two files that belong
/// together both are there.
const LOOK: Duration = Duration::from_secs(2);

/// What changes while the node runs.
pub(super) struct Live {
    /// For those who connect from now on.
    pub clients: Arc<ArcSwap<ServerConfig>>,
    /// For link connections from now on; `None` for a single node.
    pub link: Option<LinkTls>,
    /// What beacons are read with before they reach the node.
    pub beacons: Arc<ArcSwap<Secret>>,
    /// By which windows of the day are read.
    pub zone: Arc<ArcSwap<Zone>>,
    /// What the admin API asks for.
    pub token: Arc<ArcSwap<Token>>,
    tickets: Arc<Tickets>,
    metrics: Arc<Metrics>,
    /// Keeps the events.
    pub chronicle: Arc<Chronicle>,
    /// Takes what accounts are told of them.
    pub notices: Arc<Notices>,
    /// How this process is stopped.
    pub stopping: Arc<Stopping>,
    to_node: Sender<ToNode>,
    now: Mutex<Now>,
}

/// Both ends of the link.
pub(super) struct LinkTls {
    /// The one that accepts.
    pub server: Arc<ArcSwap<rustls::ServerConfig>>,
    /// The one that dials.
    pub client: Arc<ArcSwap<rustls::ClientConfig>>,
}

struct Now {
    config: Config,
    /// Digests of the files besides the configuration, by the setting that names each.
    files: BTreeMap<&'static str, Vec<u8>>,
    validities: Vec<Validity>,
    /// Settings that wait for a restart.
    restart: Vec<String>,
    /// Why the last attempt changed nothing.
    failed: Option<String>,
}

/// All that a configuration and its files give, ready to be put in place.
struct Made {
    clients: ServerConfig,
    link: Option<(Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>)>,
    token: Token,
}

impl Live {
    /// What the node starts with.
    pub fn new(
        config: &Config,
        metrics: Arc<Metrics>,
        chronicle: Arc<Chronicle>,
        notices: Arc<Notices>,
        to_node: Sender<ToNode>,
    ) -> anyhow::Result<Arc<Live>> {
        let tickets = Tickets::new(ticket_secrets(config));
        let made = make(config, &tickets)?;
        let link = made.link.map(|(server, client)| LinkTls {
            server: Arc::new(ArcSwap::new(server)),
            client: Arc::new(ArcSwap::new(client)),
        });
        let (files, validities) = (digests(config), config.validities());
        let (restart, failed) = (Vec::new(), None);
        Ok(Arc::new(Live {
            clients: Arc::new(ArcSwap::from_pointee(made.clients)),
            link,
            beacons: Arc::new(ArcSwap::from_pointee(tuning(config).secret)),
            zone: Arc::new(ArcSwap::from_pointee(config.srm.time_zone.clone())),
            token: Arc::new(ArcSwap::from_pointee(made.token)),
            tickets,
            metrics,
            chronicle,
            notices,
            stopping: Stopping::new(),
            to_node,
            now: Mutex::new(Now { config: config.clone(), files, validities, restart, failed }),
        }))
    }

    /// The configuration that the node runs with.
    pub fn config(&self) -> Config {
        self.now().config.clone()
    }

    /// What the operator should know.
    pub fn alarms(&self) -> Vec<String> {
        let now = self.now();
        let failed = now.failed.iter().map(|why| format!("the configuration was not reloaded: {why}"));
        let restart = (!now.restart.is_empty())
            .then(|| format!("changed settings wait for a restart of this node: {}", now.restart.join(", ")));
        let now_s = config::now_s();
        let certificates = now.validities.iter().filter_map(|validity| validity.trouble(now_s));
        let crowd = super::storm::alarm(&self.clients.load().logins_now());
        failed.chain(restart).chain(certificates).chain(crowd).collect()
    }

    /// Seconds that each certificate is still valid, by the setting that names its file.
    pub fn certificates(&self) -> Vec<(&'static str, i64)> {
        let now_s = config::now_s();
        self.now().validities.iter().map(|validity| (validity.key, validity.to_s - now_s)).collect()
    }

    /// Reads everything again, and takes it up if all of it is sound.
    pub async fn reload(self: &Arc<Self>) -> Result<Reloaded, String> {
        let this = self.clone();
        // Files may be slow.
        let done = tokio::task::spawn_blocking(move || this.reload_now()).await;
        done.unwrap_or_else(|_| Err("it failed by a bug; please report it with the log".to_owned()))
    }

    fn reload_now(&self) -> Result<Reloaded, String> {
        let mut now = self.now();
        notify::reloading();
        let result = self.try_reload(&mut now);
        notify::reloaded();
        self.metrics.reload(result.is_ok());
        match &result {
            Ok(done) => {
                let list =
                    |all: &[String]| if all.is_empty() { "nothing".to_owned() } else { all.join(", ") };
                let (taken, restart) = (list(&done.taken), list(&done.restart));
                let text = format!(
                    "the configuration was read again; taken up: {taken}; waiting for a restart: {restart}"
                );
                self.chronicle.tell("reloaded", text);
                for warning in &done.warnings {
                    warn!(event = "config_warning", "{warning}");
                }
            }
            Err(why) => {
                error!(event = "config_refused", why, "configuration not reloaded, the one before stays");
            }
        }
        now.failed = result.as_ref().err().cloned();
        result
    }

    fn try_reload(&self, now: &mut Now) -> Result<Reloaded, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let read = Config::load(&now.config.path).map_err(|error| text(&error))?;
        read.check_files().map_err(|error| text(&error))?;
        // Of what is in the file, though it may wait for a restart.
        let warnings = read.warnings();
        let (config, mut change) = now.config.follow(read);
        if let (Some((_, old)), Some((_, new))) = (now.config.pair(), config.pair())
            && old.secret.cluster_id() != new.secret.cluster_id()
        {
            return Err(
                "link.secret: this is the secret of another cluster; `tandem renew secret` keeps its \
                        identity in the line `cluster`"
                    .into(),
            );
        }
        let files = digests(&config);
        let made = make(&config, &self.tickets).map_err(|error| text(&error))?;
        change.taken.extend(
            files
                .iter()
                .filter(|(key, sum)| now.files.get(*key) != Some(sum))
                .map(|(key, _)| (*key).to_owned()),
        );
        change.taken.sort();
        change.taken.dedup();
        let tells = change.taken.iter().any(|key| key == "notify" || key.starts_with("notify."));
        let notifier = tells
            .then(|| chronicle::notifier(&config, &self.notices))
            .transpose()
            .map_err(|error| text(&error))?;
        let before = self.clients.load_full();
        self.clients.store(Arc::new(made.clients.after(&before)));
        // Who is connected to the witness by those that hold stays so.
        let other = change.taken.iter().any(|key| key.starts_with("link."));
        if let (Some(link), Some((server, client)), true) = (&self.link, made.link, other) {
            link.server.store(server);
            link.client.store(client);
        }
        self.token.store(Arc::new(made.token));
        self.tickets.replace(ticket_secrets(&config));
        if let Some(notifier) = notifier {
            self.chronicle.notify_by(notifier);
        }
        let tuning = tuning(&config);
        self.beacons.store(Arc::new(tuning.secret.clone()));
        self.zone.store(Arc::new(config.srm.time_zone.clone()));
        let _ = self.to_node.send(ToNode::Tune(Box::new(tuning)));
        let done = Reloaded { taken: change.taken, restart: change.restart.clone(), warnings };
        now.validities = config.validities();
        (now.config, now.files, now.restart) = (config, files, change.restart);
        Ok(done)
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(config: &Config, tickets: &Arc<Tickets>) -> anyhow::Result<Made> {
    let link = match config.pair() {
        Some((_, link)) => Some(link_tls(link)?),
        None => None,
    };
    let token = config::read_token(&config.admin.token_file).map_err(anyhow::Error::msg)?;
    Ok(Made { clients: clients::server(config, tickets.clone())?, link, token: Token::new(&token)? })
}

type LinkConfigs = (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>);

fn link_tls(link: &config::Link) -> Result<LinkConfigs, TlsError> {
    let identity = Identity::load(&link.cert, &link.key)?;
    let authority = Authority::load(&link.ca)?;
    Ok((tls::link_server(&identity, &authority)?, tls::link_client(&identity, &authority)?))
}

/// A single node shares its tickets with nobody: their secret ends with the process.
fn ticket_secrets(config: &Config) -> Vec<[u8; 32]> {
    match config.pair() {
        Some((_, link)) => link.secret.derive_all("tls tickets"),
        None => vec![super::random()],
    }
}

/// A file that cannot be read has no digest; the check tells why.
fn digests(config: &Config) -> BTreeMap<&'static str, Vec<u8>> {
    let mut digests: BTreeMap<&'static str, Vec<u8>> = BTreeMap::new();
    for (key, path) in config.files() {
        let Ok(bytes) = std::fs::read(path) else { continue };
        // Several [[notify]] may each name a file of this kind.
        digests.entry(key).or_default().extend(digest(&SHA256, &bytes).as_ref());
    }
    digests
}

/// Reloads when one of the files has changed and has then stayed the same for a while.
pub(super) async fn watch(live: Arc<Live>) {
    let mut taken = marks(&live.config());
    let mut seen = taken.clone();
    loop {
        tokio::time::sleep(LOOK).await;
        let config = live.config();
        let Ok(found) = tokio::task::spawn_blocking(move || marks(&config)).await else { continue };
        if found != taken && found == seen {
            _ = live.reload().await;
            // What is written while the files are read is another change. A configuration that names other files is watched
            // with them from now on.
            taken = marks(&live.config());
            for (path, mark) in &mut taken {
                if let Some((_, before)) = found.iter().find(|(known, _)| known == path) {
                    *mark = *before;
                }
            }
            seen = taken.clone();
        } else {
            seen = found;
        }
    }
}

/// What shows that a file was written or replaced: its times, its length, its number.
type Mark = Option<(i64, i64, u64, u64)>;

fn marks(config: &Config) -> Vec<(PathBuf, Mark)> {
    use std::os::unix::fs::MetadataExt;
    let files = config.files().into_iter().map(|(_, path)| path.to_owned()).chain([config.path.clone()]);
    let mark = |path: PathBuf| {
        let found = std::fs::metadata(&path).ok();
        (path, found.map(|m| (m.mtime(), m.mtime_nsec(), m.len(), m.ino())))
    };
    files.map(mark).collect()
}
