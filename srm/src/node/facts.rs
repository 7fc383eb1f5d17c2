//! The facts that the table of states is about.

use presence_engine::ids::{Group, NodeIx, Reg};

use super::{Event, Moved, Node, Out, Stage};
use crate::beacon::{Activity, Checking, Held, Told};
use crate::evidence::Gone;
use crate::safety::Role;
use crate::view::{self, Cause, Facts, Ha, Place, Seen, Shown};

/// A node whose last word is older is shown as not heard (5 s).
const HEARD_TICKS: u32 = 20;

/// What is kept for the table.
#[derive(Debug)]
pub(super) struct Shows {
    /// Why each group is served by its backup, where that is not in the log.
    causes: [Cause; 2],
    /// This run began after what each group is in: it has not seen the group at home.
    restarted: [bool; 2],
    places: [Place; 2],
    /// Where this run last saw each group at rest: at home or at its backup.
    rested: [Option<Place>; 2],
    /// What the peer told last.
    peer: Told,
    /// Row and group, as they were last told.
    row: Option<(u32, Group)>,
    /// For each group: how its move began.
    began: [Begin; 2],
    /// This run took the group over.
    took: [bool; 2],
    /// How the peer was lost last, since it led its own group: a witness may answer when it is back already.
    lost: Option<Gone>,
    /// The run of the peer that was lost when its users were taken over, until the peer is heard again.
    lost_run: Option<u64>,
    /// If it does, it is by the operator's word: the peer is there.
    pub(super) forced: [bool; 2],
    /// Something happened that may have changed the row: it is not waited for a tick.
    pub(super) look: bool,
    /// Since which tick it is known that the peer serves users of this node, and not why.
    unexplained: Option<u64>,
}

/// How a move of users began.
#[derive(Clone, Copy, Debug, Default)]
struct Begin {
    /// When, by the clock of sessions, in milliseconds; 0: not known here.
    at_ms: u64,
    cause: Cause,
    /// The node at which an operator asked for it.
    asked: Option<NodeIx>,
}

impl Default for Shows {
    fn default() -> Shows {
        Shows {
            causes: [Cause::Nothing; 2],
            restarted: [true; 2],
            places: [Place::Nobody; 2],
            rested: [None; 2],
            peer: Told::default(),
            row: None,
            began: [Begin::default(); 2],
            took: [false; 2],
            lost: None,
            lost_run: None,
            forced: [false; 2],
            look: false,
            unexplained: None,
        }
    }
}

impl Shows {
    /// Of a run that finds this on its disk: why each group was taken over, and the run of the peer that was lost then.
    pub(super) fn since(me: NodeIx, kept: [(Cause, Option<u64>); 2]) -> Shows {
        let lost_run = kept[me.peer().index()].1;
        Shows { causes: kept.map(|(cause, _)| cause), lost_run, ..Shows::default() }
    }
}

impl Node {
    pub(super) fn facts(&self, group: Group) -> Facts {
        // One that said that it restarts is as it was until it is back, or held to be gone.
        let heard = self.hears_peer() || self.peer_restarts && self.evidence.gone().is_none();
        let place = self.place(group, heard);
        let g = group.index();
        let serves = !self.lacks_service();
        let me = Seen { heard: true, restarted: self.shows.restarted[g], serves };
        let told = &self.shows.peer;
        // Whoever moves users knows best whether the other was restarted since it began.
        let restarted = match self.moving.as_ref().filter(|_| self.moves(group)) {
            Some(moving) => self.peer_boot != moving.peer_boot(),
            None => told.restarted[g],
        };
        let peer = Seen { heard, restarted, serves: !told.lacks_service };
        let (home, backup) = if group == self.me { (me, peer) } else { (peer, me) };
        let ha = self.ha_shown(place);
        let path_down = !heard && self.path_down_told;
        let cause = self.cause(group, place);
        Facts {
            ha,
            failed: self.services.failed.filter(|_| ha == Ha::Enabled),
            place,
            cause: shown(place, cause),
            home,
            backup,
            path_down,
        }
    }

