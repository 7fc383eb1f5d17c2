//! An etcd in the place of the witness: a node keeps a session at one of its members and puts its questions there.
//!
//! Under `PREFIX/CLUSTER/` there are five keys, with JSON in them: `cluster`, whose nodes these are; `register/NODE`, the
//! register of each home group; and `node/NODE`, what each node says its copies are, which ends with a lease of
//! [`LEASE_S`] seconds.

mod api;
mod session;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use presence_engine::ids::NodeIx;
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::info;

pub use session::Session;

use super::client::{Asked, Said};
use super::words::Ask;
use crate::config::EtcdAt;

/// How long what a node said counts without a sign of life, in seconds.
pub const LEASE_S: u64 = 10;
/// How often it gives one.
const SIGN: Duration = Duration::from_secs(3);
/// Pause between two attempts: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What is used, and who this is.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The section of the configuration.
    pub at: EtcdAt,
    /// Identity of the cluster.
    pub cluster: u64,
    /// Names of both nodes, in their order.
    pub nodes: [String; 2],
    /// Which of them this is.
    pub me: NodeIx,
}

/// Keeps a session and puts questions, on a thread of its own, for the client blocks. What is asked while there is no
/// session is dropped: the safety core asks again. It ends when nobody can ask any more.
pub fn keep(
    dial: Dial,
    asked: UnboundedReceiver<Asked>,
    tell: impl Fn(u64, Said) + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().name("etcd".into()).spawn(move || run(&dial, asked, &tell)).map(drop)
}

fn run(dial: &Dial, mut asked: UnboundedReceiver<Asked>, tell: &impl Fn(u64, Said)) {
    let mut pause = PAUSE.0;
    let mut number = 0;
    for endpoint in dial.at.endpoints.iter().cycle() {
        let why = match Session::begin(dial, endpoint) {
            Ok(session) => {
                pause = PAUSE.0;
                number += 1;
                info!(event = "etcd_session", endpoint, "registers are kept there");
                tell(number, Said::Here(session.undecided()));
                match talk(session, &mut asked, number, &|said| tell(number, said)) {
                    Some(why) => why,
                    None => return,
                }
            }
            Err(why) => why,
        };
        if asked.is_closed() {
            return;
        }
        tell(number, Said::Away(format!("{endpoint}: {why}")));
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Until the session ends, and why it did; `None`: nobody asks any more.
fn talk(
    mut session: Session,
    asked: &mut UnboundedReceiver<Asked>,
    number: u64,
    tell: &impl Fn(Said),
) -> Option<String> {
    let mut sign = Instant::now();
    loop {
        let mut asks = Vec::new();
        let mut came = vec![asked.blocking_recv()?];
        while let Ok(more) = asked.try_recv() {
            came.push(more);
        }
        // See `client::keep`.
        for (_, next) in came.into_iter().filter(|(knows, _)| *knows == number) {
            // A core asks again every 250 ms, and a later report says more.
            let known = asks.contains(&next);
            match (asks.last_mut(), next) {
                (Some(last @ Ask::Report(_)), Ask::Report(_)) => *last = next,
                _ if known => {}
                _ => asks.push(next),
            }
        }
        for ask in asks {
            match (session.on(ask), ask) {
                (Ok(Some(verdict)), Ask::Cas { group, request, .. }) => {
                    tell(Said::Answer(group, request, verdict));
                }
                (Ok(_), _) => {
                    tell(Said::Here(session.undecided()));
                    tell(Said::Holds(session.held()));
                }
                (Err(why), _) => return Some(why),
            }
        }
        if sign.elapsed() >= SIGN {
            sign = Instant::now();
            if let Err(why) = session.keep_alive() {
                return Some(why);
            }
        }
    }
}
