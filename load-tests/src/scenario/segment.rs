//! A TCP segment that comes by half, with what tells both ends that their connection is over. IPv4 only. Pure.

/// Bytes of an IPv4 header without options, and of a TCP header.
const IP: usize = 20;
const TCP: usize = 20;
/// The protocol in the IPv4 header.
const PROTOCOL: u8 = 6;
/// Bits of the flags.
const FIN: u8 = 0x01;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What comes in the place of a segment with data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Torn {
    /// The first half of the data.
    pub(super) half: Vec<u8>,
    /// The end of the connection, to whom the data was sent.
    pub(super) ahead: Vec<u8>,
    /// The same, to whom sent it.
    pub(super) back: Vec<u8>,
}

/// `None` if the packet is no segment of a connection with data.
pub(super) fn tear(packet: &[u8]) -> Option<Torn> {
    let ip = usize::from(packet.first()? & 0x0f) * 4;
    let whole = packet[0] >> 4 == 4 && packet.len() >= ip + TCP && ip >= IP && packet[9] == PROTOCOL;
    // No piece of a larger packet: neither more to come nor an offset.
    let whole = whole && packet[6] & 0x3f == 0 && packet[7] == 0;
    if !whole || usize::from(u16_at(packet, 2)) != packet.len() {
        return None;
    }
    let (tcp, flags) = (&packet[ip..], packet[ip + 13]);
    let head = ip + usize::from(tcp[12] >> 4) * 4;
    let data = packet.len().checked_sub(head).filter(|data| *data > 0 && flags & ACK != 0)?;
    let mut half = packet[..head + data / 2].to_vec();
    half[ip + 13] &= !FIN;
    seal(&mut half, ip);
    // Only a reset with the number that is next is taken at its word.
    let next = u32_at(tcp, 4).wrapping_add((data / 2) as u32);
    let (from, to) = (&packet[12..16], &packet[16..20]);
    let (from_port, to_port) = (&tcp[..2], &tcp[2..4]);
    let ahead = reset([from, to], [from_port, to_port], next);
    let back = reset([to, from], [to_port, from_port], u32_at(tcp, 8));
    Some(Torn { half, ahead, back })
}

fn reset(addresses: [&[u8]; 2], ports: [&[u8]; 2], number: u32) -> Vec<u8> {
    let mut packet = vec![0; IP + TCP];
    packet[0] = 0x45;
    packet[8] = 64;
    packet[9] = PROTOCOL;
    packet[12..16].copy_from_slice(addresses[0]);
    packet[16..20].copy_from_slice(addresses[1]);
    packet[IP..IP + 2].copy_from_slice(ports[0]);
    packet[IP + 2..IP + 4].copy_from_slice(ports[1]);
    packet[IP + 4..IP + 8].copy_from_slice(&number.to_be_bytes());
    packet[IP + 12] = (TCP as u8 / 4) << 4;
    packet[IP + 13] = RST;
    seal(&mut packet, IP);
    packet
}

/// Length and checksums.
fn seal(packet: &mut [u8], ip: usize) {
    let (all, tcp) = (packet.len() as u16, (packet.len() - ip) as u16);
    packet[2..4].copy_from_slice(&all.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..ip]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[ip + 16..ip + 18].fill(0);
    let protocol = [[0, PROTOCOL], tcp.to_be_bytes()].concat();
    let sum = checksum(&[&packet[12..20], &protocol, &packet[ip..]]);
    packet[ip + 16..ip + 18].copy_from_slice(&sum.to_be_bytes());
}

/// The checksum of the Internet (RFC 1071) over parts, of which only the last may have an odd length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment from 10.0.0.1 port 1 to 10.0.0.2 port 2 with number 100, acknowledging 900.
    fn segment(flags: u8, data: &[u8]) -> Vec<u8> {
        let mut packet = reset([&[10, 0, 0, 1], &[10, 0, 0, 2]], [&[0, 1], &[0, 2]], 100);
        packet[IP + 8..IP + 12].copy_from_slice(&900_u32.to_be_bytes());
        packet[IP + 13] = flags;
        packet.extend(data);
        seal(&mut packet, IP);
        packet
    }

    /// A packet with right checksums sums up to nothing.
    fn is_sealed(packet: &[u8]) -> bool {
        let tcp = ((packet.len() - IP) as u16).to_be_bytes();
        checksum(&[&packet[..IP]]) == 0
            && checksum(&[&packet[12..20], &[0, PROTOCOL], &tcp, &packet[IP..]]) == 0
    }

    #[test]
    fn half_of_it_comes_and_resets_with_the_numbers_that_are_next() {
        let torn = tear(&segment(ACK | FIN, b"12345")).unwrap();
        assert_eq!(torn.half, segment(ACK, b"12"));
        assert_eq!(u32_at(&torn.ahead, IP + 4), 102);
        assert_eq!((&torn.ahead[12..16], &torn.ahead[16..20]), (&[10, 0, 0, 1][..], &[10, 0, 0, 2][..]));
        assert_eq!(u32_at(&torn.back, IP + 4), 900);
        assert_eq!(
            (&torn.back[12..20], &torn.back[IP..IP + 4]),
            (&[10, 0, 0, 2, 10, 0, 0, 1][..], &[0, 2, 0, 1][..])
        );
        assert!([&torn.half, &torn.ahead, &torn.back].into_iter().all(|packet| is_sealed(packet)));
    }

    #[test]
    fn nothing_else_is_torn() {
        let good = segment(ACK, b"12");
        assert!(tear(&good).is_some());
        assert_eq!(tear(&segment(ACK, b"")), None, "no data");
        assert_eq!(tear(&segment(0, b"12")), None, "a first segment");
        for (at, byte) in [(0, 0x65), (9, 17), (6, 0x20), (7, 1)] {
            let mut other = good.clone();
            other[at] = byte;
            assert_eq!(tear(&other), None, "byte {at}");
        }
        (0..good.len()).for_each(|bytes| assert_eq!(tear(&good[..bytes]), None));
    }
}
