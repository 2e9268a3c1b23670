//! Between the line and the store, so that a slow store never leaves the line unread for long.
//!
//! A donor whose recipient reads nothing for a minute takes it for lost, and forgets the clone a few minutes
//! later. So what a store does not take in time waits: some of it in memory, and where the store stands still,
//! in a file without a name, which no crash leaves behind. First pages of encrypted tablespaces have their keys in
//! the clear, so that file is encrypted, by a key that nobody has but this run.
//!
//! ```text
//! Session → Front ═ queue: memory, or the file ═ Back → Intake
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use backup_core::{Context, Error, ErrorKind, Result, io_error};
use bytes::Bytes;
use secrecy::zeroize::Zeroizing;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::descriptor::{Block, FileEntry, Stage};
use super::session::Receive;
use super::spool::{self, joined};

/// What waits in memory, in bytes: some of the largest blocks (64 pages of 64 KiB).
const MEMORY: usize = 12 << 20;
/// How long the line waits for the store before it goes on without. The donor's patience is 60 seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What may wait in memory here, in bytes: less where the budget is small. A block that is larger still passes,
/// when nothing else waits.
pub(super) fn memory(cx: &Context) -> usize {
    MEMORY.min(cx.memory().half())
}

/// What a [`Receive`] is given, on its way.
enum Item {
    Begin(Stage),
    File(Box<FileEntry>, bool),
    Block(Block, Data),
    /// With whom to tell when it was taken.
    End(Stage, oneshot::Sender<()>),
}

enum Data {
    Here(Bytes, OwnedSemaphorePermit),
    InFile { file: Arc<Sealed>, at: u64, bytes: usize },
}

/// The file. Each piece is sealed with its place for a nonce, and each place is written once for each key.
struct Sealed {
    file: File,
    key: LessSafeKey,
}

/// What sealing adds to a piece, in bytes.
const TAG: usize = 16;

impl Sealed {
    fn new(cx: &Context, directory: &Path) -> Result<Sealed> {
        let file = tempfile::tempfile_in(directory).map_err(failed(directory))?;
        let key = UnboundKey::new(&AES_256_GCM, &Zeroizing::new(cx.random::<32>())[..])
            .map_err(|_| Error::internal("a key of 32 bytes is refused"))?;
        Ok(Sealed { file, key: LessSafeKey::new(key) })
    }

    fn nonce(at: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&at.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(bytes.len() + TAG);
        sealed.extend_from_slice(bytes);
        self.key
            .seal_in_place_append_tag(Self::nonce(at), Aad::empty(), &mut sealed)
            .map_err(io::Error::other)?;
        self.file.write_all_at(&sealed, at)
    }

    fn read(&self, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut sealed = vec![0; bytes + TAG];
        self.file.read_exact_at(&mut sealed, at)?;
        let open = self.key.open_in_place(Self::nonce(at), Aad::empty(), &mut sealed);
        let length = open.map_err(io::Error::other)?.len();
        sealed.truncate(length);
        Ok(sealed)
    }
}

fn failed(directory: &Path) -> impl FnOnce(io::Error) -> Error {
    spool::failed("what the store does not take", directory, ErrorKind::Internal)
}

/// Where what waits goes, and how much that is.
struct Overflow {
    directory: PathBuf,
    limit: u64,
    file: Option<Arc<Sealed>>,
    end: u64,
    waiting: Arc<AtomicU64>,
}

impl Overflow {
    fn is_used(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    fn has_room(&self, bytes: usize) -> bool {
        let end = if self.is_used() { self.end } else { 0 };
        end + bytes as u64 <= self.limit
    }

    async fn keep(&mut self, cx: &Context, bytes: Bytes) -> Result<Data> {
        if !self.is_used() {
            // All of it was taken: the room goes back. With a new key, for the places are written again.
            self.end = 0;
            self.file = None;
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(self.file.insert(Arc::new(Sealed::new(cx, &self.directory)?))),
        };
        let (at, length) = (self.end, bytes.len());
        let to = Arc::clone(&file);
        let work = tokio::task::spawn_blocking(move || to.write(&bytes, at));
        joined(work.await)?.map_err(failed(&self.directory))?;
        self.end += (length + TAG) as u64;
        self.waiting.fetch_add(length as u64, Ordering::AcqRel);
        Ok(Data::InFile { file, at, bytes: length })
    }
}

/// The side of the line.
pub(super) struct Front {
    cx: Context,
    items: mpsc::UnboundedSender<Item>,
    memory: Arc<Semaphore>,
    /// How much that is at the most.
    most: usize,
    overflow: Overflow,
}

/// The side of the store.
pub(super) struct Back {
    items: mpsc::UnboundedReceiver<Item>,
    waiting: Arc<AtomicU64>,
}

/// Both sides; up to `limit` bytes rest in `directory`.
pub(super) fn pair(cx: &Context, directory: &Path, limit: u64) -> (Front, Back) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicU64::new(0));
    let overflow = Overflow {
        directory: directory.to_owned(),
        limit,
        file: None,
        end: 0,
        waiting: Arc::clone(&waiting),
    };
    let most = memory(cx);
    let memory = Arc::new(Semaphore::new(most));
    let front = Front { cx: cx.clone(), items: sender, memory, most, overflow };
    (front, Back { items: receiver, waiting })
}

