//! Numbers and strings off the front of bytes that anybody may have made.

/// Takes off the front; `None` where the bytes end before.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.rest().get(..len)?;
        self.at += len;
        Some(taken)
    }

    pub(super) fn skip(&mut self, len: usize) -> Option<()> {
        self.take(len).map(drop)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|b| b[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(|b| u16::from_le_bytes(*b))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(|b| u32::from_le_bytes(*b))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(|b| u64::from_le_bytes(*b))
    }

    /// A little-endian number of up to 8 bytes.
    pub(super) fn uint(&mut self, width: usize) -> Option<u64> {
        let mut le = [0; 8];
        le.get_mut(..width)?.copy_from_slice(self.take(width)?);
        Some(u64::from_le_bytes(le))
    }

    /// The length-encoded integer of the protocol.
    pub(super) fn lenenc(&mut self) -> Option<u64> {
        match self.u8()? {
            0xfc => self.uint(2),
            0xfd => self.uint(3),
            0xfe => self.uint(8),
            byte @ 0..=0xfa => Some(byte.into()),
            _ => None,
        }
    }

    /// The variable-length integer of the server's serialization library: as many trailing one bits
    /// in the first byte as bytes follow it.
    pub(super) fn uvar(&mut self) -> Option<u64> {
        let more = self.rest().first()?.trailing_ones() as usize;
        let bytes = self.take(more + 1)?;
        let mut le = [0; 16];
        le[..=more].copy_from_slice(bytes);
        u64::try_from(u128::from_le_bytes(le) >> (more + 1).min(8)).ok()
    }

    /// The same with a sign, in the lowest bit.
    pub(super) fn svar(&mut self) -> Option<i64> {
        let number = self.uvar()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_lengths() {
        let uvar = |bytes: &[u8]| Reader::new(bytes).uvar();
        assert_eq!(uvar(&[0b10]), Some(1));
        assert_eq!(uvar(&[0xfe]), Some(127));
        assert_eq!(uvar(&[0b01, 0b10]), Some(128));
        assert_eq!(uvar(&[0xff, 1, 0, 0, 0, 0, 0, 0, 0x80]), Some(1 << 63 | 1));
        assert_eq!(uvar(&[0xff, 0, 0]), None);
        assert_eq!(uvar(&[]), None);
        assert_eq!(Reader::new(&[0b110]).svar(), Some(-2));
        assert_eq!(Reader::new(&[0b100]).svar(), Some(1));
    }
}
