//! Integer sections: a column of integers as byte planes.
//!
//! `v = base + step × e`, or for sorted columns `v = previous + step × (slope + e)`, modulo 2⁶⁴; the
//! small `e` are written as byte planes, least significant first, and planes that are all zero are
//! left out. So a column of equal values and an AUTO_INCREMENT without gaps take no planes at all,
//! and times of whole seconds, multiples of 100 and the like take as few as they deserve.

use backup_core::{Error, Result};

/// Bytes before the planes.
const HEADER: usize = 26;
const MODE_PLAIN: u8 = 0;
const MODE_DELTA: u8 = 1;

/// How the values of a column are ordered, which tells the writer what to subtract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Two's complement.
    Signed,
    /// Unsigned.
    Unsigned,
    /// Bits of a float: not numbers, so only planes.
    Bits,
}

/// Appends the section of `values`, which are spoilt.
pub(super) fn encode(values: &mut [u64], order: Order, out: &mut Vec<u8>) {
    let Some(&first) = values.first() else {
        return header(MODE_PLAIN, 0, 0, 1, 0, out);
    };
    let (least, most) = range(values, order);
    if least == most {
        return header(MODE_PLAIN, 0, least, 1, 0, out);
    }
    if order == Order::Bits {
        let planes = planes_for(values.iter().fold(0, |all, v| all | v));
        header(MODE_PLAIN, planes, 0, 1, 0, out);
        return write_planes(values, planes, out);
    }
    let divisor = common_divisor(values, least);
    match &divisor {
        Some(divisor) => {
            values.iter_mut().for_each(|v| *v = divisor.quotient(v.wrapping_sub(least)));
        }
        None => values.iter_mut().for_each(|v| *v = v.wrapping_sub(least)),
    }
    let step = divisor.as_ref().map_or(1, |divisor| divisor.value);
    if !delta_is_smaller(values) {
        let planes = planes_for(most.wrapping_sub(least) / step);
        header(MODE_PLAIN, planes, least, step, 0, out);
        return write_planes(values, planes, out);
    }
    let mut previous = values[0];
    let (mut slope, mut steepest) = (i64::MAX, i64::MIN);
    for v in &mut values[1..] {
        let delta = v.wrapping_sub(previous);
        previous = std::mem::replace(v, delta);
        slope = slope.min(delta.cast_signed());
        steepest = steepest.max(delta.cast_signed());
    }
    let slope = slope.cast_unsigned();
    values[0] = slope;
    values.iter_mut().for_each(|v| *v = v.wrapping_sub(slope));
    let planes = planes_for(steepest.cast_unsigned().wrapping_sub(slope));
    header(MODE_DELTA, planes, first, step, slope, out);
    write_planes(values, planes, out);
}

fn header(mode: u8, planes: u8, base: u64, step: u64, slope: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[mode, planes]);
    for number in [base, step, slope] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn planes_for(largest: u64) -> u8 {
    (64 - largest.leading_zeros()).div_ceil(8) as u8
}

fn range(values: &[u64], order: Order) -> (u64, u64) {
    // Flipping the sign bit turns the signed order into the unsigned one.
    let flip = if order == Order::Signed { 1 << 63 } else { 0 };
    let (least, most) = values.iter().fold((u64::MAX, 0), |(least, most), v| {
        let v = v ^ flip;
        (v.min(least), v.max(most))
    });
    (least ^ flip, most ^ flip)
}

/// Byte planes: plane `k` holds bits `8k` to `8k + 7` of each value.
fn write_planes(values: &[u64], planes: u8, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + values.len() * usize::from(planes), 0);
    for (k, plane) in out[start..].chunks_exact_mut(values.len()).enumerate() {
        for (byte, value) in plane.iter_mut().zip(values) {
            *byte = (value >> (8 * k)) as u8;
        }
    }
}

/// Whether differences to the value before are likely to take fewer bits, by a sample of runs.
fn delta_is_smaller(values: &[u64]) -> bool {
    const RUNS: usize = 64;
    const RUN: usize = 16;
    let bits = |v: u64| 64 - v.leading_zeros();
    let stride = (values.len() / RUNS).max(RUN);
    let (mut plain, mut delta) = (0, 0);
    for run in values.chunks(stride) {
        for pair in run[..run.len().min(RUN + 1)].windows(2) {
            let difference = pair[1].wrapping_sub(pair[0]).cast_signed();
            plain += bits(pair[1]);
            // Zigzag: a sign costs a bit.
            delta += bits(((difference << 1) ^ (difference >> 63)).cast_unsigned());
        }
    }
    delta < plain
}

/// A divisor that is known to leave no remainder: one multiplication instead of a division.
struct Divisor {
    value: u64,
    shift: u32,
    inverse: u64,
    limit: u64,
}

impl Divisor {
    fn new(value: u64) -> Self {
        let shift = value.trailing_zeros();
        let odd = value >> shift;
        // Newton's iteration doubles the number of right bits, of which any odd number has three.
        let mut inverse = odd;
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        }
        Divisor { value, shift, inverse, limit: u64::MAX / value }
    }

    fn quotient(&self, multiple: u64) -> u64 {
        multiple.wrapping_mul(self.inverse).rotate_right(self.shift)
    }

    fn divides(&self, number: u64) -> bool {
        // Quotients of multiples, and only they, are at most `limit` (Hacker's Delight, 10-17).
        self.quotient(number) <= self.limit
    }
}

