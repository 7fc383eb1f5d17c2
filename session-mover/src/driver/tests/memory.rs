//! All that inputs need is in memory: once a node has started, none of them waits for a read of the disk (D12).

use presence_engine::engine::Print;
use presence_engine::ids::{Conn, Mode};
use presence_engine::record::Verifiers;
use xmpp_core::stanza::Stanza;

use super::sides::reg;
use super::*;
use crate::store::{Batch, MemoryStore, Pairs, Store, StoreError};

const USERS: usize = 20;

/// A disk that can be written, and, once it is sealed, not be read.
#[derive(Default)]
struct Disk {
    log: MemoryLog,
    store: Sealed,
}

#[derive(Default)]
struct Sealed {
    store: MemoryStore,
    sealed: bool,
    /// Batches that were written.
    batches: usize,
}

impl Sealed {
    fn read(&mut self) -> &mut MemoryStore {
        assert!(!self.sealed, "the store is read");
        &mut self.store
    }
}

impl Store for Sealed {
    fn mark(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.read().mark()
    }
    fn scan(&mut self, after: &[u8], max_bytes: usize) -> Result<Pairs, StoreError> {
        self.read().scan(after, max_bytes)
    }
    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.batches += 1;
        self.store.write(batch)
    }
    fn flush(&mut self) -> Result<(), StoreError> {
        self.store.flush()
    }
    fn clear(&mut self) -> Result<(), StoreError> {
        self.store.clear()
    }
}

impl LogStore for Disk {
    fn append(&mut self, which: Which, at: Position, frame: Bytes) {
        self.log.append(which, at, frame);
    }
    fn read(&mut self, which: Which, from: u64, max_bytes: usize) -> Vec<Bytes> {
        assert!(!self.store.sealed, "a log is read");
        self.log.read(which, from, max_bytes)
    }
    fn replace_tail(&mut self, which: Which, keep: u64, instead: Vec<Bytes>) {
        self.log.replace_tail(which, keep, instead);
    }
    fn sync(&mut self, which: Which) {
        self.log.sync(which);
    }
    fn sync_soon(&mut self, which: Which) {
        self.log.sync_soon(which);
    }
    fn first(&self, which: Which) -> u64 {
        self.log.first(which)
    }
    fn trim(&mut self, which: Which, seq: u64) {
        self.log.trim(which, seq);
    }
    fn begin_at(&mut self, which: Which, next: u64) {
        self.log.begin_at(which, next);
    }
}

impl Storage for Disk {
    fn store(&mut self) -> &mut dyn Store {
        &mut self.store
    }
    fn checkpoint(&mut self, batch: Batch) -> bool {
        self.store.write(batch).is_ok()
    }
    fn note_turn(&mut self, _: &[Print]) {}
}

/// A node without a peer.
struct Node {
    driver: Driver,
    disk: Disk,
    /// Inputs so far; each run begins elsewhere, so that no session has the name of an earlier one.
    inputs: u64,
    /// What clients were told.
    told: BTreeMap<Conn, String>,
}

impl Node {
    fn start(boot: u64, mut disk: Disk) -> Node {
        let driver = driver(NodeIx::A, boot, &mut disk);
        let mut node = Node { driver, disk, inputs: boot * 10_000, told: BTreeMap::new() };
        let own = reg(NodeIx::A, Mode::Solo);
        node.driver.set_view(View {
            regs: [Some(own), None],
            release: [Release::Alone(0), Release::Nothing],
            accept: [false; 2],
        });
        node.input(Input::Lead { group: NodeIx::A, reg: own, late: false });
        node.input(Input::Serving { group: NodeIx::A, on: true });
        node
    }

    /// One turn; what it wrote becomes durable.
    fn input(&mut self, input: Input) {
        self.inputs += 1;
        self.driver.turn(self.inputs * 100, vec![input], &mut self.disk);
        if let Some(at) = self.disk.log.complete_write(Which::Own) {
            self.disk.log.complete_sync(Which::Own);
            self.driver.stored(Which::Own, at, true, &mut self.disk);
        }
        for what in self.driver.take() {
            if let Do::Release(Output::Deliver(conn, said)) = what {
                self.told.entry(conn).or_default().push_str(std::str::from_utf8(&said).unwrap());
            }
        }
    }

