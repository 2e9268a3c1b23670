//! Temporal values: their parts, the binary protocol's bytes, and one packed integer.
//!
//! The servers shorten a value: trailing parts that are all zero are not sent
//! (`Protocol_binary::store_datetime` and `store_time` in MySQL, the same in MariaDB). Packed values
//! are unpacked into this shortest form; a value that is not in it is not packed.

use super::Kind;

/// Microseconds of a second.
const SECOND: u64 = 1_000_000;
/// Microseconds of a day.
const DAY: u64 = 86_400 * SECOND;
/// Days of a month and months of a year as packed: dates with zero parts are dates too.
const DAYS: u64 = 32;
const MONTHS: u64 = 13;
/// The largest packed DATE: year 65535.
const MAX_DATE: u64 = (u16::MAX as u64 * MONTHS + 12) * DAYS + 31;
/// The largest packed DATETIME.
const MAX_DATETIME: u64 = MAX_DATE * DAY + DAY - 1;
/// Days of a packed TIME are below this; servers stop at 34 (838 hours).
const TIME_DAYS: u64 = 1 << 16;

/// A DATE, DATETIME or TIMESTAMP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DateTime {
    pub(super) year: u16,
    pub(super) month: u8,
    pub(super) day: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
    pub(super) micros: u32,
}

/// A TIME.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) negative: bool,
    pub(super) days: u32,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
    pub(super) micros: u32,
}

impl DateTime {
    /// From the bytes of the protocol, of any known length.
    #[inline]
    pub(super) fn from_wire(wire: &[u8]) -> Option<DateTime> {
        let mut value = DateTime::default();
        let Some((&[y0, y1, month, day], rest)) = wire.split_first_chunk::<4>() else {
            return wire.is_empty().then_some(value);
        };
        (value.year, value.month, value.day) = (u16::from_le_bytes([y0, y1]), month, day);
        let Some((&[hour, minute, second], rest)) = rest.split_first_chunk::<3>() else {
            return rest.is_empty().then_some(value);
        };
        (value.hour, value.minute, value.second) = (hour, minute, second);
        if !rest.is_empty() {
            value.micros = u32::from_le_bytes(rest.try_into().ok()?);
        }
        Some(value)
    }

    /// The protocol's shortest form with its length byte: (bytes, how many of them).
    #[inline]
    pub(super) fn to_wire(self) -> ([u8; 12], usize) {
        let [y0, y1] = self.year.to_le_bytes();
        let [u0, u1, u2, u3] = self.micros.to_le_bytes();
        let length = if self.micros != 0 {
            11
        } else if self.hour != 0 || self.minute != 0 || self.second != 0 {
            7
        } else if self.year != 0 || self.month != 0 || self.day != 0 {
            4
        } else {
            0
        };
        let (Self { month, day, hour, minute, second, .. }, n) = (self, length as u8);
        ([n, y0, y1, month, day, hour, minute, second, u0, u1, u2, u3], 1 + length)
    }

    /// `((year × 13 + month) × 32 + day) × 86,400,000,000 + microseconds of the day`.
    #[inline]
    fn pack(self) -> Option<u64> {
        let in_range = self.month < 13
            && self.day < 32
            && self.hour < 24
            && self.minute < 60
            && self.second < 60
            && self.micros < 1_000_000;
        in_range.then(|| {
            let days = (u64::from(self.year) * MONTHS + u64::from(self.month)) * DAYS
                + u64::from(self.day);
            days * DAY + clock(self.hour, self.minute, self.second, self.micros)
        })
    }

    #[inline]
    pub(super) fn unpack_date(packed: u64) -> DateTime {
        let (months, day) = (packed / DAYS, packed % DAYS);
        DateTime {
            year: (months / MONTHS) as u16,
            month: (months % MONTHS) as u8,
            day: day as u8,
            ..DateTime::default()
        }
    }

    #[inline]
    pub(super) fn unpack(packed: u64) -> DateTime {
        let (hour, minute, second, micros) = unclock(packed % DAY);
        DateTime { hour, minute, second, micros, ..DateTime::unpack_date(packed / DAY) }
    }
}

