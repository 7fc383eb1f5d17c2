//! From the text of a script to its steps.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use xmpp_core::xml::{Event, Framer, Limits, Writer};
use xmpp_core::{Stanza, ns};

use super::{Role, Script, Step, What};

/// The domain that scripts are written for.
const DOMAIN: &str = "example.org";
/// Files that `play` leads to, one from within the other, at most.
const MAX_PLAYS: usize = 4;

/// The script's text is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// A file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line says nothing that a script can say.
    #[error("{}:{line}: {what}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what would be right.
        what: String,
    },
}

/// What the script's names become at the server: `romeo@example.org` is `romeo.TAG@DOMAIN` there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The server's domain.
    pub domain: String,
    /// Keeps the accounts of scripts that are played at the same time apart. Lower-case letters and digits.
    pub tag: String,
}

impl Names {
    /// A text of the script as the server shall see it.
    pub(super) fn to_server(&self, text: &str) -> String {
        text.replace(&format!("@{DOMAIN}"), &format!(".{}@\u{0}", self.tag))
            .replace(DOMAIN, &self.domain)
            .replace('\u{0}', &self.domain)
    }

    /// A text of the server as the script would have it, for people.
    pub(super) fn to_script(&self, text: &str) -> String {
        text.replace(&format!(".{}@{}", self.tag, self.domain), &format!("@{DOMAIN}"))
            .replace(&self.domain, DOMAIN)
    }
}

impl Script {
    /// Reads a script for a domain and tag.
    pub fn load(path: &Path, names: &Names) -> Result<Script, ScriptError> {
        let mut reader = Reader {
            script: Script {
                name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
                title: String::new(),
                cast: Vec::new(),
                accounts: Vec::new(),
                no_failover: None,
                steps: Vec::new(),
                names: names.clone(),
            },
            by_name: BTreeMap::new(),
            depth: 0,
        };
        reader.file(path)?;
        Ok(reader.script)
    }
}

struct Reader {
    script: Script,
    by_name: BTreeMap<String, usize>,
    depth: usize,
}

impl Reader {
    fn file(&mut self, path: &Path) -> Result<(), ScriptError> {
        let text =
            fs::read_to_string(path).map_err(|source| ScriptError::Read { path: path.into(), source })?;
        let lines: Vec<&str> = text.lines().collect();
        let mut at = 0;
        while at < lines.len() {
            let line = at + 1;
            let head = lines[at].trim_end();
            at += 1;
            let mut block = String::new();
            while at < lines.len() && (lines[at].starts_with([' ', '\t']) || lines[at].trim().is_empty()) {
                block.push_str(lines[at]);
                block.push('\n');
                at += 1;
            }
            self.line(path, line, head, block.trim()).map_err(|what| what.at(path, line))?;
        }
        Ok(())
    }

    fn line(&mut self, path: &Path, line: usize, head: &str, block: &str) -> Result<(), Wrong> {
        if head.starts_with([' ', '\t']) {
            return Err("XML without a step above it".into());
        }
        if head.is_empty() {
            return if block.is_empty() { Ok(()) } else { Err("XML without a step above it".into()) };
        }
        if let Some(comment) = head.strip_prefix('#') {
            if self.script.title.is_empty() {
                self.script.title = comment.trim().to_owned();
            }
            return if block.is_empty() { Ok(()) } else { Err("XML below a comment".into()) };
        }
        if let Some(reason) = head.strip_prefix("not over a failover:") {
            self.script.no_failover = Some(reason.trim().to_owned());
            return Ok(());
        }
        if let Some(name) = head.strip_prefix("play ") {
            return self.play(path, name.trim());
        }
        if let Some((name, jid)) = head.split_once(" is ") {
            return self.role(name, jid.trim());
        }
        self.step(path, line, head, block)
    }

    fn play(&mut self, path: &Path, name: &str) -> Result<(), Wrong> {
        if self.depth == MAX_PLAYS {
            return Err("plays within plays go too deep".into());
        }
        self.depth += 1;
        self.file(&path.with_file_name(name).with_extension("txt")).map_err(Wrong::Elsewhere)?;
        self.depth -= 1;
        Ok(())
    }

