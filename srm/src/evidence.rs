//! Evidence of the peer's death (R9): positive and at once, or silence on every path. Pure; fed by the node.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;

pub use crate::sockets::Probe;

/// Why the peer is held to be gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// It said goodbye, refuses on every port while its host answers, or came back as another process.
    Dead,
    /// Nothing was heard by any path.
    Silent,
}

/// Ticks within which a client's proof must come (1 s).
const VOUCH_TICKS: u32 = 4;
/// Ticks for which answers are waited for before clients of a silent peer are asked anew (2 s).
const WAIT_TICKS: u32 = 8;

/// Settings, in ticks of 250 ms.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Silence after which the peer is gone (keep-alive time-out, 60 s).
    pub silence: u32,
    /// Silence after which parked clients are believed (10 s).
    pub quick: u32,
    /// Silence after a start (initialization time-out, 120 s).
    pub init: u32,
    /// So many clients that lost the peer and call here are believed as parked ones are; 0: none are.
    pub callers: u32,
}

/// Probes in a row at most after the link ended; two tries of one are 20 ms apart.
const TRIES: u8 = 10;

/// What is known of the peer.
#[derive(Debug)]
pub struct Evidence {
    cfg: Config,
    /// Ticks since anything authentic was heard.
    silent: u32,
    heard_once: bool,
    link_ended: bool,
    /// A probe is under way, and nothing was heard since it began.
    probing: bool,
    /// The present question to parked clients, who was asked, who answered, and whether anybody vouched.
    question: Option<String>,
    asked: usize,
    answered: BTreeSet<u64>,
    vouched: bool,
    /// Ticks since a client last vouched, whatever the question; none ever did: `u32::MAX`.
    vouch_age: u32,
    /// Ticks since the question.
    question_age: u32,
    gone: Option<Gone>,
    /// Probes since the link was up.
    tries: u8,
    /// See [`Evidence::try_again`].
    unsure: bool,
    /// See [`Evidence::called`].
    callers: u32,
    /// They decided it.
    by_callers: bool,
}

impl Evidence {
    /// Nothing is known.
    pub fn new(cfg: Config) -> Evidence {
        Evidence {
            cfg,
            silent: 0,
            heard_once: false,
            link_ended: false,
            probing: false,
            question: None,
            asked: 0,
            answered: BTreeSet::new(),
            vouched: false,
            vouch_age: u32::MAX,
            question_age: 0,
            gone: None,
            tries: 0,
            unsure: false,
            callers: 0,
            by_callers: false,
        }
    }

    /// Other times from now on.
    pub fn tune(&mut self, cfg: Config) {
        self.cfg = cfg;
    }

    /// An authentic beacon came.
    pub fn heard(&mut self) {
        self.silent = 0;
        self.heard_once = true;
        self.probing = false;
        self.unsure = false;
        self.callers = 0;
        self.gone = None;
    }

    /// The link came up with a greeting of the peer.
    pub fn link_up(&mut self) {
        self.link_ended = false;
        self.tries = 0;
    }

    /// The link ended by FIN or RST.
    pub fn link_ended(&mut self) {
        self.link_ended = true;
    }

    /// Whether a probe may begin now: the link ended, or never was (a start beside a dead peer).
    pub fn may_probe(&self) -> bool {
        !self.probing && self.gone.is_none() && (self.link_ended || !self.heard_once)
    }

    /// Whether a look at the peer makes sense now although its link is still up: a client has lost it.
    pub fn may_look(&self) -> bool {
        !self.probing && self.gone.is_none() && self.heard_once
    }

    /// A probe begins: `asked` parked clients get the question `nonce`.
    pub fn begin(&mut self, nonce: String, asked: usize) {
        self.probing = true;
        self.question = Some(nonce);
        self.asked = asked;
        self.answered.clear();
        self.vouched = false;
        self.question_age = 0;
    }

    /// The present question.
    pub fn question(&self) -> Option<&str> {
        self.question.as_deref()
    }

