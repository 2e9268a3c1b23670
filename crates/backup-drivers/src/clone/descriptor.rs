//! What InnoDB says inside the clone protocol: descriptors, all of them big-endian.
//!
//! Every descriptor begins with `version u32, length u32, type u32`; what follows is described at each
//! type. The layouts are those of MySQL's `clone0desc.h` and of what a 9.7.4 donor sends.

use backup_core::Result;
use bytes::{BufMut, Bytes, BytesMut};

use super::broken;
use super::names::Place;
use crate::innodb::Key;

/// The version of descriptors: the only one that there has been.
const VERSION: u32 = 100;
const HEADER: usize = 12;

const LOCATOR: u32 = 1;
const TASK: u32 = 2;
const STATE: u32 = 3;
const FILE: u32 = 4;
const DATA: u32 = 5;

/// No tablespace: the dump of the buffer pool, a redo file.
const NO_TABLESPACE: u32 = 0xffff_ffff;
/// Flags of a file.
const ENCRYPTED: u16 = 4;
const RENAMED: u16 = 8;
const DELETED: u16 = 16;
const WITH_KEY: u16 = 32;
/// A file name longer than any operating system takes is no file name.
const MAX_NAME: usize = 4096;

/// The part of a clone that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Stage {
    /// Before anything was sent.
    Init,
    /// Whole files, while they change.
    Files,
    /// The pages that changed meanwhile.
    Pages,
    /// The redo log of the time in which the pages were read.
    Redo,
    /// Everything was sent.
    Done,
}

impl Stage {
    fn of(number: u32) -> Result<Stage> {
        Ok(match number {
            1 => Stage::Init,
            2 => Stage::Files,
            3 => Stage::Pages,
            4 => Stage::Redo,
            5 => Stage::Done,
            _ => return Err(broken(format!("it knows a state {number}"))),
        })
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Stage::Init => 1,
            Stage::Files => 2,
            Stage::Pages => 3,
            Stage::Redo => 4,
            Stage::Done => 5,
        }
    }
}

/// One descriptor of the stream.
#[derive(Debug, Clone)]
pub(super) enum Descriptor {
    /// Which stream this is. Nothing depends on it.
    Task,
    State(State),
    File(FileEntry),
    Data(Block),
}

/// A stage begins or ends, or the donor gives a sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) stage: Stage,
    /// Chunks of this stage.
    pub(super) chunks: u32,
    /// Bytes that will be sent, about; 0 where the donor does not say.
    pub(super) bytes: u64,
    pub(super) mark: Mark,
    /// The descriptor as it came, for the acknowledgement.
    raw: Bytes,
}

/// What a [`State`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Start,
    End,
    /// The donor waits for an acknowledgement, and lives.
    Waiting,
}

const START: u16 = 1;
const ACKNOWLEDGE: u16 = 2;

/// A file, or what DDL made of one.
#[derive(Debug, Clone)]
pub(super) struct FileEntry {
    /// The stage that the entry belongs to.
    pub(super) stage: Stage,
    /// Length in bytes.
    pub(super) bytes: u64,
    /// Tablespace flags; none where the file is no tablespace.
    pub(super) tablespace: Option<Tablespace>,
    pub(super) renamed: bool,
    pub(super) deleted: bool,
    pub(super) encrypted: bool,
    /// The key of the tablespace, where it comes with the description.
    pub(super) key: Option<Key>,
    /// The number of the file. Data files and redo files are numbered apart.
    pub(super) index: u32,
    /// As the server knows it, without the NUL; empty for redo files.
    pub(super) name: String,
}

impl FileEntry {
    /// Where it goes.
    pub(super) fn place(&self) -> Result<Place> {
        let mut place = Place::of(&self.name, self.tablespace.is_some_and(Tablespace::is_general))?;
        // A server looks for all files of the system tablespace in one directory.
        if self.tablespace.is_some_and(|space| space.id == 0)
            && place.origin.is_some()
            && let Some((_, name)) = place.path.rsplit_once('/')
        {
            place.path = name.to_owned();
        }
        Ok(place)
    }
}

/// What the flags of a tablespace say of its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tablespace {
    /// The space id.
    pub(super) id: u32,
    /// The flags as InnoDB keeps them.
    pub(super) flags: u32,
}

impl Tablespace {
    /// The size of a page in the file, in bytes (`fsp_flags`: bits 1-4 the compressed size, 6-9 that
    /// of the page, 0 for 16 KiB; otherwise 512 shifted by it).
    pub(super) fn page_size(self) -> Option<u32> {
        let shift = |value: u32| (value <= 7).then(|| 512u32 << value);
        match ((self.flags >> 1) & 15, (self.flags >> 6) & 15) {
            (0, 0) => Some(16 << 10),
            (0, page) => shift(page),
            (zip, _) => shift(zip),
        }
    }

