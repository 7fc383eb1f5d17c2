//! The time zone of the group: by it the windows of the day are read, daylight saving included.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whatever the machine goes by.
const MACHINE: &str = "system";
/// Changes of the clock that are compared, ahead: a year has two.
const CHANGES: usize = 2;

/// A time zone, as it stands in the file: a name such as `Europe/Berlin`, an offset such as `+01:00`, or `system`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Zone {
    name: String,
    /// `None`: the machine's, which may be changed while this process runs.
    zone: Option<TimeZone>,
}

impl Default for Zone {
    fn default() -> Zone {
        Zone { name: MACHINE.to_owned(), zone: None }
    }
}

impl Zone {
    /// As it stands in the file.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The minute of the day there, 0 to 1439, at this time since 1970.
    pub fn minute(&self, at_ms: u64) -> u16 {
        let local = timestamp(at_ms).to_zoned(self.zone());
        local.hour() as u16 * 60 + local.minute() as u16
    }

    /// How its clocks go from this time since 1970 on: two zones that say the same have the same minute for the year to come.
    pub fn clocks(&self, at_ms: u64) -> String {
        let (zone, now) = (self.zone(), timestamp(at_ms));
        let mut text = format!("UTC{}", clock(zone.to_offset(now)));
        for change in zone.following(now).take(CHANGES) {
            text += &format!(", UTC{} from {} on", clock(change.offset()), change.timestamp());
        }
        text
    }

    /// UTC where the machine has none.
    fn zone(&self) -> TimeZone {
        self.zone.clone().unwrap_or_else(TimeZone::system)
    }
}

fn timestamp(at_ms: u64) -> Timestamp {
    let at = i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.unwrap_or_default()
}

fn clock(offset: Offset) -> String {
    let minutes = offset.seconds() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

/// `+01:00`, at most fourteen hours from UTC.
fn fixed(text: &str) -> Option<TimeZone> {
    let (sign, rest) = match text.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, text.strip_prefix('-')?),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |digits: &str| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
    if !two(hours) || !two(minutes) {
        return None;
    }
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let all = hours * 60 + minutes;
    let offset = (minutes < 60 && all <= 14 * 60).then(|| Offset::from_seconds(sign * all * 60).ok())??;
    Some(TimeZone::fixed(offset))
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(name: String) -> Result<Zone, String> {
        let zone = match name.as_str() {
            MACHINE => None,
            "UTC" => Some(TimeZone::UTC),
            text => Some(fixed(text).or_else(|| TimeZone::get(text).ok()).ok_or_else(|| {
                format!(
                    "{text:?} is not a time zone that this machine knows: give a name such as \"Europe/Berlin\" (and install \
                     tzdata), an offset such as \"+01:00\", or \"{MACHINE}\""
                )
            })?),
        };
        Ok(Zone { name, zone })
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2027-03-28 00:30 UTC: half an hour before clocks in Europe are set to summer time.
    const SPRING: u64 = 1_806_193_800_000;
    const HOUR: u64 = 3_600_000;

    fn zone(name: &str) -> Zone {
        Zone::try_from(name.to_owned()).unwrap()
    }

    #[test]
    fn the_minute_of_the_day_follows_daylight_saving() {
        let minutes = |name: &str| [0, 1, 24].map(|hours| zone(name).minute(SPRING + hours * HOUR));
        assert_eq!(minutes("UTC"), [30, 90, 30]);
        assert_eq!(minutes("Europe/Berlin"), [90, 3 * 60 + 30, 2 * 60 + 30]);
        assert_eq!(minutes("+01:00"), [90, 2 * 60 + 30, 90]);
        assert_eq!(minutes("-00:45"), [23 * 60 + 45, 45, 23 * 60 + 45]);
    }

    #[test]
    fn the_minute_of_the_day_of_the_machine_goes_round_once_a_day() {
        // Wherever it is: time zones differ by whole minutes, and a day has 1440.
        const NOON: u64 = 1_795_694_400_000;
        let minute = |at_ms| Zone::default().minute(at_ms);
        let first = minute(NOON);
        assert!(first < 1_440);
        assert_eq!(minute(NOON + 60_000), (first + 1) % 1_440);
        assert_eq!(minute(NOON + 59_999), first);
    }

    #[test]
    fn zones_are_compared_by_what_their_clocks_do() {
        let clocks = |name: &str| zone(name).clocks(SPRING);
        assert_eq!(clocks("Europe/Berlin"), clocks("Europe/Paris"));
        assert_eq!(clocks("UTC"), clocks("+00:00"));
        assert_eq!(
            clocks("Europe/Berlin"),
            "UTC+01:00, UTC+02:00 from 2027-03-28T01:00:00Z on, UTC+01:00 from 2027-10-31T01:00:00Z on"
        );
        // The same now, and not in summer.
        assert_ne!(clocks("Europe/Berlin"), clocks("+01:00"));
    }

    #[test]
    fn what_is_no_zone_is_refused() {
        for wrong in
            ["", "Europe/Nowhere", "+1:00", "+01:60", "+15:00", "01:00", "+01", "+0x:00", "../../etc/passwd"]
        {
            let error = Zone::try_from(wrong.to_owned()).unwrap_err();
            assert!(error.contains("install tzdata"), "{wrong}: {error}");
        }
        assert_eq!(zone("system"), Zone::default());
        assert_eq!(String::from(zone("Europe/Berlin")), "Europe/Berlin");
    }
}
