//! SNMPv2c traps (RFC 3416 section 4.2.6, RFC 1901 section 3) over UDP. docs/TANDEM-MIB.txt says what is in them.

use std::time::Instant;

use super::ber;
use super::task::{Deliver, Failure};
use super::template::{Sender, Template};
use super::text::{clean, cut, timestamp};
use super::udp;
use crate::config::HostPort;
use crate::events::Record;

/// Where the objects and the trap are defined unless the operator says otherwise: in the range that Net-SNMP leaves to
/// experiments (netSnmpPlaypen).
pub const DEFAULT_OID: [u32; 10] = [1, 3, 6, 1, 4, 1, 8072, 9999, 9999, 5222];
/// Longest string in bytes.
const STRING_BYTES: usize = 1024;
/// Version number of SNMPv2c.
const VERSION: i32 = 1;
/// Tag of an SNMPv2-Trap-PDU (RFC 3416 section 3).
const TRAP: u8 = 0xa7;
/// sysUpTime.0 and snmpTrapOID.0 (RFC 3418), the first two of every trap.
const SYS_UP_TIME: [u32; 9] = [1, 3, 6, 1, 2, 1, 1, 3, 0];
const SNMP_TRAP_OID: [u32; 11] = [1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0];
/// Below the enterprise: the trap tandemEvent, and the objects in it.
const EVENT: [u32; 2] = [0, 1];
const OBJECTS: u32 = 1;
/// What stands for a row that there is not.
const NO_ROW: i32 = -1;

/// A receiver of traps.
pub(super) struct Snmp {
    pub at: HostPort,
    pub community: String,
    pub oid: Vec<u32>,
    pub body: Template,
    pub sender: Sender,
    /// Since when this process can tell; for sysUpTime.
    pub up_since: Instant,
    /// Number of the last trap.
    pub request: i32,
}

impl Deliver for Snmp {
    async fn deliver(&mut self, record: &Record) -> Result<(), Failure> {
        self.request = self.request.checked_add(1).unwrap_or(0);
        // Hundredths of a second, which begin anew after 497 days (RFC 2578 section 7.1.8).
        let up = self.up_since.elapsed().as_millis() / 10;
        let trap = self.trap(record, (up % (u128::from(u32::MAX) + 1)) as u32);
        udp::send(&self.at, &trap).await
    }
}

impl Snmp {
    /// The whole message.
    fn trap(&self, record: &Record, up: u32) -> Vec<u8> {
        let text = |text: &str| ber::octets(cut(&clean(text), STRING_BYTES).as_bytes());
        let row = record.row.map_or(NO_ROW, |row| i32::try_from(row).unwrap_or(i32::MAX));
        let objects = [
            text(&record.id()),
            text(&record.node),
            text(&timestamp(record.at_ms)),
            ber::integer(record.severity.syslog().into()),
            text(&record.event),
            ber::integer(row),
            text(&record.cause),
            text(&self.body.fill(record, &self.sender)),
        ];
        let below = |arcs: &[u32]| [self.oid.as_slice(), arcs].concat();
        let mut bindings = binding(&SYS_UP_TIME, &ber::time_ticks(up));
        bindings.extend(binding(&SNMP_TRAP_OID, &ber::oid(&below(&EVENT))));
        for (number, object) in (1..).zip(&objects) {
            // Each is the only one of its kind: its instance is 0.
            bindings.extend(binding(&below(&[OBJECTS, number, 0]), object));
        }
        let no_error = ber::integer(0);
        let bindings = ber::value(ber::SEQUENCE, &bindings);
        let pdu = [ber::integer(self.request), no_error.clone(), no_error, bindings].concat();
        let message = [ber::integer(VERSION), ber::octets(self.community.as_bytes()), ber::value(TRAP, &pdu)];
        ber::value(ber::SEQUENCE, &message.concat())
    }
}

