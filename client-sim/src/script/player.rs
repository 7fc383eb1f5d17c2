//! Plays a script against a server and says where it went otherwise.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use xmpp_core::dual::Peer;
use xmpp_core::sasl::KeyCache;
use xmpp_core::xml::Writer;
use xmpp_core::{Element, Stanza};

use super::actor::{Actor, FENCE, Link};
use super::pattern::{Captures, fill, fits, show};
use super::{Script, What, parse};
use crate::conn::{Account, Dialer};

/// Times that pings go every way before nothing can be outstanding: what one causes may cause another thing.
const ROUNDS: usize = 2;
/// Lines of what went over the wire that a failure shows.
const SHOWN: usize = 16;

/// The server that scripts are played against.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its name, for steps that are for one server only.
    pub server: String,
    /// Its nodes.
    pub nodes: Vec<Peer>,
    /// How clients connect.
    pub dialer: Dialer,
    /// Password of every account.
    pub password: String,
    /// How far from its home each client connects: 0 there, 1 at the next node. The first account of a script has its
    /// home at the first node, the second at the next, and so on.
    pub away: usize,
    /// Whether clients with an even and with an odd number know the dual connection.
    pub dual: [bool; 2],
    /// Longest wait for anything.
    pub limit: Duration,
}

/// A moment in a script at which a node is killed.
#[derive(Debug)]
pub struct Middle {
    /// The step before which the script waits for `go`.
    pub step: usize,
    /// Is told when it waits, and when the script ended before.
    pub reached: mpsc::UnboundedSender<()>,
    /// 0: wait; 1: go on, the kill comes now; 2: it has come. Clients begin and end sessions only then.
    pub phase: watch::Receiver<u8>,
}

/// Where and how a script went otherwise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Name of the script.
    pub script: String,
    /// File and line.
    pub place: String,
    /// What happened instead.
    pub what: String,
    /// The last that was sent and received, oldest first.
    pub wire: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({}): {}", self.script, self.place, self.what)?;
        self.wire.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// A script on a stage.
pub struct Player<'a> {
    script: &'a Script,
    stage: &'a Stage,
    actors: Vec<Actor>,
    captures: Captures,
    wire: VecDeque<String>,
    fences: u64,
    killed: bool,
}

impl<'a> Player<'a> {
    /// Nobody is connected yet.
    pub fn new(script: &'a Script, stage: &'a Stage) -> Self {
        let keys = Arc::new(KeyCache::new());
        let actor = |(index, role): (usize, &super::Role)| {
            let home = script.accounts.iter().position(|user| *user == role.user).unwrap_or_default();
            let account = Account {
                user: role.user.clone(),
                domain: script.names.domain.clone(),
                password: stage.password.clone(),
                resource: Some(role.resource.clone()),
                keys: Arc::clone(&keys),
            };
            let first = (home + stage.away) % stage.nodes.len().max(1);
            Actor::new(account, stage.dialer.clone(), stage.nodes.clone(), first, stage.dual[index % 2])
        };
        let actors = script.cast.iter().enumerate().map(actor).collect();
        let (captures, wire) = (Captures::new(), VecDeque::new());
        Player { script, stage, actors, captures, wire, fences: 0, killed: true }
    }

    /// From the first step to the last, and the proof that nobody gets anything more.
    pub async fn play(mut self, mut middle: Option<Middle>) -> Result<(), Failure> {
        self.killed = middle.is_none();
        let played = self.steps(&mut middle).await;
        if let Some(middle) = middle.filter(|_| !self.killed) {
            let _ = middle.reached.send(());
        }
        played.map_err(|(step, what)| Failure {
            script: self.script.name.clone(),
            place: self.script.place(step),
            what: self.script.names.to_script(&what),
            wire: self.wire.into(),
        })
    }

    async fn steps(&mut self, middle: &mut Option<Middle>) -> Result<(), (usize, String)> {
        let steps = &self.script.steps;
        for (index, step) in steps.iter().enumerate() {
            if let Some(middle) = middle.as_mut().filter(|middle| middle.step == index) {
                self.wait_for(middle, 1).await.map_err(|what| (index, what))?;
            }
            let begins_or_ends =
                matches!(step.what, What::Connect | What::Open | What::Disconnect | What::Lose);
            if let Some(middle) = middle.as_mut().filter(|m| index >= m.step && begins_or_ends) {
                self.wait_for(middle, 2).await.map_err(|what| (index, what))?;
            }
            if step.only.as_ref().is_none_or(|only| *only == self.stage.server) {
                self.step(step.who, &step.what).await.map_err(|what| (index, what))?;
            }
        }
        self.nothing_more().await.map_err(|what| (steps.len(), what))
    }

    /// Waits for a phase of the kill; before the first, until dual clients have parked.
    async fn wait_for(&mut self, middle: &mut Middle, phase: u8) -> Result<(), String> {
        if phase == 1 {
            let deadline = Instant::now() + self.stage.limit;
            while !self.all_parked() {
                if Instant::now() > deadline {
                    return Err("a dual client did not park".into());
                }
                sleep(Duration::from_millis(10)).await;
            }
            let _ = middle.reached.send(());
            self.killed = true;
        }
        middle.phase.wait_for(|now| *now >= phase).await.map_err(|_| "nobody kills")?;
        Ok(())
    }