impl Time {
    /// From the bytes of the protocol, of any known length.
    #[inline]
    pub(super) fn from_wire(wire: &[u8]) -> Option<Time> {
        let Some((&[sign, d0, d1, d2, d3, hour, minute, second], rest)) =
            wire.split_first_chunk::<8>()
        else {
            return wire.is_empty().then(Time::default);
        };
        let micros = if rest.is_empty() { 0 } else { u32::from_le_bytes(rest.try_into().ok()?) };
        let days = u32::from_le_bytes([d0, d1, d2, d3]);
        Some(Time { negative: sign != 0, days, hour, minute, second, micros })
    }

    /// The protocol's shortest form with its length byte: (bytes, how many of them).
    #[inline]
    pub(super) fn to_wire(self) -> ([u8; 13], usize) {
        let [d0, d1, d2, d3] = self.days.to_le_bytes();
        let [u0, u1, u2, u3] = self.micros.to_le_bytes();
        let length = if self.micros != 0 {
            12
        } else if self.days != 0 || self.hour != 0 || self.minute != 0 || self.second != 0 {
            8
        } else {
            0
        };
        let (Self { negative, hour, minute, second, .. }, n) = (self, length as u8);
        let sign = u8::from(negative);
        ([n, sign, d0, d1, d2, d3, hour, minute, second, u0, u1, u2, u3], 1 + length)
    }

    /// Microseconds with the sign, two's complement.
    #[inline]
    fn pack(self) -> Option<u64> {
        let days = u64::from(self.days);
        let in_range = days < TIME_DAYS
            && self.hour < 24
            && self.minute < 60
            && self.second < 60
            && self.micros < 1_000_000;
        let magnitude = in_range
            .then(|| days * DAY + clock(self.hour, self.minute, self.second, self.micros))?;
        Some(if self.negative { magnitude.wrapping_neg() } else { magnitude })
    }

    #[inline]
    pub(super) fn unpack(packed: u64) -> Time {
        let magnitude = packed.cast_signed().unsigned_abs();
        let (hour, minute, second, micros) = unclock(magnitude % DAY);
        let days = (magnitude / DAY) as u32;
        Time { negative: packed.cast_signed() < 0, days, hour, minute, second, micros }
    }
}

#[inline]
fn clock(hour: u8, minute: u8, second: u8, micros: u32) -> u64 {
    let seconds = (u32::from(hour) * 60 + u32::from(minute)) * 60 + u32::from(second);
    u64::from(seconds) * SECOND + u64::from(micros)
}

#[inline]
fn unclock(micros_of_day: u64) -> (u8, u8, u8, u32) {
    let seconds = (micros_of_day / SECOND) as u32;
    let micros = (micros_of_day % SECOND) as u32;
    ((seconds / 3600) as u8, (seconds / 60 % 60) as u8, (seconds % 60) as u8, micros)
}

/// Packs the bytes of the protocol (without length byte) where [`to_wire`] gives the same bytes
/// back.
#[inline]
pub(super) fn pack(kind: Kind, wire: &[u8]) -> Option<u64> {
    match kind {
        Kind::Time => {
            let time = Time::from_wire(wire)?;
            let (back, length) = time.to_wire();
            // A sign byte above 1, a negative zero and a long form come back otherwise.
            if back[1..length] == *wire { time.pack() } else { None }
        }
        _ => {
            let value = DateTime::from_wire(wire)?;
            let shortest = match wire.len() {
                0 => true,
                4 => value.year != 0 || value.month != 0 || value.day != 0,
                7 => value.hour != 0 || value.minute != 0 || value.second != 0,
                _ => value.micros != 0,
            };
            let packed = value.pack().filter(|_| shortest)?;
            match kind {
                Kind::Date if wire.len() > 4 => None,
                Kind::Date => Some(packed / DAY),
                _ => Some(packed),
            }
        }
    }
}

/// Whether `packed` is a value of `kind` at all; what [`pack`] gives always is.
#[inline]
pub(super) fn in_range(kind: Kind, packed: u64) -> bool {
    match kind {
        Kind::Date => packed <= MAX_DATE,
        Kind::DateTime => packed <= MAX_DATETIME,
        _ => packed.cast_signed().unsigned_abs() < TIME_DAYS * DAY,
    }
}

