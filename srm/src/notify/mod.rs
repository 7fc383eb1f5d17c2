//! Tells people and their tools of events: by syslog, e-mail, SNMP traps, webhooks and messages of XMPP, as
//! `[[notify]]` says.
//!
//! Each receiver has a queue and a task of its own, so that a slow or dead one holds up nobody. A queue is bounded
//! ([`WAITING`]): where it is full, the oldest event is dropped and counted. What a receiver does not take is tried again
//! after 1 s, 2 s, 4 s and so on up to 60 s, and given up after one hour, or at once where the receiver refuses it for
//! good. A panic is such a failure of that receiver alone, which is told; after the third the event is given up. A receiver may be told of an event twice, since an answer can be lost: it can tell by the id. Who is told is not
//! known across a restart: what waits then is lost, and is in the record of events all the same.

mod ber;
mod capped;
mod mail;
mod queue;
mod snmp;
mod syslog;
mod task;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod trust;
mod udp;
mod webhook;
mod xmpp;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use lettre::transport::smtp::authentication::Credentials;
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;
use xmpp_core::jid::BareJid;

use crate::config::{self, SmtpTls, Wants, Way};
use crate::events::Record;

pub(crate) use mail::is_mailbox;
pub use queue::{Counts, UNREACHED, WAITING};
pub use snmp::DEFAULT_OID;
pub use template::Template;
pub(crate) use trust::authorities;
pub use webhook::{Hook, SIGNATURE};
pub use xmpp::{Message, Post, Unposted};

use queue::Queue;
use task::Deliver;
use template::Sender;

/// Tells of events. Dropping it ends all deliveries at once.
pub struct Notifier {
    receivers: Vec<Receiver>,
    /// Accounts of this server that are told, and the number of the table of each.
    accounts: Vec<(usize, BareJid)>,
    post: Option<Arc<dyn Post>>,
    tasks: JoinSet<Infallible>,
}

struct Receiver {
    wants: Wants,
    queue: Arc<Queue>,
}

impl Notifier {
    /// Starts a task for each receiver, in the tokio runtime that it is called in. It reads the files that the
    /// configuration names (passwords, secrets, authorities); the error says which cannot be used. `node` and `domain`
    /// are this node's name and the first domain that it serves; `post` takes what is for accounts of this server.
    pub fn start(
        config: &[config::Notify],
        node: &str,
        domain: &str,
        post: Option<Arc<dyn Post>>,
    ) -> anyhow::Result<Notifier> {
        tokio::runtime::Handle::try_current().context("events are told from within a tokio runtime")?;
        let (receivers, accounts, tasks) = (Vec::new(), Vec::new(), JoinSet::new());
        let mut notifier = Notifier { receivers, accounts, post, tasks };
        let sender = Sender { node: node.to_owned(), domain: domain.to_owned() };
        for notify in config {
            let started = notifier.add(notify, &sender);
            started.map_err(|why| anyhow!("notify.{}: {why}", notify.number))?;
        }
        Ok(notifier)
    }

    /// Puts the event in the queue of each receiver that wants it. It never waits and never fails.
    pub fn tell(&self, record: &Record) {
        let (mut shared, now) = (None, Instant::now());
        for receiver in self.receivers.iter().filter(|receiver| receiver.wants.takes(record)) {
            let record = shared.get_or_insert_with(|| Arc::new(record.clone()));
            receiver.queue.put(Arc::clone(record), now);
        }
    }

    /// One sentence for each receiver that does not work at present: its last attempt failed, or it is an account that is
    /// not there. For an alarm.
    pub fn troubles(&self) -> Vec<String> {
        let missing = |account: &BareJid| self.post.as_ref().is_some_and(|post| post.misses(account));
        let missing = self.accounts.iter().filter(|(_, account)| missing(account)).map(|(number, account)| {
            format!(
                "notify.{number}.to: there is no account {account}, which is to be told of events: `tandem user add \
                 {account}`, or correct the setting"
            )
        });
        self.receivers.iter().filter_map(|receiver| receiver.queue.trouble()).chain(missing).collect()
    }

    /// What became of the events, for each receiver.
    pub fn counts(&self) -> Vec<Counts> {
        self.receivers.iter().map(|receiver| receiver.queue.counts()).collect()
    }

