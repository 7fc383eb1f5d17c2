//! Which users have their home at the node that is killed.

use crate::measure::args::Assignment;

/// The node that is killed.
pub const KILLED: usize = 0;
/// The node that is left.
pub const LEFT: usize = 1;

/// The home of each user, at which its first login is.
pub fn home(assignment: Assignment) -> fn(usize) -> usize {
    match assignment {
        Assignment::ActiveStandby => killed,
        Assignment::Balanced => by_turns,
    }
}

fn killed(_user: usize) -> usize {
    KILLED
}

fn by_turns(user: usize) -> usize {
    [KILLED, LEFT][user % 2]
}

/// The node that is not this one.
pub fn other(node: usize) -> usize {
    if node == KILLED { LEFT } else { KILLED }
}

/// How many of so many users move.
pub fn moved(assignment: Assignment, users: usize) -> usize {
    (0..users).map(home(assignment)).filter(|node| *node == KILLED).count()
}

/// What belongs to the users who move, and what to those at home at the node that is left. `user`: whose it is.
pub fn split<T>(all: Vec<T>, assignment: Assignment, user: impl Fn(&T) -> usize) -> (Vec<T>, Vec<T>) {
    let home = home(assignment);
    all.into_iter().partition(|one| home(user(one)) == KILLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_users_move_or_every_second_one() {
        for users in [1, 2, 2_500, 5_000, 15_000, 24_999, 25_000] {
            assert_eq!(moved(Assignment::ActiveStandby, users), users);
            assert_eq!(moved(Assignment::Balanced, users), users.div_ceil(2));
        }
    }

    #[test]
    fn a_split_keeps_everybody_and_puts_each_where_its_home_is() {
        let users = || (0..5).map(|user| (user, "client")).collect::<Vec<_>>();
        let of = |half: Vec<(usize, &str)>| half.into_iter().map(|(user, _)| user).collect::<Vec<_>>();
        let (moving, staying) = split(users(), Assignment::Balanced, |(user, _)| *user);
        assert_eq!((of(moving), of(staying)), (vec![0, 2, 4], vec![1, 3]));
        let (moving, staying) = split(users(), Assignment::ActiveStandby, |(user, _)| *user);
        assert_eq!((of(moving), of(staying)), (vec![0, 1, 2, 3, 4], vec![]));
        assert_eq!([other(KILLED), other(LEFT)], [LEFT, KILLED]);
    }
}