    /// Whether it is a general tablespace, which is that of no single table (`FSP_FLAGS_MASK_SHARED`).
    pub(super) fn is_general(self) -> bool {
        self.flags & 1 << 11 != 0
    }

    /// Whether its pages are encrypted.
    pub(super) fn is_encrypted(self) -> bool {
        self.flags & 1 << 13 != 0
    }

    /// Whether pages are compressed by InnoDB (`ROW_FORMAT=COMPRESSED`).
    pub(super) fn is_zip(self) -> bool {
        (self.flags >> 1) & 15 != 0
    }
}

/// The bytes that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) stage: Stage,
    /// From 1, in each stage.
    pub(super) chunk: u32,
    /// From 1, in each chunk.
    pub(super) block: u32,
    /// The number of the file.
    pub(super) file: u32,
    pub(super) bytes: u32,
    pub(super) offset: u64,
    /// The length of the file by now.
    pub(super) file_bytes: u64,
}

/// Takes big-endian numbers off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (first, rest) =
            self.0.split_first_chunk::<N>().ok_or_else(|| broken("a descriptor is cut short"))?;
        self.0 = rest;
        Ok(*first)
    }
    fn u16(&mut self) -> Result<u16> {
        self.take().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

/// The type and what follows the header.
fn body(raw: &[u8]) -> Result<(u32, Fields<'_>)> {
    let mut fields = Fields(raw);
    let (version, length, kind) = (fields.u32()?, fields.u32()?, fields.u32()?);
    if version != VERSION {
        return Err(broken(format!("a descriptor is of version {version}")));
    }
    if length as usize != raw.len() {
        return Err(broken("a descriptor has not the length that it says"));
    }
    Ok((kind, fields))
}

impl Descriptor {
    /// Reads one that fills all of `raw`.
    pub(super) fn parse(raw: &Bytes) -> Result<Descriptor> {
        let (kind, mut fields) = body(raw)?;
        Ok(match kind {
            TASK => Descriptor::Task,
            STATE => Descriptor::State(State::parse(&mut fields, raw)?),
            FILE => Descriptor::File(FileEntry::parse(&mut fields)?),
            DATA => Descriptor::Data(Block::parse(&mut fields)?),
            kind => return Err(broken(format!("a descriptor is of the unknown type {kind}"))),
        })
    }
}

impl State {
    const FLAGS_AT: usize = 44;

    fn parse(fields: &mut Fields<'_>, raw: &Bytes) -> Result<State> {
        let stage = Stage::of(fields.u32()?)?;
        let (_task, chunks, _items) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (bytes, _on_disk) = (fields.u64()?, fields.u64()?);
        let flags = fields.u16()?;
        let mark = match flags {
            flags if flags & ACKNOWLEDGE != 0 => Mark::Waiting,
            flags if flags & START != 0 => Mark::Start,
            _ => Mark::End,
        };
        Ok(State { stage, chunks, bytes, mark, raw: raw.clone() })
    }

    /// The descriptor that acknowledges this one.
    pub(super) fn acknowledgement(&self) -> Bytes {
        let mut raw = BytesMut::from(&self.raw[..]);
        raw[Self::FLAGS_AT..Self::FLAGS_AT + 2].copy_from_slice(&ACKNOWLEDGE.to_be_bytes());
        raw.freeze()
    }
}

impl FileEntry {
    fn parse(fields: &mut Fields<'_>) -> Result<FileEntry> {
        let stage = Stage::of(fields.u32()?)?;
        let (bytes, _allocated) = (fields.u64()?, fields.u64()?);
        let (space_flags, _block) = (fields.u32()?, fields.u32()?);
        let flags = fields.u16()?;
        let (space, index) = (fields.u32()?, fields.u32()?);
        let (_first, _last) = (fields.u32()?, fields.u32()?);
        let length = fields.u32()? as usize;
        let (name, rest) = fields
            .0
            .split_at_checked(length)
            .filter(|_| length <= MAX_NAME)
            .ok_or_else(|| broken("the name of a file is longer than its descriptor"))?;
        let key = match flags & WITH_KEY != 0 {
            true => Some(Key::new(rest).ok_or_else(|| broken("the key of a file is cut short"))?),
            false => None,
        };
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| !name.contains('\0'))
            .ok_or_else(|| broken("the name of a file is no text"))?;
        let tablespace =
            (space_flags != NO_TABLESPACE).then_some(Tablespace { id: space, flags: space_flags });
        Ok(FileEntry {
            stage,
            bytes,
            tablespace,
            renamed: flags & RENAMED != 0,
            deleted: flags & DELETED != 0,
            encrypted: flags & (ENCRYPTED | WITH_KEY) != 0
                || tablespace.is_some_and(Tablespace::is_encrypted),
            key,
            index,
            name: name.to_owned(),
        })
    }
}

