//! What a test asks a node's admin endpoint for, as an operator's tools would.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::Rig;

impl Rig {
    /// Status code and body of an answer of the admin API; `None`: nobody answers.
    pub fn get(&self, node: usize, path: &str) -> Option<(u16, String)> {
        let made = &self.pair.made.nodes[node];
        let token = fs::read_to_string(&made.token_file).expect("the admin token");
        let mut tcp = TcpStream::connect(made.admin).ok()?;
        let (host, token) = (made.admin, token.trim());
        write!(
            tcp,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The value of a metric of a node, labels and all in its name.
    pub fn metric(&self, node: usize, name: &str) -> f64 {
        let (code, text) = self.get(node, "/metrics").expect("the node answers");
        assert_eq!(code, 200);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in:\n{text}")).parse().expect("a number")
    }
}