    fn role(&mut self, name: &str, jid: &str) -> Result<(), Wrong> {
        let parts = jid.split_once('@').and_then(|(user, rest)| Some((user, rest.split_once('/')?)));
        let Some((user, (DOMAIN, resource))) = parts else {
            return Err(format!("{jid} is not of the form user@{DOMAIN}/resource").into());
        };
        let user = format!("{user}.{}", self.script.names.tag);
        let role = Role { name: name.into(), user: user.clone(), resource: resource.into() };
        match self.by_name.get(name) {
            // A script that is played within another may introduce the same people.
            Some(known) if self.script.cast[*known] == role => return Ok(()),
            Some(_) => return Err(format!("{name} is somebody else already").into()),
            None => {}
        }
        if !self.script.accounts.contains(&user) {
            self.script.accounts.push(user);
        }
        self.by_name.insert(name.into(), self.script.cast.len());
        self.script.cast.push(role);
        Ok(())
    }

    fn step(&mut self, path: &Path, line: usize, head: &str, block: &str) -> Result<(), Wrong> {
        let who = self.by_name.iter().filter(|(name, _)| head.starts_with(name.as_str()));
        let Some((name, who)) =
            who.max_by_key(|(name, _)| name.len()).map(|(name, who)| (name.clone(), *who))
        else {
            return Err(format!("no client was introduced that `{head}` begins with").into());
        };
        let rest = head[name.len()..].trim();
        let (rest, colon) = rest.strip_suffix(':').map_or((rest, false), |rest| (rest, true));
        let (verb, only) = match rest.split_once(" on ") {
            Some((verb, server)) => (verb, Some(server.trim().to_owned())),
            None => (rest, None),
        };
        if colon == block.is_empty() {
            let what = if colon { "nothing is indented below the colon" } else { "no colon, but XML below" };
            return Err(what.into());
        }
        let text = self.script.names.to_server(block);
        let what = match (verb, colon) {
            ("connects", false) => What::Connect,
            ("opens a stream", false) => What::Open,
            ("disconnects", false) => What::Disconnect,
            ("loses the connection", false) => What::Lose,
            ("receives nothing", false) => What::Nothing,
            ("sends", true) => {
                stanzas(&text)?;
                What::Send(text)
            }
            ("receives", true) | ("receives in any order", true) => What::Receive {
                stanzas: stanzas(&text)?.iter().map(Stanza::element).collect(),
                any_order: verb != "receives",
            },
            _ => match verb.strip_prefix("'s stream ends with ") {
                Some(condition) => What::Ends(condition.trim().to_owned()),
                None => return Err(format!("`{verb}`: no step of this form").into()),
            },
        };
        self.script.steps.push(Step { file: path.into(), line, who, only, what });
        Ok(())
    }
}

/// The stanzas of a block of XML, as on a client's stream.
pub(super) fn stanzas(text: &str) -> Result<Vec<Stanza>, String> {
    let mut header = Writer::new();
    header.open("stream:stream", ns::CLIENT).attr("xmlns:stream", ns::STREAM);
    let mut framer = Framer::new(Limits::S2S);
    framer.feed(&header.finish_open());
    framer.feed(text.as_bytes());
    let mut found = Vec::new();
    loop {
        match framer.next().map_err(|error| format!("bad XML: {error}"))? {
            Some(Event::Stanza(stanza)) => found.push(stanza),
            Some(Event::StreamOpen(_)) => {}
            Some(Event::StreamClose) => return Err("bad XML: the end of the stream".into()),
            None if framer.buffered() > 0 => return Err("bad XML: an element is not closed".into()),
            None => return Ok(found),
        }
    }
}

/// What is wrong with a line, whose place the caller knows.
enum Wrong {
    Here(String),
    Elsewhere(ScriptError),
}

impl Wrong {
    fn at(self, path: &Path, line: usize) -> ScriptError {
        match self {
            Wrong::Here(what) => ScriptError::Line { path: path.into(), line, what },
            Wrong::Elsewhere(error) => error,
        }
    }
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Wrong::Here(what)
    }
}