impl Block {
    fn parse(fields: &mut Fields<'_>) -> Result<Block> {
        let stage = Stage::of(fields.u32()?)?;
        let _task = fields.u32()?;
        let (chunk, block) = (fields.u32()?, fields.u32()?);
        let (file, bytes) = (fields.u32()?, fields.u32()?);
        let (offset, file_bytes) = (fields.u64()?, fields.u64()?);
        if offset.checked_add(bytes.into()).is_none_or(|end| end > MAX_FILE) {
            return Err(broken("a block is beyond what a file can hold"));
        }
        Ok(Block { stage, chunk, block, file, bytes, offset, file_bytes })
    }
}

/// The longest tablespace that there is: 2^32 pages of 64 KiB.
pub(super) const MAX_FILE: u64 = 1 << 48;

/// The donor's name for a clone. What it sent is sent back, but for what [`Locator::resume`] adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Locator(Bytes);

impl Locator {
    const LEN: usize = 34;
    const STATE_AT: usize = 32;

    /// The one that asks for a new clone: of no clone, only of a version.
    pub(super) fn of_version() -> Locator {
        let mut raw = BytesMut::with_capacity(Self::LEN);
        raw.put_u32(VERSION);
        raw.put_u32(Self::LEN as u32);
        raw.put_u32(LOCATOR);
        raw.put_bytes(0, Self::LEN - HEADER);
        Locator(raw.freeze())
    }

    pub(super) fn parse(raw: &Bytes) -> Result<Locator> {
        let (kind, _) = body(raw)?;
        if kind != LOCATOR || raw.len() < Self::LEN {
            return Err(broken("a locator is of another kind"));
        }
        Ok(Locator(raw.slice(..Self::LEN)))
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The same clone for the donor, and what we have of it.
    pub(super) fn resume(&self, received: &Received) -> Locator {
        let Some(stage) = received.stage else { return self.clone() };
        let mut raw = BytesMut::from(&self.0[..]);
        raw[Self::STATE_AT] = stage.number();
        raw[Self::STATE_AT + 1] = received.all_files.into();
        match received.last {
            Some((chunk, block)) => {
                raw.put_u32(1);
                raw.put_u32(chunk);
                raw.put_u32(block);
            }
            None => raw.put_u32(0),
        }
        let words = received.chunks.div_ceil(32).min(received.begun.len() as u32);
        raw.put_u32(words);
        for word in &received.begun[..words as usize] {
            raw.put_u32(*word);
        }
        let length = raw.len() as u32;
        raw[4..8].copy_from_slice(&length.to_be_bytes());
        Locator(raw.freeze())
    }
}

/// What of the present stage has been received, for a donor that lost the connection.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// The stage whose start was seen; none before the first.
    pub(super) stage: Option<Stage>,
    /// Whether the names of all files have come.
    pub(super) all_files: bool,
    chunks: u32,
    /// The chunk that came last, which may be incomplete, and its last block.
    last: Option<(u32, u32)>,
    /// One bit a chunk that has begun. Grows with what comes, not with what is announced.
    begun: Vec<u32>,
}

impl Received {
    /// A stage begins. After a lost connection the donor may say so again; what has come of it
    /// counts then.
    pub(super) fn begin(&mut self, state: &State) {
        if self.stage != Some(state.stage) {
            let all_files = self.all_files;
            *self = Received { stage: Some(state.stage), all_files, ..Received::default() };
        }
        self.chunks = state.chunks;
    }

    /// A block has come and is kept.
    pub(super) fn block(&mut self, block: &Block) -> Result<()> {
        if block.chunk == 0 || block.chunk > self.chunks {
            return Err(broken("a block belongs to no chunk of its state"));
        }
        let at = block.chunk - 1;
        let word = (at / 32) as usize;
        if word >= self.begun.len() {
            self.begun.resize(word + 1, 0);
        }
        self.begun[word] |= 1 << (at % 32);
        self.last = Some((block.chunk, block.block));
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) fn descriptor(kind: u32, body: impl FnOnce(&mut BytesMut)) -> Bytes {
        let mut raw = BytesMut::new();
        raw.put_u32(VERSION);
        raw.put_u32(0);
        raw.put_u32(kind);
        body(&mut raw);
        let length = raw.len() as u32;
        raw[4..8].copy_from_slice(&length.to_be_bytes());
        raw.freeze()
    }