    /// High availability begins at one of the nodes: each serves its own users, and both are heard. Anything else is shown as it is.
    pub(super) fn begins_shown(&self) -> bool {
        let heard = self.hears_peer() || self.peer_restarts && self.evidence.gone().is_none();
        let at_home = |g: &NodeIx| self.place(*g, heard) == Place::AtHome;
        let begins = self.is_enabling() || self.shows.peer.checking != Checking::Not;
        begins && self.services.failed.is_none() && heard && NodeIx::BOTH.iter().all(at_home)
    }

    /// The row of this number was told last.
    pub(super) fn has_told(&self, row: u32) -> bool {
        self.shows.row.is_some_and(|(told, _)| told == row)
    }

    /// The peer was heard a moment ago.
    pub(super) fn hears_peer(&self) -> bool {
        self.evidence.silent().is_some_and(|ticks| ticks < HEARD_TICKS) && self.evidence.gone().is_none()
    }

    fn place(&self, group: Group, heard: bool) -> Place {
        let core = &self.cores[group.index()];
        let reg = core.reg();
        let home_is_me = group == self.me;
        let (own, peers) = (self.activity(), self.peer_activity);
        let (home, backup) = if home_is_me { (own, peers) } else { (peers, own) };
        if let Some(place) = view::place_of_move(home, backup).filter(|_| heard || own != Activity::None) {
            return place;
        }
        // Nobody looks for a node that is known to be gone: whoever may not take its users over waits for it.
        let held = if home_is_me { self.held_now() } else { self.shows.peer.held };
        if held != Held::No && (home_is_me || heard) && reg.primary == group && !self.cfg.single {
            return Place::Held;
        }
        let waits = core.starting() || core.role() == Role::Fenced;
        let lost = self.evidence.gone().is_some() || self.evidence.init_timeout();
        let awaited = waits && lost && !home_is_me && reg.primary == group;
        let away = self.driver.engine().state().away(group).is_some();
        // Whether it may serve them is not known while the witness is about to say so.
        let asks = core.asking() && self.witness_decides() == Some(true);
        if waits && !core.starting() && home_is_me && !heard && !asks && !self.cfg.single {
            Place::Waiting
        } else if waits
            && !core.starting()
            && asks
            && self.shows.places[group.index()] == Place::AtHome
            && home_is_me
        {
            // It says so in a moment.
            Place::AtHome
        } else if reg.term.0 != 0 && core.asking() && !home_is_me && reg.primary == group {
            Place::Taking
        } else if awaited && reg.term.0 != 0 {
            Place::AtHome
        } else if reg.term.0 == 0 || waits {
            Place::Nobody
        } else if away && self.lags() {
            // It may be an old word, which the rest of the log takes back.
            self.shows.places[group.index()]
        } else if reg.primary != group || away && !self.cfg.single {
            Place::AtBackup
        } else {
            Place::AtHome
        }
    }

    /// Whether the log has yet to say what the registers say.
    fn lags(&self) -> bool {
        let state = self.driver.engine().state();
        NodeIx::BOTH
            .iter()
            .any(|g| state.lead(*g).map(|reg| reg.term) != Some(self.cores[g.index()].reg().term))
    }

    fn cause(&self, group: Group, place: Place) -> Cause {
        let g = group.index();
        let told = self.told().causes[g];
        let of_peer = self.shows.peer.causes[g];
        let or = |cause: Cause, other: Cause| if cause == Cause::Nothing { other } else { cause };
        // What the peer said last may be of where they were before.
        let fits = place.causes().contains(&shown(place, of_peer));
        let of_move = |other| if fits { of_peer } else { other };
        match place {
            Place::Nobody | Place::Waiting | Place::AtHome => Cause::Nothing,
            Place::Held => {
                let held = if group == self.me { self.held_now() } else { self.shows.peer.held };
                let other = if group == self.me { self.shows.peer.held } else { self.held_now() };
                // Nobody serves, then, whatever the operator forced before.
                let both = other != Held::No && self.hears_peer();
                if held == Held::Forced && !both { Cause::Operator } else { Cause::Nothing }
            }
            Place::Leaving if group == self.me => told,
            Place::Leaving => of_move(Cause::Operator),
            Place::Returning | Place::Recovering if group != self.me => told,
            Place::Returning => of_move(Cause::Operator),
            Place::Recovering => of_move(Cause::Service),
            Place::Taking => self.cause_of_takeover(),
            Place::AtBackup => match self.driver.engine().state().away(group) {
                Some(away) => away.into(),
                None => or(self.shows.causes[g], Cause::PeerReboot),
            },
        }
    }

