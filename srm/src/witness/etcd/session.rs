//! The rules of the witness, kept by the nodes themselves: each reads all registers and reports, decides as a witness
//! would ([`Registers`]), and writes what follows in a transaction that fails unless everything is as it was read.
//!
//! A session begins with a write of the node's own key, and each of its transactions needs that key as the session left
//! it: what an earlier session sent, and nobody knows what became of, changes nothing from then on.

use presence_engine::ids::{NodeIx, Reg};
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::to_vec;

use super::api::{Api, Done, Entry, Guard, Lease, Put};
use super::{Dial, LEASE_S};
use crate::witness::registers::{Register, Registers};
use crate::witness::words::{Ask, Verdict};

/// Version of what is kept.
const VERSION: u32 = 1;
/// How often a change is tried that others get in the way of.
const ATTEMPTS: usize = 8;

/// Whose registers these are.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Whose {
    version: u32,
    nodes: [String; 2],
}

/// What a node says while it is there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Report {
    /// Drawn for each session.
    session: String,
    /// Its copies of the registers, once it has said so.
    registers: Option<[Reg; 2]>,
}

/// A value and the revision of its last change; 0 where there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Held<T> {
    value: Option<T>,
    revision: u64,
}

impl<T> Default for Held<T> {
    fn default() -> Held<T> {
        Held { value: None, revision: 0 }
    }
}

/// All that is kept, as it was last read.
#[derive(Default)]
struct View {
    whose: Held<Whose>,
    registers: [Held<Reg>; 2],
    reports: [Held<Report>; 2],
}

/// What a node does at one etcd, until the first trouble.
pub struct Session {
    api: Api,
    me: NodeIx,
    keys: Keys,
    name: String,
    lease: Lease,
    view: View,
    /// Of the own key, as this session left it.
    own: u64,
}

/// Names of the keys.
struct Keys {
    prefix: String,
    whose: String,
    registers: [String; 2],
    reports: [String; 2],
}

impl Keys {
    fn new(dial: &Dial) -> Keys {
        let prefix = format!("{}/{:016x}/", dial.at.prefix, dial.cluster);
        let each = |what: &str| dial.nodes.each_ref().map(|node| format!("{prefix}{what}/{node}"));
        Keys { whose: format!("{prefix}cluster"), registers: each("register"), reports: each("node"), prefix }
    }

    fn view(&self, entries: Vec<Entry>) -> Result<View, String> {
        fn read<T: for<'a> Deserialize<'a>>(entry: &Entry) -> Result<Held<T>, String> {
            let value = serde_json::from_slice(&entry.value);
            let value = value.map_err(|error| {
                format!(
                    "{} holds something else ({error}): was it written by a newer version, or by another program? Choose \
                     another etcd.prefix, or remove the key",
                    entry.key
                )
            })?;
            Ok(Held { value: Some(value), revision: entry.revision })
        }
        let mut view = View::default();
        for entry in &entries {
            let at = |keys: &[String; 2]| keys.iter().position(|key| *key == entry.key);
            if entry.key == self.whose {
                view.whose = read(entry)?;
            } else if let Some(group) = at(&self.registers) {
                view.registers[group] = read(entry)?;
            } else if let Some(node) = at(&self.reports) {
                view.reports[node] = read(entry)?;
            }
        }
        Ok(view)
    }
}

impl View {
    fn registers(&self) -> Registers {
        let said = |g: usize| self.reports.each_ref().map(|r| r.value.as_ref()?.registers.map(|all| all[g]));
        Registers([0, 1].map(|g| Register::known(self.registers[g].value, said(g))))
    }
}

impl Session {
    /// At one member. The error is for the operator.
    pub fn begin(dial: &Dial, endpoint: &str) -> Result<Session, String> {
        let (api, keys) = (Api::open(&dial.at, endpoint)?, Keys::new(dial));
        let mut view = keys.view(api.range(&keys.prefix)?)?;
        let whose = Whose { version: VERSION, nodes: dial.nodes.clone() };
        if view.whose.value.is_none() {
            let put = Put { key: keys.whose.clone(), value: json(&whose), lease: None };
            let guard = Guard { key: keys.whose.clone(), revision: 0 };
            if let Done::Differs(entries) = api.write(&[guard], &[put], &keys.prefix)? {
                view = keys.view(entries)?;
            }
        }
        if let Some(other) = view.whose.value.filter(|known| *known != whose) {
            return Err(match other.version {
                VERSION => format!(
                    "the registers under {} belong to the nodes {}, not to {}: choose another etcd.prefix",
                    keys.prefix,
                    other.nodes.join(" and "),
                    dial.nodes.join(" and ")
                ),
                newer => format!(
                    "the registers under {} are of version {newer}, not {VERSION}: upgrade the older node",
                    keys.prefix
                ),
            });
        }
        let lease = api.grant(LEASE_S)?;
        let name = format!("{:016x}", rand::rng().random::<u64>());
        let view = View::default();
        let mut session = Session { api, me: dial.me, keys, name, lease, view, own: 0 };
        session.say(None, &[])?;
        session.look()?;
        Ok(session)
    }

