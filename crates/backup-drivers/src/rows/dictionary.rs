//! Columns of few distinct values: each value once, and which one it is.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

/// Most distinct values: their numbers fit one byte plane.
pub(super) const MAX_ENTRIES: usize = 256;
const SLOTS: usize = 4 * MAX_ENTRIES;

/// Finds the distinct values of a column, if they are few. Serves column after column.
#[derive(Debug)]
pub(super) struct Dictionary {
    /// A hash table with open addressing: numbers of entries plus one; 0 is free.
    slots: Vec<u16>,
    /// Where each distinct value first stands in the column's data.
    entries: Vec<Range<usize>>,
    /// The entry of each value.
    pub(super) numbers: Vec<u64>,
}

impl Dictionary {
    pub(super) fn new() -> Self {
        Dictionary { slots: vec![0; SLOTS], entries: Vec::new(), numbers: Vec::new() }
    }

    /// Numbers the values that lie in `data` one after the other. Gives up, and says so, when a
    /// dictionary would not make the column smaller.
    pub(super) fn build(&mut self, lengths: &[u64], data: &[u8]) -> bool {
        self.slots.fill(0);
        self.entries.clear();
        self.numbers.clear();
        // Single bytes are as small as numbers.
        if lengths.iter().all(|length| *length == 1) {
            return false;
        }
        // Half of the values must be repetitions.
        let limit = MAX_ENTRIES.min(lengths.len() / 2);
        let mut start = 0;
        for length in lengths {
            let end = start + *length as usize;
            let Some(number) = self.number(start..end, data, limit) else { return false };
            self.numbers.push(number as u64);
            start = end;
        }
        !lengths.is_empty()
    }

    #[inline]
    fn number(&mut self, value: Range<usize>, data: &[u8], limit: usize) -> Option<usize> {
        let bytes = &data[value.clone()];
        let mut slot = xxh3_64(bytes) as usize % SLOTS;
        loop {
            let Some(number) = usize::from(self.slots[slot]).checked_sub(1) else {
                if self.entries.len() == limit {
                    return None;
                }
                self.entries.push(value);
                self.slots[slot] = self.entries.len() as u16;
                return Some(self.entries.len() - 1);
            };
            if data[self.entries[number].clone()] == *bytes {
                return Some(number);
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    /// The distinct values, in the order in which they first appear.
    pub(super) fn entries<'a>(
        &'a self,
        data: &'a [u8],
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + 'a {
        self.entries.iter().map(|range| &data[range.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(values: &[&[u8]]) -> Option<(Vec<Vec<u8>>, Vec<u64>)> {
        let data = values.concat();
        let lengths: Vec<u64> = values.iter().map(|v| v.len() as u64).collect();
        let mut dictionary = Dictionary::new();
        dictionary.build(&[7, 7, 7], b"garbagegarbagegarbage");
        dictionary
            .build(&lengths, &data)
            .then(|| (dictionary.entries(&data).map(<[u8]>::to_vec).collect(), dictionary.numbers))
    }

    #[test]
    fn values_are_numbered_by_first_appearance() {
        let (entries, numbers) = build(&[b"view", b"", b"view", b"buy", b"", b"buy"]).unwrap();
        assert_eq!(entries, [b"view".to_vec(), b"".to_vec(), b"buy".to_vec()]);
        assert_eq!(numbers, [0, 1, 0, 2, 1, 2]);
    }

    #[test]
    fn gives_up_where_nothing_is_gained() {
        assert!(build(&[]).is_none());
        assert!(build(&[b"a", b"a", b"b", b"a"]).is_none());
        assert!(build(&[b"ab", b"cd", b"ef", b"ab"]).is_none());
        let many: Vec<[u8; 2]> =
            (0..3000u16).map(|i| (i % MAX_ENTRIES as u16).to_le_bytes()).collect();
        let mut many: Vec<&[u8]> = many.iter().map(|v| &v[..]).collect();
        assert_eq!(build(&many).unwrap().0.len(), MAX_ENTRIES);
        many.push(b"one more");
        assert!(build(&many).is_none());
    }
}