fn binding(name: &[u32], value: &[u8]) -> Vec<u8> {
    ber::value(ber::SEQUENCE, &[ber::oid(name).as_slice(), value].concat())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{record, sender};
    use super::*;

    fn snmp() -> Snmp {
        Snmp {
            at: HostPort { host: "127.0.0.1".into(), port: 162 },
            community: "public".into(),
            oid: DEFAULT_OID.to_vec(),
            body: Template::parse("{text}").unwrap(),
            sender: sender(),
            up_since: Instant::now(),
            request: 5,
        }
    }

    #[test]
    fn a_trap_is_the_bytes_that_the_rfcs_prescribe() {
        let record =
            Record { node: "a".into(), number: 1, event: "e".into(), cause: String::new(), ..record() };
        let trap = snmp().trap(&Record { row: None, text: "t".into(), ..record }, 300);
        let enterprise = [0x2b, 6, 1, 4, 1, 0xbf, 8, 0xce, 0x0f, 0xce, 0x0f, 0xa8, 0x66];
        let mut bindings = vec![0x30, 14, 6, 8, 0x2b, 6, 1, 2, 1, 1, 3, 0, 0x43, 2, 1, 0x2c];
        bindings.extend([0x30, 29, 6, 10, 0x2b, 6, 1, 6, 3, 1, 1, 4, 1, 0, 6, 15]);
        bindings.extend(enterprise);
        bindings.extend([0, 1]);
        let objects: [&[u8]; 8] = [
            b"\x04\x03a-1",
            b"\x04\x01a",
            b"\x04\x182026-11-26T21:04:09.120Z",
            &[2, 1, 2],
            b"\x04\x01e",
            &[2, 1, 0xff],
            &[4, 0],
            b"\x04\x01t",
        ];
        for (number, object) in (1..).zip(objects) {
            bindings.extend([0x30, 18 + object.len() as u8, 6, 16]);
            bindings.extend(enterprise);
            bindings.extend([1, number, 0]);
            bindings.extend(object);
        }
        let mut pdu = vec![2, 1, 5, 2, 1, 0, 2, 1, 0, 0x30, 0x81, 255];
        pdu.extend(bindings);
        let mut message = b"\x02\x01\x01\x04\x06public\xa7\x82".to_vec();
        message.extend([1, 11]);
        message.extend(pdu);
        let mut whole = vec![0x30, 0x82];
        whole.extend([1, 26]);
        whole.extend(message);
        assert_eq!(trap, whole);
    }

    #[test]
    fn strings_are_cut_between_characters_and_stay_on_a_line() {
        let long = Record { text: format!("x\n{}", "ä".repeat(4000)), ..record() };
        let trap = snmp().trap(&long, 0);
        let text = format!("x {}", "ä".repeat(511));
        assert!(trap.ends_with(&[b"\x04\x82\x04\x00".as_slice(), text.as_bytes()].concat()));
    }

    /// The number behind `::= { parent` of this name in the MIB.
    fn number(name: &str, parent: &str) -> u32 {
        let mib = include_str!("../../../docs/TANDEM-MIB.txt");
        let definition = mib.split_once(&format!("\n{name} ")).expect(name).1;
        let value = definition.split_once("::= {").expect(name).1.split_once('}').expect(name).0;
        value.trim().strip_prefix(parent).expect(name).trim().parse().expect(name)
    }

    #[test]
    fn the_mib_has_the_numbers_that_are_sent() {
        let names = ["Id", "Source", "Time", "Severity", "Kind", "Row", "Cause", "Text"];
        for (at, name) in (1..).zip(names) {
            assert_eq!(number(&format!("tandemEvent{name}"), "tandemObjects"), at, "{name}");
        }
        assert_eq!(number("tandemObjects", "tandemMIB"), OBJECTS);
        assert_eq!(
            [number("tandemNotifications", "tandemMIB"), number("tandemEvent", "tandemNotifications")],
            EVENT
        );
        let parents = ["enterprises", "tandemEnterprise", "tandemExperiments", "tandemRange"];
        let names = ["tandemEnterprise", "tandemExperiments", "tandemRange", "tandemMIB"];
        let arcs: Vec<u32> = names.iter().zip(parents).map(|(name, parent)| number(name, parent)).collect();
        assert_eq!(arcs, DEFAULT_OID[6..]);
    }
}