    /// A client of this user on a stream.
    fn open(&mut self, user: usize) -> Conn {
        let conn = Conn { node: NodeIx::A, number: self.inputs };
        let entropy = u128::from(self.inputs).to_be_bytes();
        self.input(Input::Opened { conn, user: jid(user), salt: Bytes::new(), entropy, token: None });
        conn
    }

    fn say(&mut self, conn: Conn, xml: &str) {
        self.input(Input::Element { conn, stanza: Stanza::parse(xml.as_bytes()).unwrap() });
    }

    /// It binds a resource, and was told so.
    fn bind(&mut self, user: usize) -> Conn {
        let conn = self.open(user);
        let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind>";
        self.say(conn, &format!("<iq type='set' id='b'>{bind}</iq>"));
        self.heard(conn, &format!("u{user}@d/r"));
        conn
    }

    #[track_caller]
    fn heard(&self, conn: Conn, text: &str) {
        let told = self.told.get(&conn).map_or("", String::as_str);
        assert!(told.contains(text), "{text:?} is not in {told:?}");
    }
}

fn jid(user: usize) -> BareJid {
    BareJid::parse(&format!("u{user}@d")).unwrap()
}

fn next(user: usize) -> usize {
    (user + 1) % USERS
}

fn hello(from: usize) -> String {
    format!("<message to='u{}@d' type='chat'><body>hello from {from}</body></message>", next(from))
}

/// Accounts with a contact each and a message that waits, in a store; the log has lost its beginning.
fn filled() -> Disk {
    let mut node = Node::start(1, Disk::default());
    for user in 0..USERS {
        let verifiers = Verifiers::default();
        node.input(Input::UserAdd { user: jid(user), home: NodeIx::A, verifiers });
    }
    for user in 0..USERS {
        let conn = node.bind(user);
        let item = format!("<query xmlns='jabber:iq:roster'><item jid='u{}@d'/></query>", next(user));
        node.say(conn, &format!("<iq type='set' id='s'>{item}</iq>"));
        node.say(conn, &hello(user));
        node.input(Input::Closed { conn, clean: true });
    }
    for _ in 0..30 {
        node.input(Input::Nothing);
    }
    node.disk
}

/// Everything that the client of an account says in its day.
fn day(node: &mut Node, user: usize) {
    let conn = node.bind(user);
    node.say(conn, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    node.say(conn, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    node.heard(conn, &format!("u{}@d", next(user)));
    node.say(conn, "<presence/>");
    node.heard(conn, &format!("hello from {}", (user + USERS - 1) % USERS));
    node.say(conn, &hello(user));
    node.say(conn, &format!("<presence type='subscribe' to='u{}@d'/>", next(user)));
    node.say(conn, "<iq type='get' id='p' to='d'><ping xmlns='urn:xmpp:ping'/></iq>");
    node.say(
        conn,
        "<iq type='get' id='d' to='d'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    );
    node.heard(conn, "http://jabber.org/protocol/disco#info");
    let session = node.driver.engine().state().user(&jid(user)).unwrap().sessions["r"];
    node.input(Input::Closed { conn, clean: false });
    let again = node.open(user);
    node.say(again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{session}' h='0'/>"));
    node.heard(again, "<resumed");
    node.input(Input::Tick);
    node.input(Input::UserPasswd { user: jid(user), verifiers: Verifiers::default() });
}

#[test]
fn no_input_waits_for_a_read_of_the_disk() {
    let disk = filled();
    assert!(disk.log.first(Which::Own) > 1, "what it has now is in the store alone");
    let mut node = Node::start(2, disk);
    assert_eq!(node.driver.engine().state().users().count(), USERS, "a start reads");
    (node.disk.store.sealed, node.disk.store.batches) = (true, 0);
    let before = node.inputs;
    for user in 0..USERS {
        day(&mut node, user);
    }
    node.input(Input::UserRemove { user: jid(3) });
    assert!(node.inputs - before > 250, "{} inputs are few", node.inputs - before);
    assert!(node.disk.store.batches > 5, "and it was written all the while");
}
