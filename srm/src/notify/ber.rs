//! The few values of ASN.1 that a trap is made of, in BER (X.690; RFC 3417 section 8: lengths in the definite form).

/// Tag of a SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// TimeTicks of RFC 2578 section 7.1.8.
const TIME_TICKS: u8 = 0x43;

/// A value that holds others, or any other with this tag.
pub(super) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match content.len() {
        short @ 0..=0x7f => bytes.push(short as u8),
        long => {
            let length = long.to_be_bytes();
            let from = length.iter().position(|byte| *byte != 0).unwrap_or(0);
            bytes.push(0x80 | (length.len() - from) as u8);
            bytes.extend(&length[from..]);
        }
    }
    bytes.extend(content);
    bytes
}

/// INTEGER, in as few bytes as hold it (X.690 section 8.3.2).
pub(super) fn integer(number: i32) -> Vec<u8> {
    value(INTEGER, shortest(&i64::from(number).to_be_bytes()))
}

/// TimeTicks: hundredths of a second.
pub(super) fn time_ticks(hundredths: u32) -> Vec<u8> {
    value(TIME_TICKS, shortest(&i64::from(hundredths).to_be_bytes()))
}

/// OCTET STRING.
pub(super) fn octets(bytes: &[u8]) -> Vec<u8> {
    value(OCTET_STRING, bytes)
}

/// OBJECT IDENTIFIER of at least two arcs, the first 0 to 2, the second below 40 unless the first is 2 (X.690 section
/// 8.19).
pub(super) fn oid(arcs: &[u32]) -> Vec<u8> {
    let first = |at: usize| u64::from(arcs.get(at).copied().unwrap_or(0));
    let mut content = Vec::new();
    let rest = arcs.iter().skip(2).map(|arc| u64::from(*arc));
    for arc in std::iter::once(first(0) * 40 + first(1)).chain(rest) {
        // Seven bits a byte, the first ones first; all but the last byte bear the eighth.
        let bytes = (64 - arc.max(1).leading_zeros()).div_ceil(7);
        let byte = |at: u32| ((arc >> (7 * at)) & 0x7f) as u8 | if at == 0 { 0 } else { 0x80 };
        content.extend((0..bytes).rev().map(byte));
    }
    value(OBJECT_IDENTIFIER, &content)
}

/// Without leading bytes that say nothing: the first nine bits must not be equal.
fn shortest(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [first, second, ..] = rest
        && (*first == 0 && second & 0x80 == 0 || *first == 0xff && second & 0x80 != 0)
    {
        rest = &rest[1..];
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_take_as_few_bytes_as_hold_them() {
        for (number, content) in [
            (0, vec![0]),
            (127, vec![0x7f]),
            (128, vec![0, 0x80]),
            (256, vec![1, 0]),
            (-1, vec![0xff]),
            (-128, vec![0x80]),
            (-129, vec![0xff, 0x7f]),
            (i32::MAX, vec![0x7f, 0xff, 0xff, 0xff]),
        ] {
            assert_eq!(integer(number)[2..], content, "{number}");
        }
        assert_eq!(time_ticks(u32::MAX), [0x43, 5, 0, 0xff, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn object_identifiers_are_as_in_the_examples_of_the_standard() {
        // X.690 section 8.19.5.
        assert_eq!(oid(&[2, 100, 3]), [6, 3, 0x81, 0x34, 3]);
        // netSnmpPlaypen, 1.3.6.1.4.1.8072.9999.9999.
        let playpen = [6, 11, 0x2b, 6, 1, 4, 1, 0xbf, 8, 0xce, 0x0f, 0xce, 0x0f];
        assert_eq!(oid(&[1, 3, 6, 1, 4, 1, 8072, 9999, 9999]), playpen);
        assert_eq!(oid(&[1, 3, 0, u32::MAX])[2..], [0x2b, 0, 0x8f, 0xff, 0xff, 0xff, 0x7f]);
    }

    #[test]
    fn lengths_are_short_up_to_127_and_long_above() {
        assert_eq!(octets(&[7; 127])[..2], [4, 127]);
        assert_eq!(octets(&[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(octets(&[7; 435])[..4], [4, 0x82, 1, 0xb3]);
    }
}