impl From<&str> for Wrong {
    fn from(what: &str) -> Self {
        Wrong::Here(what.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAST: &str = "Romeo is romeo@example.org/orchard\nJuliet is juliet@example.org/balcony\n";

    fn load(text: &str) -> Result<Script, String> {
        let dir = std::env::temp_dir().join(format!("wire-script-{:x}", rand::random::<u64>()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("friends.txt"), format!("# Friends\n{CAST}Juliet connects\n")).unwrap();
        fs::write(dir.join("loop.txt"), "play loop\n").unwrap();
        let path = dir.join("s.txt");
        fs::write(&path, text).unwrap();
        let names = Names { domain: "localhost".into(), tag: "t1".into() };
        let script = Script::load(&path, &names).map_err(|error| error.to_string());
        fs::remove_dir_all(&dir).unwrap();
        script
    }

    #[test]
    fn a_script_becomes_steps_for_its_accounts() {
        let text = format!(
            "# Title\n# more\n\n{CAST}play friends\nRomeo connects\n\nRomeo sends:\n  <iq to='example.org' id='1' \
             type='get'/>\n\n  <message to='juliet@example.org/balcony'/>\nJuliet receives in any order on Prosody:\n \
             <message/>\nJuliet receives nothing\nJuliet's stream ends with conflict\n"
        );
        let script = load(&text).unwrap();
        assert_eq!((script.title.as_str(), script.name.as_str()), ("Title", "s"));
        assert_eq!(script.accounts, ["romeo.t1", "juliet.t1"]);
        assert_eq!(script.steps.len(), 6);
        let What::Send(sent) = &script.steps[2].what else { panic!("{:?}", script.steps[2]) };
        assert!(
            sent.contains("to='localhost'") && sent.contains("to='juliet.t1@localhost/balcony'"),
            "{sent}"
        );
        assert_eq!(script.steps[3].only.as_deref(), Some("Prosody"));
        assert!(
            matches!(&script.steps[3].what, What::Receive { stanzas, any_order: true } if stanzas.len() == 1)
        );
        assert!(matches!(&script.steps[5].what, What::Ends(condition) if condition == "conflict"));
        assert_eq!(script.middles(), [3, 4, 5]);
        assert!(script.place(2).ends_with("s.txt:9"), "{}", script.place(2));
    }

    #[test]
    fn no_node_is_killed_under_a_stream_that_the_script_runs_itself() {
        let text = format!(
            "{CAST}Juliet opens a stream\nJuliet sends:\n  <r xmlns='urn:xmpp:sm:3'/>\nJuliet loses the connection\n\
             Romeo connects\nJuliet opens a stream\nJuliet disconnects\n"
        );
        assert_eq!(load(&text).unwrap().middles(), [3, 4]);
    }

    #[test]
    fn wrong_lines_are_named_with_what_is_wrong() {
        for (text, what) in [
            ("Romeo connects\n", "s.txt:1: no client was introduced"),
            ("Romeo is romeo@example.net/x\n", "user@example.org/resource"),
            (
                "Romeo is romeo@example.org/a\nRomeo is romeo@example.org/b\n",
                "s.txt:2: Romeo is somebody else",
            ),
            ("R is romeo@example.org/a\nR sends:\nR connects\n", "s.txt:2: nothing is indented"),
            ("R is romeo@example.org/a\nR connects\n  <presence/>\n", "s.txt:2: no colon"),
            ("R is romeo@example.org/a\nR sends:\n  <presence>\n", "s.txt:2: bad XML"),
            ("R is romeo@example.org/a\nR sings\n", "`sings`: no step of this form"),
            ("  <presence/>\n", "XML without a step"),
            ("play nothing\n", "nothing.txt"),
            ("play loop\n", "too deep"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(what), "{text:?}: {error}");
        }
    }

    #[test]
    fn names_go_to_the_server_and_back() {
        let names = Names { domain: "localhost".into(), tag: "t9".into() };
        let script = "<a to='romeo@example.org/x' from='example.org'/>";
        assert_eq!(names.to_server(script), "<a to='romeo.t9@localhost/x' from='localhost'/>");
        assert_eq!(names.to_script(&names.to_server(script)), script);
    }
}