    fn cause_of_takeover(&self) -> Cause {
        match self.evidence.gone() {
            Some(Gone::Dead) => Cause::PeerReboot,
            None if self.evidence.init_timeout() => Cause::PeerDownDuringInitialization,
            None if self.shows.lost == Some(Gone::Dead) => Cause::PeerReboot,
            Some(Gone::Silent) if self.evidence.by_callers() => Cause::Clients,
            Some(Gone::Silent) | None => Cause::PeerDown,
        }
    }

    /// How the peer was lost.
    pub(super) fn note_loss(&mut self, gone: Gone) {
        self.shows.lost = Some(gone);
    }

    /// Why this node has taken a group over, if this is its register, and the run of the peer that it lost: what the next run has
    /// to know.
    pub(super) fn cause_to_keep(&self, group: Group, reg: Reg) -> (Cause, Option<u64>) {
        if group == self.me || reg.primary != self.me {
            return (Cause::Nothing, None);
        }
        let cause = self.shows.causes[group.index()];
        (cause, self.shows.lost_run.filter(|_| cause.of_table() == Cause::PeerDown))
    }

    /// This node took a group over.
    pub(super) fn note_takeover(&mut self, group: Group) {
        let forced = std::mem::take(&mut self.shows.forced[group.index()]);
        self.shows.causes[group.index()] = if forced { Cause::Operator } else { self.cause_of_takeover() };
        self.shows.took[group.index()] = group != self.me;
        if group != self.me {
            self.shows.lost_run = self.peer_boot;
        }
        let silent_ms = u64::from(self.evidence.silent().unwrap_or(0)) * 250;
        self.shows.began[group.index()].at_ms = self.now_ms.saturating_sub(silent_ms);
        self.shows.look = true;
    }

    /// What this node says for the table.
    pub(super) fn told(&self) -> Told {
        let mut causes = self.shows.causes;
        for group in NodeIx::BOTH.into_iter().filter(|g| self.moves(*g)) {
            causes[group.index()] = self.moving.as_ref().map_or(Cause::Nothing, |moving| moving.cause());
        }
        Told {
            restarted: self.shows.restarted,
            lacks_service: self.lacks_service(),
            crowded: self.storm.crowded,
            disk_stalls: self.disk_alarm().is_some(),
            paused: self.moving.as_ref().and_then(|moving| moving.paused),
            causes,
            failed: self.services.failed,
            ha_off: !self.ha(),
            checking: self.checking(),
            held: self.held_now(),
            knows: self.knows,
            limits: Some(self.storm.own),
            asked: self.moving.as_ref().and_then(|moving| moving.asked()),
        }
    }

    /// Whether this node moves the users of this home.
    fn moves(&self, group: Group) -> bool {
        match self.activity() {
            Activity::None => false,
            Activity::FallingBack | Activity::Recovering => group != self.me,
            Activity::FailingOver | Activity::Leaving => group == self.me,
        }
    }

    /// What the peer told last.
    pub(super) fn peer_told(&self) -> &Told {
        &self.shows.peer
    }