/// Appends a packed value as the protocol has it, length byte first.
#[inline]
pub(super) fn put_wire(kind: Kind, packed: u64, out: &mut Vec<u8>) {
    match kind {
        Kind::Time => {
            let (wire, length) = Time::unpack(packed).to_wire();
            out.extend_from_slice(&wire[..length]);
        }
        Kind::Date => {
            let (wire, length) = DateTime::unpack_date(packed).to_wire();
            out.extend_from_slice(&wire[..length]);
        }
        _ => {
            let (wire, length) = DateTime::unpack(packed).to_wire();
            out.extend_from_slice(&wire[..length]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(kind: Kind, packed: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_wire(kind, packed, &mut out);
        assert_eq!(usize::from(out[0]), out.len() - 1);
        out.split_off(1)
    }

    #[test]
    fn canonical_values_come_back_and_keep_their_order() {
        let datetimes: [&[u8]; 6] = [
            b"",
            b"\0\0\0\x01",                                 // 0000-00-01
            b"\xe8\x03\x01\x01",                           // 1000-01-01
            b"\xe8\x03\x01\x01\0\0\x01",                   // … 00:00:01
            b"\xe8\x03\x01\x01\0\0\x01\x01\0\0\0",         // … 00:00:01.000001
            b"\x0f\x27\x0c\x1f\x17\x3b\x3b\x3f\x42\x0f\0", // 9999-12-31 23:59:59.999999
        ];
        let packed: Vec<u64> = datetimes.iter().map(|w| pack(Kind::DateTime, w).unwrap()).collect();
        assert!(packed.is_sorted());
        for (wire, packed) in datetimes.iter().zip(packed) {
            assert!(in_range(Kind::DateTime, packed));
            assert_eq!(back(Kind::DateTime, packed), *wire);
        }
        let times: [&[u8]; 4] = [
            b"\x01\x22\0\0\0\x16\x3b\x3b\x3f\x42\x0f\0", // -838:59:59.999999
            b"\x01\0\0\0\0\0\0\x01",
            b"",
            b"\0\x22\0\0\0\x16\x3b\x3b",
        ];
        let packed: Vec<i64> =
            times.iter().map(|w| pack(Kind::Time, w).unwrap().cast_signed()).collect();
        assert!(packed.is_sorted());
        for (wire, packed) in times.iter().zip(packed) {
            assert!(in_range(Kind::Time, packed.cast_unsigned()));
            assert_eq!(back(Kind::Time, packed.cast_unsigned()), *wire);
        }
        let date = pack(Kind::Date, b"\xff\xff\x0c\x1f").unwrap();
        assert_eq!(date, MAX_DATE);
        assert_eq!(back(Kind::Date, date), b"\xff\xff\x0c\x1f");
    }

    #[test]
    fn what_would_come_back_otherwise_is_not_packed() {
        for (kind, wire) in [
            (Kind::DateTime, &b"\0\0\0\0"[..]),
            (Kind::DateTime, b"\xe8\x03\x01\x01\0\0\0"),
            (Kind::DateTime, b"\xe8\x03\x01\x01\0\0\x01\0\0\0\0"),
            (Kind::DateTime, b"\xe8\x03\x0d\x01"),
            (Kind::DateTime, b"\xe8\x03\x01\x20"),
            (Kind::DateTime, b"\xe8\x03\x01\x01\x18\0\0"),
            (Kind::DateTime, b"\xe8\x03\x01\x01\0\0\0\x40\x42\x0f\0"),
            (Kind::Date, b"\xe8\x03\x01\x01\0\0\x01"),
            (Kind::Time, b"\x01\0\0\0\0\0\0\0"),
            (Kind::Time, b"\x02\0\0\0\0\0\0\x01"),
            (Kind::Time, b"\0\0\0\x01\0\0\0\x01"),
            (Kind::Time, b"\0\0\0\0\0\0\x3c\0"),
        ] {
            assert_eq!(pack(kind, wire), None, "{kind:?} {wire:?}");
        }
        assert!(!in_range(Kind::Date, MAX_DATE + 1));
        assert!(!in_range(Kind::DateTime, MAX_DATETIME + 1));
        assert!(!in_range(Kind::Time, TIME_DAYS * DAY));
        assert!(!in_range(Kind::Time, (1 << 63) | 1));
    }
}