    fn all_parked(&self) -> bool {
        let more = self.stage.nodes.len() > 1;
        self.actors.iter().enumerate().all(|(index, actor)| match &actor.link {
            Link::Session { session, .. } => !more || !self.stage.dual[index % 2] || session.is_parked(),
            _ => true,
        })
    }

    async fn step(&mut self, who: usize, what: &What) -> Result<(), String> {
        let deadline = Instant::now() + self.stage.limit;
        let actor = &mut self.actors[who];
        match what {
            What::Connect => actor.connect(deadline).await,
            What::Open => actor.open(deadline).await,
            What::Disconnect => {
                // The end of a stream that a dying node never read would leave the session waiting for its client.
                self.alive(who, deadline).await?;
                self.actors[who].disconnect().await
            }
            What::Lose => actor.lose(),
            What::Send(text) => {
                for stanza in parse::stanzas(&fill(text, &self.captures)?)? {
                    self.actors[who].send(&stanza).await?;
                    self.note(who, '>', &stanza.element());
                }
                Ok(())
            }
            What::Receive { stanzas, any_order: false } => {
                for expected in stanzas {
                    self.expect(who, deadline, std::slice::from_ref(expected)).await?;
                }
                Ok(())
            }
            What::Receive { stanzas, any_order: true } => {
                let mut left = stanzas.clone();
                while !left.is_empty() {
                    let found = self.expect(who, deadline, &left).await?;
                    left.remove(found);
                }
                Ok(())
            }
            What::Nothing => {
                self.fence().await?;
                self.empty(who)
            }
            What::Ends(condition) => match actor.ends(deadline).await? {
                found if found == *condition => Ok(()),
                found => Err(format!("its stream ended otherwise: {found}")),
            },
        }
    }

    /// The next stanza of `who` is one of these; which.
    async fn expect(&mut self, who: usize, deadline: Instant, of: &[Element]) -> Result<usize, String> {
        let wanted = || {
            let shown: Vec<_> = of.iter().map(show).collect();
            shown.join(" or ")
        };
        let actor = &mut self.actors[who];
        let got = match actor.inbox.pop_front() {
            Some(got) => got,
            None => actor.receive(deadline).await.map_err(|what| format!("{what}; expected {}", wanted()))?,
        };
        self.note(who, '<', &got);
        let mut why = Vec::new();
        for (index, expected) in of.iter().enumerate() {
            let mut captures = self.captures.clone();
            match fits(expected, &got, &self.actors[who].jid, &mut captures) {
                Ok(()) => {
                    self.captures = captures;
                    return Ok(index);
                }
                Err(what) => why.push(what),
            }
        }
        Err(format!("{} received {}; expected {}: {}", self.name(who), show(&got), wanted(), why.join("; ")))
    }

    /// Sends pings every way behind all that was said, and waits for their answers: whatever that caused has come.
    async fn fence(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + self.stage.limit;
        for _ in 0..ROUNDS {
            let mut sent: Vec<Vec<String>> = vec![Vec::new(); self.actors.len()];
            for (who, sent) in sent.iter_mut().enumerate() {
                if !self.actors[who].is_session() {
                    continue;
                }
                for account in &self.script.accounts {
                    let id = self.next_fence();
                    let to = format!("{account}@{}", self.script.names.domain);
                    self.actors[who].send(&ping(&id, &to)?).await?;
                    sent.push(id);
                }
            }
            for (who, sent) in sent.into_iter().enumerate() {
                let actor = &mut self.actors[who];
                if let Err(what) = actor.fenced(&sent, deadline).await {
                    return Err(format!("{} pinged behind all that was said: {what}", self.name(who)));
                }
                actor.fence_stream(deadline).await?;
            }
        }
        Ok(())
    }

    /// A session has a stream that goes there and back.
    async fn alive(&mut self, who: usize, deadline: Instant) -> Result<(), String> {
        if !self.actors[who].is_session() {
            return Ok(());
        }
        let id = self.next_fence();
        self.actors[who].send(&ping(&id, &self.script.names.domain)?).await?;
        self.actors[who].fenced(&[id], deadline).await
    }

    fn next_fence(&mut self) -> String {
        self.fences += 1;
        format!("{FENCE}{}", self.fences)
    }

    fn empty(&mut self, who: usize) -> Result<(), String> {
        match self.actors[who].inbox.front().cloned() {
            None => Ok(()),
            Some(got) => {
                self.note(who, '<', &got);
                Err(format!("{} received {}; expected nothing", self.name(who), show(&got)))
            }
        }
    }

    async fn nothing_more(&mut self) -> Result<(), String> {
        self.fence().await?;
        (0..self.actors.len()).try_for_each(|who| self.empty(who))
    }

    fn name(&self, who: usize) -> String {
        self.script.cast[who].name.clone()
    }

    fn note(&mut self, who: usize, way: char, element: &Element) {
        let line = format!("{} {way} {}", self.name(who), self.script.names.to_script(&show(element)));
        self.wire.push_back(line);
        if self.wire.len() > SHOWN {
            self.wire.pop_front();
        }
    }
}

impl fmt::Debug for Player<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Player").field("script", &self.script.name).finish_non_exhaustive()
    }
}

/// XEP-0199 to an account: its server answers, whatever it thinks of pings.
fn ping(id: &str, to: &str) -> Result<Stanza, String> {
    let mut w = Writer::new();
    w.open("iq", "").attr("type", "get").attr("id", id).attr("to", to).open("ping", "urn:xmpp:ping");
    Stanza::from_bytes(w.finish()).map_err(|error| error.to_string())
}