/// The greatest common divisor of all `v - least`, where it is more than 1.
fn common_divisor(values: &[u64], least: u64) -> Option<Divisor> {
    let mut differences = values.iter().map(|v| v.wrapping_sub(least)).filter(|d| *d != 0);
    let mut divisor = Divisor::new(differences.next()?);
    for difference in differences {
        if !divisor.divides(difference) {
            let value = gcd(divisor.value, difference);
            if value == 1 {
                return None;
            }
            divisor = Divisor::new(value);
        }
    }
    (divisor.value > 1).then_some(divisor)
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Reads an integer section, a batch at a time.
#[derive(Debug, Clone)]
pub(super) struct Integers<'a> {
    planes: &'a [u8],
    count: usize,
    at: usize,
    base: u64,
    step: u64,
    /// Slope and value before, in delta mode.
    delta: Option<(u64, u64)>,
}

impl<'a> Integers<'a> {
    /// The section of `count` values at the start of `bytes`, and what follows it.
    pub(super) fn parse(bytes: &'a [u8], count: usize) -> Result<(Self, &'a [u8])> {
        let short = || Error::damaged("an integer section of a row block is too short");
        let (header, rest) = bytes.split_at_checked(HEADER).ok_or_else(short)?;
        let number = |at: usize| {
            let bytes = header[at..at + 8].try_into().expect("eight bytes of the header");
            u64::from_le_bytes(bytes)
        };
        let (mode, planes) = (header[0], header[1]);
        if mode > MODE_DELTA || planes > 8 {
            return Err(Error::damaged(format!(
                "an integer section of a row block has mode {mode} and {planes} planes"
            )));
        }
        let length = count.checked_mul(usize::from(planes)).ok_or_else(short)?;
        let (planes, rest) = rest.split_at_checked(length).ok_or_else(short)?;
        let (base, step, slope) = (number(2), number(10), number(18));
        // The first value is `base`, as if one lay before it.
        let delta =
            (mode == MODE_DELTA).then(|| (slope, base.wrapping_sub(step.wrapping_mul(slope))));
        Ok((Integers { planes, count, at: 0, base, step, delta }, rest))
    }

    /// Replaces `out` by the next `count` values; fewer when fewer are left.
    pub(super) fn take(&mut self, count: usize, out: &mut Vec<u64>) {
        let count = count.min(self.count - self.at);
        out.clear();
        out.resize(count, 0);
        if count == 0 {
            return;
        }
        for (k, plane) in self.planes.chunks_exact(self.count).enumerate() {
            for (value, byte) in out.iter_mut().zip(&plane[self.at..]) {
                *value |= u64::from(*byte) << (8 * k);
            }
        }
        self.at += count;
        let step = self.step;
        if let Some((slope, previous)) = &mut self.delta {
            for value in out {
                *previous = previous.wrapping_add(step.wrapping_mul(slope.wrapping_add(*value)));
                *value = *previous;
            }
        } else if step == 1 {
            out.iter_mut().for_each(|v| *v = v.wrapping_add(self.base));
        } else {
            out.iter_mut().for_each(|v| *v = v.wrapping_mul(step).wrapping_add(self.base));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn section(values: &[u64], order: Order) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut values.to_vec(), order, &mut out);
        let (mut integers, rest) = Integers::parse(&out, values.len()).unwrap();
        assert!(rest.is_empty());
        let (mut back, mut batch) = (Vec::new(), Vec::new());
        while back.len() < values.len() {
            integers.take(7, &mut batch);
            assert!(!batch.is_empty());
            back.extend_from_slice(&batch);
        }
        integers.take(7, &mut batch);
        assert!(batch.is_empty());
        assert_eq!(back, values);
        out
    }

    fn planes(values: impl IntoIterator<Item = i64>) -> u8 {
        let values: Vec<u64> = values.into_iter().map(i64::cast_unsigned).collect();
        section(&values, Order::Signed)[1]
    }

    #[test]
    fn what_can_be_left_out_is() {
        assert_eq!(planes([]), 0);
        assert_eq!(planes([-5; 100]), 0);
        assert_eq!(planes(1..1000), 0, "AUTO_INCREMENT");
        assert_eq!(planes((1..1000).rev()), 0);
        assert_eq!(planes((0..1000).map(|i| i / 4)), 1);
        assert_eq!(planes((0..1000).map(|i| 1_700_000_000_000_000 + i * 37 % 200 * 1_000_000)), 1);
        assert_eq!(planes((0..1000).map(|i| i * i * 7919 % 251 - 128)), 1);
        assert_eq!(planes([i64::MIN, i64::MAX, 0]), 8);
    }

    #[test]
    fn hostile_sections_are_refused() {
        assert!(Integers::parse(&[0; 25], 0).is_err());
        assert!(Integers::parse(&[2; 26], 0).is_err());
        let mut bytes = [0; 26];
        bytes[1] = 9;
        assert!(Integers::parse(&bytes, 0).is_err());
        bytes[1] = 8;
        assert!(Integers::parse(&bytes, usize::MAX).is_err());
        assert!(Integers::parse(&bytes, 1).is_err());
    }

    fn order() -> impl Strategy<Value = Order> {
        prop_oneof![Just(Order::Signed), Just(Order::Unsigned), Just(Order::Bits)]
    }

    proptest! {
        #[test]
        fn any_values_come_back(
            values in prop::collection::vec(any::<u64>(), 0..300),
            order in order(),
        ) {
            section(&values, order);
        }

        #[test]
        fn any_multiples_come_back(
            base: u64,
            step in prop_oneof![1u64..10, Just(1_000_000), any::<u64>()],
            values in prop::collection::vec(0u64..5000, 0..300),
            sorted: bool,
            order in order(),
        ) {
            let mut values = values;
            if sorted {
                values.sort_unstable();
            }
            let values: Vec<u64> =
                values.iter().map(|v| base.wrapping_add(step.wrapping_mul(*v))).collect();
            section(&values, order);
        }
    }
}