    /// What the peer says for it. Who brought something about knows why; who has forgotten it hears it again.
    pub(super) fn hear_told(&mut self, told: Told) {
        self.shows.look |= self.shows.peer != told;
        self.hear_failure(told.failed, told.ha_off);
        self.hear_limits(told.limits);
        self.shows.peer = told;
        // Whatever becomes of this run from here on, it is not why its users were taken over.
        self.shows.lost_run = None;
        for group in NodeIx::BOTH {
            let g = group.index();
            let brought = self.cores[g].reg().primary != self.me;
            let known = &mut self.shows.causes[g];
            let told =
                Some(told.causes[g]).filter(|c| !matches!(c.of_table(), Cause::Nothing | Cause::Automatic));
            if let Some(cause) = told.filter(|_| brought || *known == Cause::Nothing) {
                *known = cause;
            }
        }
    }

    /// The peer is here as a process that this run has not met. If it had met another one, or the run of this node that took
    /// the peer's users over had lost another one, what was taken for silence was a restart. (Why the peer has taken this
    /// node's users over, the peer knows.)
    pub(super) fn correct_causes(&mut self, met: Option<u64>, boot: u64) {
        let another = met.is_some() || self.shows.lost_run.take().is_some_and(|lost| lost != boot);
        let cause = &mut self.shows.causes[self.me.peer().index()];
        if another && cause.of_table() == Cause::PeerDown {
            *cause = Cause::PeerReboot;
        }
        self.shows.peer.restarted = [true; 2];
    }

    /// Follows where the groups are, and says when another row of the table holds.
    pub(super) fn watch_states(&mut self) {
        // What the peer's log says comes before what its beacons say of the same.
        self.shows.look = self.driver.has_unprocessed();
        if self.shows.look || self.is_unexplained() {
            return;
        }
        for group in NodeIx::BOTH {
            let g = group.index();
            let facts = self.facts(group);
            let place = facts.place;
            let before = std::mem::replace(&mut self.shows.places[g], place);
            self.tell_move(group, before, &facts);
            if matches!(place, Place::AtHome | Place::AtBackup) {
                self.shows.rested[g] = Some(place);
            }
            let settled = matches!(before, Place::AtHome | Place::AtBackup);
            let begins = matches!(place, Place::Leaving | Place::Returning | Place::Recovering);
            let forced = before == Place::Held && place == Place::AtBackup;
            if place == Place::AtHome || settled && begins || forced {
                self.shows.restarted[g] = false;
            }
            if place == Place::AtHome && self.peer_up {
                self.shows.causes[g] = Cause::Nothing;
                self.shows.lost = self.shows.lost.filter(|_| group == self.me || self.cores[g].asking());
                // What is on its way may say that they are not.
                if group != self.me && self.driver.has_all_of_peer() {
                    self.automatic.note_at_home();
                }
            }
        }
        let shown = self.shown();
        let row = (shown.row.id, shown.group);
        if self.shows.row != Some(row) {
            self.shows.row = Some(row);
            self.outs.push(Out::Event(Event::Row(shown)));
        }
    }

    /// Users of this node are served by the peer, which has not said yet why: a register is heard of on more ways than its
    /// reason. It is waited for as long as a word of the peer may take.
    fn is_unexplained(&mut self) -> bool {
        let known = self.shows.causes[self.me.index()] != Cause::Nothing
            || self.driver.engine().state().away(self.me).is_some();
        if known || self.place(self.me, self.hears_peer()) != Place::AtBackup {
            self.shows.unexplained = None;
            return false;
        }
        let since = *self.shows.unexplained.get_or_insert(self.ticks);
        self.ticks < since + u64::from(HEARD_TICKS)
    }

