//! A node that stands still between its decision to answer a client and the socket. What it had decided leaves it when it goes on,
//! whatever has happened meanwhile.

use presence_engine::ids::Conn;
use srm::node::Out;

use super::world::World;

/// Whether a node stands still so.
#[derive(Debug, Default)]
pub struct Late {
    /// It is to, with the next message for a client.
    pub(super) due: bool,
    /// What it had decided then, in order.
    held: Vec<Out>,
}

impl World {
    /// What a node is about to do, unless it stands still before that.
    pub(super) fn leaves(&mut self, node: usize, out: Out) -> Option<Out> {
        let begins = self.late[node].due && message_for(&out).is_some();
        if begins {
            self.trace(|| format!("{} stands still", ["a", "b"][node]));
            self.late[node].due = false;
            if let Some(process) = &mut self.hosts[node].process {
                process.paused = true;
            }
        }
        if begins || !self.late[node].held.is_empty() {
            self.late[node].held.push(out);
            return None;
        }
        Some(out)
    }

    /// For whom the message was with which a node stands still.
    pub(super) fn late_for(&self, node: usize) -> Option<usize> {
        let conn = self.late[node].held.first().and_then(message_for)?;
        Some(self.sockets[conn.number as usize - 1].client)
    }

    /// How many stanzas for clients wait in it.
    pub(super) fn late_stanzas(&self, node: usize) -> usize {
        let stanza = |out: &&Out| matches!(out, Out::Deliver(_, bytes) if bytes.starts_with(b"<message"));
        self.late[node].held.iter().filter(stanza).count()
    }

    /// It goes on: what it had decided leaves it, and then it looks at its clock.
    pub(super) fn goes_on(&mut self, node: usize) {
        for out in std::mem::take(&mut self.late[node].held) {
            self.perform(node, out);
        }
        if let Some(boot) = self.hosts[node].process.as_ref().map(|process| process.boot) {
            self.wake(node, boot);
        }
    }
}

fn message_for(out: &Out) -> Option<Conn> {
    match out {
        Out::Deliver(conn, bytes) if conn.number != Conn::SELF => {
            bytes.windows(6).any(|part| part == b"<body>").then_some(*conn)
        }
        _ => None,
    }
}