    /// A parked client answered; `proof`: with a proof that is right.
    pub fn report(&mut self, client: u64, proof: bool) {
        self.answered.insert(client);
        if proof && self.question_age <= VOUCH_TICKS {
            self.vouched = true;
            self.vouch_age = 0;
        }
    }

    /// Both probes are back. No answer of a client is no vouch. Refusals are no proof while the link has not ended: what
    /// refuses may be a filter.
    pub fn probed(&mut self, probes: [Probe; 2]) -> Option<Gone> {
        if !std::mem::take(&mut self.probing) {
            return None;
        }
        let refused = probes.iter().all(|p| p.life_refused && p.beacon_refused);
        let ended = self.link_ended || !self.heard_once;
        self.tries = self.tries.saturating_add(1);
        self.unsure = self.link_ended && !refused && !self.vouched && self.tries < TRIES;
        (refused && ended && !self.vouched).then(|| self.conclude(Gone::Dead))
    }

    /// Whether the last probe, after the link ended, found the peer half there: a process that dies closes its sockets one
    /// after the other. Then the next look is due at once, under the same question; a few times.
    pub fn try_again(&mut self) -> bool {
        let again = std::mem::take(&mut self.unsure) && self.gone.is_none();
        self.probing |= again;
        again
    }

    /// The peer said goodbye, or came back as another process.
    pub fn dead(&mut self) -> Gone {
        self.conclude(Gone::Dead)
    }

    fn conclude(&mut self, gone: Gone) -> Gone {
        self.gone = Some(gone);
        gone
    }

    /// So many accounts of the peer have called here since it is silent, with sessions that they had there.
    pub fn called(&mut self, callers: u32) {
        self.callers = callers;
    }

    /// How many did, if they are enough to be believed.
    pub fn callers(&self) -> Option<u32> {
        Some(self.callers).filter(|callers| self.cfg.callers > 0 && *callers >= self.cfg.callers)
    }

    /// Whether it was they who showed that the peer is gone.
    pub fn by_callers(&self) -> bool {
        self.by_callers && self.gone == Some(Gone::Silent)
    }

    /// Time passed. `late`: this process was paused; what it did not hear meanwhile is no silence (R5).
    pub fn ticks(&mut self, late: bool) -> Option<Gone> {
        if late {
            self.silent = 0;
            self.question_age = self.question_age.saturating_add(8);
            return None;
        }
        self.silent = self.silent.saturating_add(1);
        self.question_age = self.question_age.saturating_add(1);
        self.vouch_age = self.vouch_age.saturating_add(1);
        if self.gone.is_some() || !self.heard_once {
            return None;
        }
        if self.vouch_is_fresh() {
            return None;
        }
        if self.silent >= self.cfg.silence {
            return Some(self.conclude(Gone::Silent));
        }
        // Whoever was asked when it became silent has had the time to vouch.
        if self.silent > self.cfg.quick + VOUCH_TICKS && self.callers().is_some() {
            self.by_callers = true;
            return Some(self.conclude(Gone::Silent));
        }
        let answers = self.asked > 0 && self.answered.len() >= self.asked.min(3);
        let had_time = (VOUCH_TICKS + 1..=WAIT_TICKS).contains(&self.question_age);
        if self.silent >= self.cfg.quick && answers && had_time {
            return Some(self.conclude(Gone::Silent));
        }
        None
    }

    /// Whether parked clients are to be asked now because the peer is silent.
    pub fn wants_reports(&self) -> bool {
        let silent = self.silent >= self.asks_from() && self.heard_once && self.gone.is_none();
        silent && (self.question.is_none() || self.question_age > WAIT_TICKS)
    }

    /// Whether the initialization time-out has passed without a word.
    pub fn init_timeout(&self) -> bool {
        self.silent >= self.cfg.init
    }

    /// Whether the peer is held to be gone, and why.
    pub fn gone(&self) -> Option<Gone> {
        self.gone
    }

    /// Ticks since the peer was heard; `None`: never.
    pub fn silent(&self) -> Option<u32> {
        self.heard_once.then_some(self.silent)
    }

