//! Who chats with whom, and who has which client.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::SliceRandom;

/// A partner for each user, mutual where the number of users is even: about half of the pairs within a node, half
/// across, so that all four combinations of the homes of sender and receiver occur.
pub fn pair_up(homes: &[usize]) -> Vec<usize> {
    let mut partners: Vec<usize> = (0..homes.len()).collect();
    let mut left = Vec::new();
    let mut across: Vec<Vec<usize>> = Vec::new();
    for users in by_home(homes).into_values() {
        // Half of them among themselves, in pairs.
        let within = users.len() / 4 * 2;
        users[..within].chunks_exact(2).for_each(|pair| join(&mut partners, pair[0], pair[1]));
        across.push(users[within..].to_vec());
    }
    // The others with the first of another node that is left.
    while let Some(user) = across.iter_mut().max_by_key(|users| users.len()).and_then(Vec::pop) {
        let home = homes[user];
        let other = across.iter_mut().filter(|users| users.last().is_some_and(|other| homes[*other] != home));
        match other.max_by_key(|users| users.len()).and_then(Vec::pop) {
            Some(other) => join(&mut partners, user, other),
            None => left.push(user),
        }
    }
    left.chunks_exact(2).for_each(|pair| join(&mut partners, pair[0], pair[1]));
    // An odd one writes to somebody who writes to somebody else.
    if let [single] = *left.chunks_exact(2).remainder() {
        partners[single] = if single == 0 { homes.len() - 1 } else { 0 };
    }
    partners
}

/// Which users have a plain client: this share (0 to 1) of each home's, at random.
pub fn choose_plain(homes: &[usize], share: f64, rng: &mut impl Rng) -> Vec<bool> {
    let mut plain = vec![false; homes.len()];
    for mut users in by_home(homes).into_values() {
        users.shuffle(rng);
        // A share of a count of users is far below what a float holds exactly.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let count = (users.len() as f64 * share.clamp(0.0, 1.0)).round() as usize;
        users.iter().take(count).for_each(|user| plain[*user] = true);
    }
    plain
}

fn by_home(homes: &[usize]) -> BTreeMap<usize, Vec<usize>> {
    let mut found: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (user, home) in homes.iter().enumerate() {
        found.entry(*home).or_default().push(user);
    }
    found
}

fn join(partners: &mut [usize], left: usize, right: usize) {
    partners[left] = right;
    partners[right] = left;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn pairs_are_mutual_and_cover_all_four_combinations() {
        for count in [8, 9, 50, 200, 201] {
            let homes: Vec<usize> = (0..count).map(|user| user % 2).collect();
            let partners = pair_up(&homes);
            let odd = (0..count).filter(|user| partners[partners[*user]] != *user).count();
            assert_eq!(odd, count % 2);
            assert!((0..count).all(|user| partners[user] != user));
            let combinations: BTreeSet<_> =
                (0..count).map(|user| (homes[user], homes[partners[user]])).collect();
            assert_eq!(combinations.len(), 4, "{count} users");
        }
    }

    #[test]
    fn uneven_and_single_homes_are_paired_too() {
        for homes in [vec![0; 10], vec![0, 0, 0, 0, 0, 0, 0, 1], vec![0, 1], vec![0, 0, 1]] {
            let partners = pair_up(&homes);
            assert!((0..homes.len()).all(|user| partners[user] != user), "{homes:?} {partners:?}");
        }
        assert_eq!(pair_up(&[0]), [0]);
        assert_eq!(pair_up(&[]), [0; 0]);
    }

    #[test]
    fn plain_clients_are_a_share_of_each_home() {
        let homes: Vec<usize> = (0..200).map(|user| user % 2).collect();
        let plain = choose_plain(&homes, 0.1, &mut StdRng::seed_from_u64(1));
        for home in 0..2 {
            assert_eq!((0..200).filter(|user| plain[*user] && homes[*user] == home).count(), 10);
        }
        assert!(choose_plain(&homes, 1.0, &mut StdRng::seed_from_u64(1)).iter().all(|plain| *plain));
    }
}