impl Front {
    /// Whether the other side has failed, which then says why.
    pub(super) fn is_cut(&self) -> bool {
        self.items.is_closed()
    }

    fn send(&self, item: Item) -> Result<()> {
        self.items.send(item).map_err(|_| cut())
    }

    /// Room in memory, or none where the store does not make any in time.
    async fn room(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>> {
        let permits = u32::try_from(bytes.clamp(1, self.most)).unwrap_or(u32::MAX);
        let wait = Arc::clone(&self.memory).acquire_many_owned(permits);
        let patience = match (self.overflow.is_used(), self.overflow.has_room(bytes)) {
            // Where there is no room either, the donor has to wait, and loses patience at last.
            (_, false) => Duration::MAX,
            (true, true) => Duration::ZERO,
            (false, true) => PATIENCE,
        };
        tokio::select! {
            biased;
            permit = timeout(patience, wait) => permit.ok().transpose().map_err(|_| cut()),
            () = self.items.closed() => Err(cut()),
        }
    }
}

impl Receive for Front {
    async fn begin(&mut self, stage: Stage) -> Result<()> {
        self.send(Item::Begin(stage))
    }

    async fn file(&mut self, entry: FileEntry, ddl: bool) -> Result<()> {
        self.send(Item::File(Box::new(entry), ddl))
    }

    async fn block(&mut self, block: Block, bytes: Bytes) -> Result<()> {
        let data = match self.room(bytes.len()).await? {
            Some(permit) => Data::Here(bytes, permit),
            None => {
                if !self.overflow.is_used() {
                    self.cx.note(format!(
                        "the store takes nothing: what the source sends waits in {}",
                        self.overflow.directory.display()
                    ));
                }
                self.overflow.keep(&self.cx, bytes).await?
            }
        };
        self.send(Item::Block(block, data))
    }