    /// Waits until nothing is left to be delivered, at most for this long: before a node stops. Whether all was settled.
    pub async fn settle(&self, limit: Duration) -> bool {
        let all = async {
            for receiver in &self.receivers {
                receiver.queue.settle().await;
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }

    fn add(&mut self, notify: &config::Notify, sender: &Sender) -> anyhow::Result<()> {
        match &notify.way {
            Way::Syslog(way) => self.add_syslog(notify, way, sender),
            Way::Smtp(way) => return self.add_smtp(notify, way, sender),
            Way::Snmp(way) => self.add_snmp(notify, way, sender),
            Way::Webhook(way) => return self.add_webhook(notify, way),
            Way::Xmpp(way) => return self.add_xmpp(notify, way, sender),
        }
        Ok(())
    }

    fn add_syslog(&mut self, notify: &config::Notify, way: &config::Syslog, sender: &Sender) {
        for to in &way.to {
            let scheme = if to.tcp { "tcp" } else { "udp" };
            let receiver = syslog::Syslog {
                at: to.at.clone(),
                tcp: to.tcp,
                facility: way.facility,
                body: way.body.clone(),
                sender: sender.clone(),
                stream: None,
            };
            self.spawn(notify, format!("syslog at {scheme}://{}", to.at), receiver);
        }
    }

    fn add_smtp(
        &mut self,
        notify: &config::Notify,
        way: &config::Smtp,
        sender: &Sender,
    ) -> anyhow::Result<()> {
        let roots = match way.tls {
            SmtpTls::None => Vec::new(),
            SmtpTls::Starttls | SmtpTls::Implicit => roots(way.ca.as_deref())?,
        };
        let login = way.login.as_ref().map(|login| {
            let password = login.password().map_err(anyhow::Error::msg)?;
            anyhow::Ok(Credentials::new(login.user.clone(), password))
        });
        let login = login.transpose()?;
        for to in &way.to {
            let receiver = mail::Mail {
                server: way.server.clone(),
                security: mail::Security::new(way.tls, &way.server.host, &roots)?,
                login: login.clone(),
                from: way.from.parse()?,
                to: to.parse()?,
                subject: way.subject.clone(),
                body: way.body.clone(),
                sender: sender.clone(),
            };
            self.spawn(notify, format!("{to} by the mail server {}", way.server), receiver);
        }
        Ok(())
    }

    fn add_snmp(&mut self, notify: &config::Notify, way: &config::Snmp, sender: &Sender) {
        for at in &way.to {
            let receiver = snmp::Snmp {
                at: at.clone(),
                community: way.community.as_str().to_owned(),
                oid: way.oid.clone(),
                body: way.body.clone(),
                sender: sender.clone(),
                up_since: Instant::now(),
                request: 0,
            };
            self.spawn(notify, format!("SNMP traps at udp://{at}"), receiver);
        }
    }

    fn add_webhook(&mut self, notify: &config::Notify, way: &config::Webhook) -> anyhow::Result<()> {
        let https = way.to.iter().any(Hook::is_https);
        let roots = if https { roots(way.ca.as_deref())? } else { Vec::new() };
        let secret = way.secret().transpose().map_err(anyhow::Error::msg)?;
        for to in &way.to {
            let receiver = webhook::Webhook::new(to.clone(), secret.as_deref(), &roots);
            self.spawn(notify, format!("the webhook {to}"), receiver);
        }
        Ok(())
    }

    fn add_xmpp(
        &mut self,
        notify: &config::Notify,
        way: &config::Xmpp,
        sender: &Sender,
    ) -> anyhow::Result<()> {
        let post = self.post.clone().context("only a node that runs writes to its accounts")?;
        for to in &way.to {
            self.accounts.push((notify.number, to.clone()));
            let receiver = xmpp::Xmpp {
                number: notify.number,
                to: to.clone(),
                subject: way.subject.clone(),
                body: way.body.clone(),
                sender: sender.clone(),
                post: post.clone(),
            };
            self.spawn(notify, format!("the account {to}"), receiver);
        }
        Ok(())
    }

    fn spawn(&mut self, notify: &config::Notify, to: String, way: impl Deliver + Send + 'static) {
        let queue = Arc::new(Queue::new(to));
        self.tasks.spawn(task::run(Arc::clone(&queue), way, task::WallClock));
        self.receivers.push(Receiver { wants: notify.wants.clone(), queue });
    }
}

fn roots(ca: Option<&std::path::Path>) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    authorities(ca).map_err(anyhow::Error::msg)
}