    /// What keeps it from deciding about each group, for the operator.
    pub fn undecided(&self) -> [Option<String>; 2] {
        self.view.registers().0.each_ref().map(|r| r.undecided().map(|why| why.text().to_owned()))
    }

    /// Both registers, as they were when it looked last.
    pub fn held(&self) -> [Option<Reg>; 2] {
        self.view.registers().0.each_ref().map(Register::held)
    }

    /// Puts what a node asks; of a change, what became of it. With an error the session is over.
    pub fn on(&mut self, ask: Ask) -> Result<Option<Verdict>, String> {
        if let Ask::Report(regs) = ask {
            let said = self.view.reports[self.me.index()].value.as_ref().and_then(|report| report.registers);
            if said != Some(regs) {
                let own = Guard { key: self.keys.reports[self.me.index()].clone(), revision: self.own };
                self.say(Some(regs), &[own])?;
            }
            self.look()?;
        }
        let mut fresh = matches!(ask, Ask::Report(_));
        for _ in 0..ATTEMPTS {
            // The other has a session and has yet to say what it has, which may be later than what is held.
            let peer = self.view.reports[self.me.peer().index()].value.as_ref();
            if matches!(ask, Ask::Cas { .. }) && peer.is_some_and(|said| said.registers.is_none()) {
                if fresh {
                    return Ok(Some(Verdict::Undecided));
                }
                self.look()?;
                fresh = true;
                continue;
            }
            let mut registers = self.view.registers();
            let (changed, verdict) = registers.on(self.me, ask);
            if changed.contains(&true) {
                if self.write(&registers, changed)? {
                    return Ok(verdict);
                }
            } else if fresh {
                return Ok(verdict);
            } else {
                self.look()?;
            }
            fresh = true;
        }
        Err("others change it all the time: does another program write under etcd.prefix?".into())
    }

    /// To be called every few seconds: else what this node said is forgotten.
    pub fn keep_alive(&mut self) -> Result<(), String> {
        match self.api.keep_alive(self.lease)? {
            true => Ok(()),
            false => Err("the lease is over: this node was away for too long".into()),
        }
    }

    /// Reads everything anew.
    fn look(&mut self) -> Result<(), String> {
        let entries = self.api.range(&self.keys.prefix)?;
        self.see(entries)
    }

    fn see(&mut self, entries: Vec<Entry>) -> Result<(), String> {
        self.view = self.keys.view(entries)?;
        let own = &self.view.reports[self.me.index()];
        match &own.value {
            Some(report) if own.revision == self.own && report.session == self.name => Ok(()),
            Some(_) => Err("this node has connected anew".into()),
            None => Err("what this node wrote is gone: its lease ended, or etcd has lost data".into()),
        }
    }

    /// Says what the own copies are.
    fn say(&mut self, registers: Option<[Reg; 2]>, guards: &[Guard]) -> Result<(), String> {
        let report = Report { session: self.name.clone(), registers };
        let key = self.keys.reports[self.me.index()].clone();
        let put = Put { key, value: json(&report), lease: Some(self.lease) };
        match self.api.write(guards, &[put], &self.keys.prefix)? {
            Done::Written(revision) => self.own = revision,
            Done::Differs(entries) => self.see(entries)?,
        }
        Ok(())
    }

    /// Writes registers that changed, if everything else is still as it was read. `false`: it was not, and is read.
    fn write(&mut self, registers: &Registers, changed: [bool; 2]) -> Result<bool, String> {
        let (keys, view) = (&self.keys, &self.view);
        let guard = |key: &String, revision| Guard { key: key.clone(), revision };
        let registers_as =
            keys.registers.iter().zip(&view.registers).map(|(key, is)| guard(key, is.revision));
        let reports_as = keys.reports.iter().zip(&view.reports).map(|(key, is)| guard(key, is.revision));
        let guards: Vec<Guard> = registers_as.chain(reports_as).collect();
        let put = |g: usize| {
            let reg = registers.0[g].held().filter(|_| changed[g])?;
            Some((g, reg, Put { key: keys.registers[g].clone(), value: json(&reg), lease: None }))
        };
        let news: Vec<_> = [0, 1].into_iter().filter_map(put).collect();
        let (regs, puts): (Vec<_>, Vec<_>) = news.into_iter().map(|(g, reg, put)| ((g, reg), put)).unzip();
        match self.api.write(&guards, &puts, &keys.prefix)? {
            Done::Written(revision) => {
                for (g, reg) in regs {
                    self.view.registers[g] = Held { value: Some(reg), revision };
                    tracing::info!(event = "etcd_register", group = g, term = reg.term.0, mode = ?reg.mode,
                        primary = reg.primary.index());
                }
                Ok(true)
            }
            Done::Differs(entries) => self.see(entries).map(|()| false),
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    to_vec(value).unwrap_or_default()
}