    /// A client vouched for the peer although it is silent here: only the path between the nodes is down.
    pub fn only_path_down(&self) -> bool {
        self.silent >= self.asks_from() && self.vouch_is_fresh()
    }

    /// Clients are asked early enough that those who can vouch have done so when the peer would be held to be gone.
    fn asks_from(&self) -> u32 {
        self.cfg.quick.min(self.cfg.silence.saturating_sub(2 * (VOUCH_TICKS + 1)))
    }

    /// While the peer is silent, a question follows the last one: a vouch holds until the next two could have brought
    /// another. It does not lapse because a question was just asked and nobody had the time to answer it.
    fn vouch_is_fresh(&self) -> bool {
        self.vouch_age <= 2 * (WAIT_TICKS + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CFG: Config = Config { silence: 240, quick: 40, init: 480, callers: 3 };
    const REFUSED: Probe = Probe { life_refused: true, beacon_refused: true };

    fn heard() -> Evidence {
        let mut e = Evidence::new(CFG);
        e.heard();
        e
    }

    #[test]
    fn refusals_kill_only_after_the_link_ended_and_twice() {
        let mut e = heard();
        assert!(!e.may_probe(), "the link is up");
        e.link_ended();
        assert!(e.may_probe());
        for (life_refused, beacon_refused) in [(true, false), (false, true), (false, false)] {
            e.begin("n".into(), 0);
            assert_eq!(e.probed([REFUSED, Probe { life_refused, beacon_refused }]), None);
        }
        e.begin("n".into(), 0);
        assert_eq!(e.probed([REFUSED, REFUSED]), Some(Gone::Dead));
    }

    #[test]
    fn a_peer_that_is_half_gone_is_looked_at_again_at_once_and_not_for_ever() {
        let mut e = heard();
        e.begin("n".into(), 0);
        assert_eq!(e.probed([Probe::default(); 2]), None);
        assert!(!e.try_again(), "its link is up");
        e.link_ended();
        e.begin("m".into(), 0);
        assert_eq!(e.probed([Probe::default(), REFUSED]), None);
        assert!(e.try_again());
        assert!(!e.may_probe(), "under way");
        assert_eq!(e.probed([REFUSED, REFUSED]), Some(Gone::Dead));
        let mut e = heard();
        e.link_ended();
        e.begin("n".into(), 0);
        let again = (0..100).take_while(|_| e.probed([Probe::default(); 2]).is_none() && e.try_again());
        assert_eq!(again.count(), usize::from(TRIES) - 1);
        // A long partition: looks go on, each alone.
        for _ in 0..1_000 {
            e.begin("o".into(), 0);
            assert_eq!(e.probed([Probe::default(); 2]), None);
            assert!(!e.try_again());
        }
    }

    #[test]
    fn a_look_at_a_lost_clients_word_kills_nobody_whose_link_is_up() {
        let mut e = heard();
        assert!(e.may_look() && !e.may_probe());
        e.begin("n".into(), 0);
        assert!(!e.may_look(), "one look at a time");
        assert_eq!(e.probed([REFUSED, REFUSED]), None, "the link is up");
        e.begin("m".into(), 0);
        e.link_ended();
        assert_eq!(e.probed([REFUSED, REFUSED]), Some(Gone::Dead), "it ended meanwhile");
    }

    #[test]
    fn a_beacon_or_a_vouch_during_the_probe_saves_the_peer() {
        let mut e = heard();
        e.link_ended();
        e.begin("n".into(), 1);
        e.heard();
        assert_eq!(e.probed([REFUSED, REFUSED]), None);
        e.begin("m".into(), 1);
        e.report(1, true);
        assert_eq!(e.probed([REFUSED, REFUSED]), None);
        e.begin("o".into(), 1);
        e.report(1, false);
        assert_eq!(e.probed([REFUSED, REFUSED]), Some(Gone::Dead), "a word without a proof saves nobody");
    }

    #[test]
    fn silence_takes_the_keep_alive_time_out_without_clients() {
        let mut e = heard();
        let first = (1..=300).find(|_| e.ticks(false).is_some());
        assert_eq!(first, Some(240));
        assert_eq!(e.gone(), Some(Gone::Silent));
    }

    #[test]
    fn silence_takes_ten_seconds_when_clients_confirm_it() {
        let mut e = heard();
        for _ in 0..40 {
            assert_eq!(e.ticks(false), None);
        }
        assert!(e.wants_reports());
        e.begin("n".into(), 5);
        e.report(0, false);
        e.report(1, false);
        for _ in 0..=VOUCH_TICKS {
            assert_eq!(e.ticks(false), None, "two of five are not enough");
        }
        e.report(2, false);
        assert_eq!(e.ticks(false), Some(Gone::Silent));
        let mut e = heard();
        (0..40).for_each(|_| assert_eq!(e.ticks(false), None));
        e.begin("m".into(), 5);
        (0..3).for_each(|client| e.report(client, false));
        for _ in 0..VOUCH_TICKS {
            assert_eq!(e.ticks(false), None, "the fourth has a second to vouch");
        }
        assert_eq!(e.ticks(false), Some(Gone::Silent));
    }

    #[test]
    fn clients_that_call_here_are_believed_after_ten_seconds_unless_one_vouches() {
        for (enough, callers) in [(3, 3), (3, 2), (0, 9)] {
            let mut e = Evidence::new(Config { callers: enough, ..CFG });
            e.heard();
            e.called(callers);
            let first = (1..=239).find(|_| e.ticks(false).is_some());
            assert_eq!(first, (callers == enough).then_some(45), "{callers} of {enough}");
        }
        let mut e = heard();
        e.called(3);
        assert_eq!(asked(&mut e, 200, Some(2)).0, None, "the peer lives");
        assert!(!e.by_callers());
        assert!(asked(&mut e, 30, None).0.is_some() && e.by_callers(), "it has died");
        e.heard();
        assert_eq!(e.callers(), None, "it is there again");
    }

    #[test]
    fn a_pause_of_our_own_is_no_silence_of_the_peer() {
        let mut e = heard();
        for _ in 0..239 {
            e.ticks(false);
        }
        assert_eq!(e.ticks(true), None);
        assert_eq!(e.ticks(false), None);
    }

    /// Ticks of a silent peer, with the questions that the node asks then, each answered with a proof after `answer` ticks:
    /// when the peer was held to be gone, and how often it was found anew that only the path is down.
    fn asked(e: &mut Evidence, ticks: u32, answer: Option<u32>) -> (Option<u32>, u32) {
        let (mut found, mut shown) = (0, e.only_path_down());
        for n in 1..=ticks {
            if e.ticks(false).is_some() {
                return (Some(n), found);
            }
            if e.wants_reports() {
                e.begin(n.to_string(), 1);
            }
            if e.question.is_some() && answer == Some(e.question_age) {
                e.report(7, true);
            }
            found += u32::from(e.only_path_down() && !shown);
            shown = e.only_path_down();
        }
        (None, found)
    }

    #[test]
    fn a_client_that_vouches_keeps_a_silent_peer_alive_for_as_long_as_it_does() {
        // The shortest keep-alive time-out, and the product's own.
        let short = Config { silence: 25, quick: 25, ..CFG };
        for (cfg, answer) in [short, CFG].into_iter().flat_map(|cfg| (0..=VOUCH_TICKS).map(move |n| (cfg, n)))
        {
            let mut e = Evidence::new(cfg);
            e.heard();
            // An hour: there is always a question that nobody had the time to answer.
            assert_eq!(
                asked(&mut e, 14_400, Some(answer)),
                (None, 1),
                "answers after {answer} ticks, {cfg:?}"
            );
            assert!(e.only_path_down());
            // Then the client is gone as well.
            let (gone, _) = asked(&mut e, 100, None);
            assert!(gone.is_some_and(|ticks| ticks <= 2 * (WAIT_TICKS + 1) + 1), "{gone:?}");
        }
        let mut late = heard();
        assert_eq!(asked(&mut late, 300, Some(VOUCH_TICKS + 1)).0, Some(46), "a proof that is late is none");
    }
}