    /// What it means that a group is in another place.
    fn tell_move(&mut self, group: Group, before: Place, facts: &Facts) {
        let g = group.index();
        let known = (self.shows.took[g], self.shows.rested[g]);
        let Some((back, stage)) = step(before, facts.place, known) else { return };
        // In failed mode whoever has moved has; that all have is not so.
        let failed = facts.failed.is_some() && (back, stage) == (false, Stage::Complete);
        let stage = if failed { Stage::Ended } else { stage };
        let began = self.shows.began[g];
        let cause = match self.cause(group, facts.place) {
            // The backup is gone.
            Cause::Nothing if before == Place::AtBackup => match self.shows.causes[group.peer().index()] {
                Cause::Nothing => self.cause_of_takeover(),
                cause => cause,
            },
            Cause::Nothing => began.cause,
            // Not why the users are where they are: why they were to be elsewhere.
            _ if stage == Stage::Ended && began.cause != Cause::Nothing => began.cause,
            // The log knows it as the table does; whoever asked for it knows more, and so does who saw it begin.
            cause
                if group != self.me
                    && cause == Cause::Clients.of_failover()
                    && ![began.cause, self.shows.peer.causes[g]].contains(&cause)
                    && self.has_asked_to_fail_over() =>
            {
                Cause::Clients
            }
            cause if [began.cause.of_table(), began.cause.of_failover()].contains(&cause) => began.cause,
            cause => cause,
        };
        let asked = match stage {
            Stage::Began if self.moves(group) => self.moving.as_ref().and_then(|moving| moving.asked()),
            Stage::Began => self.shows.peer.asked,
            Stage::Complete | Stage::Ended | Stage::Found => began.asked,
        };
        let asked = asked.filter(|_| cause == Cause::Operator);
        let users =
            self.driver.engine().state().users().filter(|(_, user)| user.home == group).count() as u64;
        // Who did not see it begin does not know how long it took.
        let took_ms = match began.at_ms {
            began if began > 0 && matches!(stage, Stage::Complete | Stage::Ended) => {
                Some(self.now_ms.saturating_sub(began))
            }
            _ => None,
        };
        self.shows.took[g] &= stage != Stage::Complete;
        if stage == Stage::Complete {
            self.note_moved(group, back, cause);
        }
        self.shows.began[g] = match stage {
            Stage::Began => Begin { at_ms: self.now_ms, cause, asked },
            Stage::Complete | Stage::Ended | Stage::Found => Begin::default(),
        };
        self.outs.push(Out::Event(Event::Moved(Moved { group, back, stage, cause, asked, users, took_ms })));
    }

    /// Whether the table has a row for what is so: anything else would be shown as an internal error.
    pub fn has_row(&self) -> bool {
        NodeIx::BOTH.iter().all(|g| (self.cfg.single && *g != self.me) || view::has_row(&self.facts(*g)))
    }

    /// States of both nodes, and the row that names them.
    pub fn shown(&self) -> Shown {
        if self.cfg.single {
            let row = view::row(&self.facts(self.me));
            return Shown { states: [row.home; 2], row, group: self.me };
        }
        let facts = NodeIx::BOTH.map(|g| self.facts(g));
        view::shown([&facts[0], &facts[1]])
    }
}

/// What a change of place is: back home or not, and how far. Known is whether this run took the group over, and where it
/// has last seen it at rest.
fn step(before: Place, now: Place, (took, rested): (bool, Option<Place>)) -> Option<(bool, Stage)> {
    use Place::{AtBackup, AtHome, Held, Leaving, Nobody, Recovering, Returning, Taking, Waiting};
    let (back, stage) = match (before, now) {
        (AtHome, Leaving) | (AtHome | Nobody | Waiting | Held, Taking) => (false, Stage::Began),
        (AtHome | Leaving | Taking, AtBackup) => (false, Stage::Complete),
        // A node that was cut off has seen its users at home, and learns now who serves them.
        (Nobody | Waiting | Held, AtBackup) if took || rested == Some(AtHome) => (false, Stage::Complete),
        (Nobody | Waiting | Held, AtBackup) if rested.is_none() => (false, Stage::Found),
        (Leaving | Taking, AtHome) => (false, Stage::Ended),
        (AtBackup, Returning | Recovering) => (true, Stage::Began),
        (AtBackup | Returning | Recovering, AtHome) => (true, Stage::Complete),
        (Returning | Recovering, AtBackup) => (true, Stage::Ended),
        _ => return None,
    };
    Some((back, stage))
}

/// A cause as the rows of the table have it.
fn shown(place: Place, cause: Cause) -> Cause {
    if place == Place::Leaving { cause.of_failover() } else { cause.of_table() }
}
