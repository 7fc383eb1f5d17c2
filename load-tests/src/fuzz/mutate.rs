//! A simple mutator for the short run: what a seed becomes follows from one number.

use crate::pair::rng::Rng;

/// Numbers at the limits of their types, and near them.
const LIMITS: [u64; 12] =
    [0, 1, 127, 128, 255, 256, 65_535, 65_536, 0x7fff_ffff, 0xffff_ffff, 1 << 32, u64::MAX];

/// Mutates one of the seeds. The same number gives the same bytes as long as the seeds are the same.
pub fn case(seeds: &[Vec<u8>], number: u64, longest: usize) -> Vec<u8> {
    let mut rng = Rng::new(number);
    let mut bytes = seeds.get(rng.below(seeds.len().max(1))).cloned().unwrap_or_default();
    for _ in 0..rng.range(1, 6) {
        step(&mut bytes, seeds, &mut rng);
    }
    bytes.truncate(longest);
    bytes
}

fn step(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.below(bytes.len() + 1);
    let end = at + rng.below((bytes.len() - at).min(64) + 1);
    match rng.below(9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        1 if at < bytes.len() => bytes[at] = rng.bits() as u8,
        2 => bytes.insert(at, rng.bits() as u8),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let copy = bytes[at..end].to_vec();
            let to = rng.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        5 => bytes.truncate(at),
        6 => {
            // The beginning of this one, the end of another.
            let other = &seeds[rng.below(seeds.len())];
            let from = rng.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        7 => {
            let number = LIMITS[rng.below(LIMITS.len())].to_le_bytes();
            let width = [1, 2, 4, 8][rng.below(4)];
            let end = bytes.len().min(at + width);
            bytes.splice(at..end, number[..width].iter().copied());
        }
        _ => decimal(bytes, at, rng),
    }
}

/// Puts a limit in the place of the first decimal number behind `at`.
fn decimal(bytes: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    let digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = bytes[at..].iter().position(digit).map(|n| at + n) else { return };
    let length = bytes[start..].iter().take_while(|byte| digit(byte)).count();
    let number = LIMITS[rng.below(LIMITS.len())].to_string();
    bytes.splice(start..start + length, number.into_bytes());
}
