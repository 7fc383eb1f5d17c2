//! Chance: people who log in and out, subscribe, change their presence, write and lose their streams, on two nodes of which
//! one dies, while users are handed over. After every step both nodes hold the same, and every client has been given
//! exactly the stanzas that its session numbered; in the end everybody has been shown the present.

use std::collections::BTreeMap;

use xmpp_core::Kind;
use xmpp_core::stanza::Stanza;

use super::{Client, Duo, bare};
use crate::ids::{NodeIx, SmId};
use crate::state::Entry;

const USERS: [&str; 4] =
    ["romeo@example.org", "mercutio@example.org", "juliet@example.org", "nurse@example.org"];

/// A device of a user.
#[derive(Default)]
struct Device {
    full: String,
    client: Option<Client>,
    id: Option<SmId>,
    /// Stanzas that it handled in its session, by number.
    handled: Vec<String>,
    /// What it was last shown, by full JID; unavailable is absent.
    view: BTreeMap<String, String>,
    shows: u32,
}

struct Game {
    duo: Duo,
    devices: Vec<Device>,
    bits: u64,
    /// How often each kind of step was taken.
    steps: BTreeMap<&'static str, u32>,
}

impl Game {
    fn new(seed: u64) -> Game {
        let full = |i: usize| format!("{}/{}", USERS[i / 2], ["desk", "hand"][i % 2]);
        let devices = (0..8).map(|i| Device { full: full(i), ..Device::default() }).collect();
        Game {
            duo: Duo::new(),
            devices,
            bits: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            steps: BTreeMap::new(),
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.bits ^= self.bits << 13;
        self.bits ^= self.bits >> 7;
        self.bits ^= self.bits << 17;
        (self.bits >> 11) as usize % n
    }

    fn count(&mut self, what: &'static str) {
        *self.steps.entry(what).or_default() += 1;
    }

    /// Everybody reads what came; the numbers must be right after every step.
    fn read(&mut self) {
        for device in &mut self.devices {
            let Some(client) = device.client else { continue };
            self.duo.got(client).into_iter().for_each(|stanza| device.take(stanza));
            if self.duo.closed(client).is_some() {
                device.client = None;
                continue;
            }
            let session = self.duo.session(&device.full).unwrap();
            assert_eq!(device.handled.len(), session.sent() as usize, "given to {}", device.full);
            // What waits for its acknowledgement is what the client got under that number.
            for (got, entry) in device.handled[session.acked as usize..].iter().zip(&session.out) {
                match entry {
                    Entry::Stanza { stanza, .. } => assert_eq!(got.as_bytes(), stanza, "{}", device.full),
                    Entry::Gap { about: Some(about) } => {
                        let from = format!("from='{about}'");
                        assert!(
                            got.starts_with("<presence") && got.contains(&from),
                            "{}: {got}",
                            device.full
                        );
                    }
                    Entry::Gap { about: None } => assert!(got.contains("composing"), "{got}"),
                }
            }
        }
    }

    fn login(&mut self, i: usize) {
        self.count("login");
        let full = self.devices[i].full.clone();
        let client = self.duo.bind_sm(&full);
        let id = self.duo.sm_id(&full);
        self.devices[i] = Device { full, client: Some(client), id: Some(id), ..Device::default() };
        if self.below(4) > 0 {
            self.duo.send(client, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
        }
        if self.below(3) == 0 {
            self.duo.send(client, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
        }
        self.presence(i, client);
    }

    fn presence(&mut self, i: usize, client: Client) {
        self.count("presence");
        self.devices[i].shows += 1;
        let (shows, priority) = (self.devices[i].shows, self.below(4) as i32 - 1);
        let text = format!("<presence><status>{shows}</status><priority>{priority}</priority></presence>");
        self.duo.send(client, &text);
    }

    /// A device without a stream comes back: it resumes, or it begins anew, or it stays away.
    fn come_back(&mut self, i: usize) {
        let full = self.devices[i].full.clone();
        let mine = self.devices[i].id.filter(|id| self.duo.state().session(*id).is_some());
        match (mine, self.below(4)) {
            (_, 0) => {}
            (Some(id), 1 | 2) => {
                self.count("resume");
                let h = self.devices[i].handled.len() as u32;
                let (client, told) = self.duo.resume(id, full.split('/').next().unwrap(), h);
                self.devices[i].client = Some(client);
                told.into_iter().for_each(|stanza| self.devices[i].take(stanza));
            }
            _ => self.login(i),
        }
    }

    fn step(&mut self) {
        let i = self.below(self.devices.len());
        let Some(client) = self.devices[i].client else { return self.come_back(i) };
        let other = USERS[self.below(4)];
        let ask = ["subscribe", "subscribed", "unsubscribe", "unsubscribed"];
        match self.below(20) {
            0..=4 => self.presence(i, client),
            5..=9 => {
                self.count("subscription");
                let ask = ask[[0, 0, 0, 1, 1, 1, 2, 3][self.below(8)]];
                self.duo.send(client, &format!("<presence to='{other}' type='{ask}'/>"));
            }
            10 => {
                self.count("removal");
                let item = format!("<item jid='{other}' subscription='remove'/>");
                self.duo.send(
                    client,
                    &format!("<iq type='set' id='x'><query xmlns='jabber:iq:roster'>{item}</query></iq>"),
                );
            }
            11 | 12 => {
                self.count("message");
                let to = if self.below(2) == 0 { other.to_owned() } else { self.some_device() };
                let inside = match self.below(3) {
                    0 => "<composing xmlns='http://jabber.org/protocol/chatstates'/>",
                    _ => "<body>x</body>",
                };
                self.duo.send(client, &format!("<message to='{to}' type='chat'>{inside}</message>"));
            }
            13 | 14 => {
                self.count("lost stream");
                self.duo.drop_tcp(client);
                self.devices[i].client = None;
            }
            15 => {
                self.count("unavailable");
                self.duo.send(client, "<presence type='unavailable'/>");
                // Whoever is not available is shown nothing: what it knew is void.
                self.duo.got(client).into_iter().for_each(|stanza| self.devices[i].take(stanza));
                self.devices[i].view.clear();
            }
            16 => {
                self.count("logout");
                self.duo.close(client);
                (self.devices[i].client, self.devices[i].id) = (None, None);
            }
            17 => {
                self.count("acknowledgement");
                self.duo.send(
                    client,
                    &format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.devices[i].handled.len()),
                );
            }
            18 => {
                self.count("time");
                let ms = [1_000, 100_000, 301_000][self.below(3)];
                self.duo.after(ms);
            }
            _ => {}
        }
    }

    fn some_device(&mut self) -> String {
        let i = self.below(self.devices.len());
        self.devices[i].full.clone()
    }

    /// Users of a node lose their streams: it died, or they were handed over.
    fn lose_streams(&mut self, of: &[&str]) {
        for device in self.devices.iter_mut().filter(|d| of.iter().any(|user| d.full.starts_with(user))) {
            device.client = None;
        }
    }

    /// Everybody who is available has been shown the present of those whom they see, and nothing of others.
    fn judge(&mut self, seed: u64) {
        let mut seen = 0;
        for device in self.devices.iter().filter(|d| d.client.is_some()) {
            let Some(s) = self.duo.session(&device.full).filter(|s| s.priority.is_some()) else { continue };
            for other in self.devices.iter().filter(|other| other.full != device.full) {
                let user = bare(other.full.split('/').next().unwrap());
                let sees = user == s.user || {
                    let roster = |user| &self.duo.state().user(user).unwrap().roster;
                    let sees = roster(&s.user).subscription(&user).sees();
                    assert_eq!(
                        sees,
                        roster(&user).subscription(&s.user).is_seen(),
                        "rosters disagree, seed {seed}"
                    );
                    sees
                };
                let now = self.duo.session(&other.full).filter(|s| s.visible && s.priority.is_some());
                let now = now.filter(|_| sees).map(|s| String::from_utf8(s.presence.to_vec()).unwrap());
                let now = now.map(|text| content(&Stanza::parse(text.as_bytes()).unwrap()));
                // Bound anew and without presence yet: contacts go on believing in what was before.
                let held = self.duo.session(&other.full).is_some_and(|s| s.visible && s.priority.is_none());
                if !held {
                    let shown = device.view.get(&other.full).cloned();
                    assert_eq!(shown, now, "{} of {}, seed {seed}", device.full, other.full);
                    seen += u32::from(now.is_some() && user != s.user);
                }
            }
        }
        *self.steps.entry("contact seen").or_default() += seen;
    }
}

fn content(presence: &Stanza) -> String {
    presence.child("jabber:client", "status").map(|s| s.text).unwrap_or_default()
}

impl Device {
    fn take(&mut self, text: String) {
        self.note(&Stanza::parse(text.as_bytes()).unwrap());
        self.handled.push(text);
    }

    fn note(&mut self, stanza: &Stanza) {
        if stanza.head.kind != Kind::Presence {
            return;
        }
        let from = stanza.head.from.as_ref().unwrap().to_string();
        match stanza.head.type_.as_deref() {
            None => _ = self.view.insert(from, content(stanza)),
            Some("unavailable") => _ = self.view.remove(&from),
            Some(_) => {}
        }
    }
}

fn play(seed: u64, steps: &mut BTreeMap<&'static str, u32>) {
    let mut game = Game::new(seed);
    let dies = if game.below(3) > 0 { Some(NodeIx::BOTH[game.below(2)]) } else { None };
    let moves = game.below(150);
    for step in 0..150 {
        game.step();
        game.read();
        if step == moves {
            let user = USERS[game.below(4)];
            game.count("hand-over");
            game.duo.hand_over(user);
            game.lose_streams(&[user]);
        }
        if let Some(node) = dies.filter(|_| step == 90) {
            game.count("death");
            let owned = |user: &&str| game.duo.state().owner_of(&bare(user)) == Some(node);
            let of: Vec<&str> = USERS.into_iter().filter(owned).collect();
            game.duo.kill(node);
            game.lose_streams(&of);
        }
        game.read();
        game.judge(seed);
    }
    for (what, count) in game.steps {
        *steps.entry(what).or_default() += count;
    }
}

#[test]
fn eighty_games_of_chance() {
    let mut steps = BTreeMap::new();
    (0..80).for_each(|seed| play(seed, &mut steps));
    for what in [
        "contact seen",
        "login",
        "resume",
        "removal",
        "subscription",
        "message",
        "hand-over",
        "death",
        "lost stream",
    ] {
        assert!(steps.get(what).is_some_and(|n| *n >= 40), "{what} is rare: {steps:?}");
    }
}