    pub(in super::super) fn state(stage: u32, flags: u16) -> Bytes {
        descriptor(STATE, |raw| {
            raw.put_u32(stage);
            for n in [0, 40, 3] {
                raw.put_u32(n);
            }
            raw.put_u64(1000);
            raw.put_u64(1000);
            raw.put_u16(flags);
        })
    }

    fn file(name: &[u8], flags: u16, space_flags: u32) -> Bytes {
        descriptor(FILE, |raw| {
            raw.put_u32(2);
            raw.put_u64(114_688);
            raw.put_u64(114_688);
            raw.put_u32(space_flags);
            raw.put_u32(4096);
            raw.put_u16(flags);
            raw.put_u32(7);
            raw.put_u32(3);
            raw.put_u32(1);
            raw.put_u32(1);
            raw.put_u32(name.len() as u32);
            raw.put_slice(name);
        })
    }

    #[test]
    fn a_state_and_its_acknowledgement() {
        let raw = state(2, 0);
        let Descriptor::State(state) = Descriptor::parse(&raw).unwrap() else { panic!("no state") };
        assert_eq!((state.stage, state.mark, state.chunks), (Stage::Files, Mark::End, 40));
        let answer = state.acknowledgement();
        assert_eq!(answer[..44], raw[..44]);
        assert_eq!(answer[44..], [0, 2]);
    }

    #[test]
    fn a_sign_of_life_is_no_start() {
        // A donor that waits sends 3.
        let raw = state(3, 3);
        let Descriptor::State(state) = Descriptor::parse(&raw).unwrap() else { panic!("no state") };
        assert_eq!(state.mark, Mark::Waiting);
    }

    #[test]
    fn files_have_names_and_pages() {
        let raw = file(b"./shop/orders.ibd\0", 8, 0x4021);
        let Descriptor::File(entry) = Descriptor::parse(&raw).unwrap() else { panic!("no file") };
        assert_eq!(entry.name, "./shop/orders.ibd");
        assert!(entry.renamed && !entry.deleted && !entry.encrypted);
        assert_eq!(entry.tablespace.unwrap().page_size(), Some(16384));
        let sizes = |flags| Tablespace { id: 1, flags }.page_size();
        // KEY_BLOCK_SIZE=8, pages of 4 and 64 KiB
        assert_eq!(
            [sizes(4 << 1), sizes(3 << 6), sizes(7 << 6)],
            [Some(8192), Some(4096), Some(65536)]
        );
        assert_eq!(sizes(15 << 1), None);
    }

    #[test]
    fn names_are_no_longer_than_what_holds_them() {
        let mut raw = BytesMut::from(&file(b"a\0", 0, 0)[..]);
        raw[58..62].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(Descriptor::parse(&raw.freeze()).is_err());
        assert!(Descriptor::parse(&file(b"a\0b\0", 0, 0)).is_err());
        assert!(Descriptor::parse(&file(&[0xff, 0], 0, 0)).is_err());
    }

    #[test]
    fn what_was_received_is_told() {
        let locator = Locator::of_version();
        assert_eq!(locator.bytes().len(), 34);
        let mut received = Received::default();
        assert_eq!(locator.resume(&received), locator);
        let Descriptor::State(files) = Descriptor::parse(&state(2, 1)).unwrap() else {
            panic!("no state")
        };
        received.begin(&files);
        received.all_files = true;
        let block = |chunk, block| Block {
            stage: Stage::Files,
            chunk,
            block,
            file: 0,
            bytes: 0,
            offset: 0,
            file_bytes: 0,
        };
        for (chunk, number) in [(1, 1), (1, 2), (34, 1), (34, 7)] {
            received.block(&block(chunk, number)).unwrap();
        }
        assert!(received.block(&block(41, 1)).is_err());
        assert!(received.block(&block(0, 1)).is_err());
        // The donor says again that the stage begins.
        received.begin(&files);
        let resumed = locator.resume(&received);
        let tail = [0, 0, 0, 1, 0, 0, 0, 34, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        assert_eq!(resumed.bytes()[32..34], [2, 1]);
        assert_eq!(resumed.bytes()[34..], tail);
        assert_eq!(resumed.bytes()[4..8], 58u32.to_be_bytes());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut raw in prop::collection::vec(any::<u8>(), 12..120), kind in 0u32..7) {
            let length = raw.len() as u32;
            raw[..4].copy_from_slice(&VERSION.to_be_bytes());
            raw[4..8].copy_from_slice(&length.to_be_bytes());
            raw[8..12].copy_from_slice(&kind.to_be_bytes());
            let raw = Bytes::from(raw);
            let _ = Descriptor::parse(&raw);
            let _ = Locator::parse(&raw);
        }
    }
}