    async fn end(&mut self, stage: Stage) -> Result<()> {
        let (told, taken) = oneshot::channel();
        self.send(Item::End(stage, told))?;
        taken.await.map_err(|_| cut())
    }
}

impl Back {
    /// Gives everything to `receiver`, until the line ends.
    ///
    /// # Errors
    /// What it fails with.
    pub(super) async fn run<R: Receive>(mut self, mut receiver: R) -> Result<R> {
        while let Some(item) = self.items.recv().await {
            match item {
                Item::Begin(stage) => receiver.begin(stage).await?,
                Item::File(entry, ddl) => receiver.file(*entry, ddl).await?,
                Item::Block(block, Data::Here(bytes, _permit)) => {
                    receiver.block(block, bytes).await?;
                }
                Item::Block(block, Data::InFile { file, at, bytes }) => {
                    receiver.block(block, read(file, at, bytes).await?).await?;
                    self.waiting.fetch_sub(bytes as u64, Ordering::AcqRel);
                }
                Item::End(stage, told) => {
                    receiver.end(stage).await?;
                    // A line that is gone does not want to know.
                    let _ = told.send(());
                }
            }
        }
        Ok(receiver)
    }
}

async fn read(file: Arc<Sealed>, at: u64, bytes: usize) -> Result<Bytes> {
    let work = tokio::task::spawn_blocking(move || file.read(at, bytes));
    let read = joined(work.await)?;
    read.map(Bytes::from)
        .map_err(|e| io_error(e, ErrorKind::Internal, "cannot read what waited for the store"))
}

/// The other side says why.
fn cut() -> Error {
    Error::internal("what takes the clone has failed")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::JoinHandle;

    use super::*;

    /// Takes what it may, and remembers all of it.
    struct Slow {
        may: Arc<Semaphore>,
        seen: Arc<Mutex<Vec<u8>>>,
    }

    impl Receive for Slow {
        async fn begin(&mut self, _: Stage) -> Result<()> {
            Ok(())
        }
        async fn file(&mut self, _: FileEntry, _: bool) -> Result<()> {
            Ok(())
        }
        async fn block(&mut self, block: Block, bytes: Bytes) -> Result<()> {
            self.may.acquire().await.unwrap().forget();
            let number = block.block as u8;
            assert!(bytes.iter().all(|byte| *byte == number), "{number}");
            self.seen.lock().unwrap().push(number);
            match number {
                99 => Err(Error::new(ErrorKind::Store, "the store is broken")),
                _ => Ok(()),
            }
        }
        async fn end(&mut self, _: Stage) -> Result<()> {
            self.seen.lock().unwrap().push(0);
            Ok(())
        }
    }

    const SIZE: usize = 1 << 20;

    fn block(number: u8) -> (Block, Bytes) {
        let block = Block {
            stage: Stage::Files,
            chunk: 1,
            block: number.into(),
            file: 0,
            bytes: SIZE as u32,
            offset: 0,
            file_bytes: 0,
        };
        (block, Bytes::from(vec![number; SIZE]))
    }

    type Seen = Arc<Mutex<Vec<u8>>>;

    fn start(limit: u64) -> (Front, Arc<Semaphore>, Seen, JoinHandle<Result<Slow>>) {
        let cx = Context::builder().build();
        let (front, back) = pair(&cx, &std::env::temp_dir(), limit);
        let (may, seen) = (Arc::new(Semaphore::new(0)), Arc::default());
        let slow = Slow { may: Arc::clone(&may), seen: Arc::clone(&seen) };
        (front, may, seen, tokio::spawn(back.run(slow)))
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_store_does_not_take_waits_in_order() {
        let (mut front, may, seen, back) = start(1 << 30);
        // Twice: the file is used again from its beginning.
        for _ in 0..2 {
            seen.lock().unwrap().clear();
            for number in 1..=40 {
                let (block, bytes) = block(number);
                front.block(block, bytes).await.unwrap();
            }
            let memory = MEMORY / SIZE;
            assert_eq!(front.overflow.waiting.load(Ordering::Acquire), (40 - memory as u64) << 20);
            assert_eq!(seen.lock().unwrap().len(), 0);
            may.add_permits(40);
            front.end(Stage::Files).await.unwrap();
            let expected: Vec<u8> = (1..=40).chain([0]).collect();
            assert_eq!(*seen.lock().unwrap(), expected);
            assert!(!front.overflow.is_used());
        }
        assert_eq!(front.overflow.end, ((40 - MEMORY / SIZE) * (SIZE + TAG)) as u64);
        drop(front);
        back.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_on_disk_tells_nothing() {
        let (mut front, may, _, back) = start(1 << 30);
        for number in 1..=40 {
            let (block, bytes) = block(number);
            front.block(block, bytes).await.unwrap();
        }
        let file = Arc::clone(front.overflow.file.as_ref().unwrap());
        let mut there = vec![0; SIZE];
        file.file.read_exact_at(&mut there, 0).unwrap();
        assert!(!there.windows(8).any(|window| window.iter().all(|byte| *byte == window[0])));
        may.add_permits(40);
        front.end(Stage::Files).await.unwrap();
        drop(front);
        back.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_no_room_the_line_waits() {
        let (mut front, may, seen, back) = start(3 << 20);
        let all = MEMORY / SIZE + 2;
        for number in 1..=all {
            let (block, bytes) = block(number as u8);
            front.block(block, bytes).await.unwrap();
        }
        let (last, bytes) = block(50);
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, front.block(last, bytes.clone())).await.is_err());
        may.add_permits(1);
        front.block(last, bytes).await.unwrap();
        may.add_permits(50);
        front.end(Stage::Files).await.unwrap();
        assert_eq!(seen.lock().unwrap().len(), all + 2);
        drop(front);
        back.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_stops_the_line() {
        let (mut front, may, _, back) = start(1 << 30);
        may.add_permits(9);
        let (broken, bytes) = block(99);
        front.block(broken, bytes).await.unwrap();
        assert!(front.end(Stage::Files).await.is_err());
        assert!(front.is_cut());
        let error = back.await.unwrap().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Store);
        let (next, bytes) = block(1);
        assert!(front.block(next, bytes).await.is_err());
    }
}
