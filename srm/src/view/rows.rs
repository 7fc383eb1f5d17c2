//! How a row is found.

use super::table::{ROWS, Row};
use super::{Facts, Place};

/// The table has one of each.
impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Row {
    /// Whether it names these facts.
    pub(super) fn fits(&self, facts: &Facts) -> bool {
        let w = &self.when;
        let is = |want: Option<bool>, is: bool| want.is_none_or(|want| want == is);
        w.ha == facts.ha
            && w.failed == facts.failed
            && w.place.is_none_or(|place| place == facts.place)
            && is(w.at_home, facts.place == Place::AtHome)
            && (w.causes.is_empty() || w.causes.contains(&facts.cause))
            && is(w.home_heard, facts.home.heard)
            && is(w.home_restarted, facts.home.restarted)
            && is(w.home_serves, facts.home.serves)
            && is(w.backup_heard, facts.backup.heard)
            && is(w.backup_restarted, facts.backup.restarted)
            && is(w.path_down, facts.path_down)
    }

    /// The row of facts that cannot be.
    pub(super) fn of_an_error() -> &'static Row {
        const AT: usize = {
            let mut at = 0;
            while ROWS[at].id != 21 {
                at += 1;
            }
            at
        };
        &ROWS[AT]
    }

    /// Which of two groups' rows says more: the heavier. What a witness is asked and does not answer is no news beside users who
    /// are not served until the operator does something.
    pub(super) fn weight(&self) -> u8 {
        match (self.id, self.when.place) {
            (1 | 120 | 122, _) => 0,
            (_, Some(Place::AtHome)) => 1,
            (_, Some(Place::Nobody)) => 2,
            (_, Some(Place::Taking)) => 3,
            _ => 4,
        }
    }
}
