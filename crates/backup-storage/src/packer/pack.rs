//! One pack after the other: frames get their places, full packs go to the store.

use std::sync::{Arc, Mutex};

use backup_core::{Error, ErrorKind, ObjectDigest, Result};
use bytes::Bytes;
use object_store::PutPayload;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::Packer;
use crate::format::{
    EndOfObject, FRAME_HEADER_LEN, Frame, FrameKind, OBJECT_HEADER_LEN, ObjectKind, Packed, Place,
    hex, seal,
};
use crate::frames::FrameAt;
use crate::key::BackupObject;
use crate::store::{Created, taken};
use crate::sync::{lock, lost_task};

/// More packs than this do not fit into a manifest.
const MAX_PACKS: u32 = 400_000;

#[derive(Default)]
pub(super) struct Packs {
    open: Option<Arc<Pack>>,
    next: u32,
}

struct Pack {
    number: u32,
    place: Place,
    state: Mutex<PackState>,
}

struct PackState {
    /// Where the next frame goes.
    offset: u64,
    frames: Vec<Option<(Bytes, Bytes)>>,
    /// Frames that have a place and are not there yet.
    missing: usize,
    /// No more frames will come.
    closed: bool,
    permits: Vec<OwnedSemaphorePermit>,
}

/// Where a frame will stand in a pack.
struct Reserved {
    slot: usize,
    offset: u64,
    end: u64,
}

impl Pack {
    fn reserve(&self, packed: &Packed) -> Reserved {
        let mut state = lock(&self.state);
        let offset = state.offset;
        state.offset += (FRAME_HEADER_LEN + packed.stored.len()) as u64;
        state.frames.push(None);
        state.missing += 1;
        Reserved { slot: state.frames.len() - 1, offset, end: state.offset }
    }
}

impl PackState {
    fn complete(&self) -> bool {
        self.closed && self.missing == 0
    }
}

impl Packer {
    /// Puts a frame into the open pack; sends the pack on its way when it is full.
    pub(super) fn place(
        self: &Arc<Self>,
        kind: FrameKind,
        packed: Packed,
        space: Option<OwnedSemaphorePermit>,
    ) -> Result<FrameAt> {
        let (pack, reserved, full) = {
            let mut packs = lock(&self.packs);
            let pack = self.open_pack(&mut packs)?;
            let reserved = pack.reserve(&packed);
            let full = reserved.end >= self.pack_target;
            if full {
                packs.open = None;
            }
            (pack, reserved, full)
        };
        let at = self.fill(&pack, &reserved, kind, packed, space)?;
        if full {
            self.close(&pack)?;
        }
        Ok(at)
    }

    fn open_pack(&self, packs: &mut Packs) -> Result<Arc<Pack>> {
        if let Some(pack) = &packs.open {
            return Ok(Arc::clone(pack));
        }
        if packs.next == MAX_PACKS {
            return Err(Error::new(
                ErrorKind::Store,
                format!("backup {} has more than {MAX_PACKS} packs", self.backup),
            )
            .with_remedy("choose larger packs"));
        }
        let number = packs.next;
        packs.next += 1;
        let pack = Arc::new(Pack {
            number,
            place: self.new_place(BackupObject::Pack(number)),
            state: Mutex::new(PackState {
                offset: OBJECT_HEADER_LEN as u64,
                frames: Vec::new(),
                missing: 0,
                closed: false,
                permits: Vec::new(),
            }),
        });
        packs.open = Some(Arc::clone(&pack));
        Ok(pack)
    }

    /// Seals a frame for its place and puts it there; the digest is computed without a lock.
    fn fill(
        self: &Arc<Self>,
        pack: &Arc<Pack>,
        reserved: &Reserved,
        kind: FrameKind,
        packed: Packed,
        space: Option<OwnedSemaphorePermit>,
    ) -> Result<FrameAt> {
        let Frame { header, head, payload } = seal(&pack.place, reserved.offset, kind, packed)?;
        let complete = {
            let mut state = lock(&pack.state);
            state.frames[reserved.slot] = Some((Bytes::copy_from_slice(&head), payload));
            state.permits.extend(space);
            state.missing -= 1;
            state.complete()
        };
        if complete {
            self.ship(pack);
        }
        let check = header.check.first_chunk();
        Ok(FrameAt {
            backup: self.backup.clone(),
            pack: pack.number,
            offset: reserved.offset,
            frame_len: header.frame_len(),
            check: *check.expect("a check has 16 bytes"),
        })
    }

    /// Ends a pack that is no longer open: catalog, end frame, then off it goes once every frame is
    /// in its place.
    fn close(self: &Arc<Self>, pack: &Arc<Pack>) -> Result<()> {
        let fresh = {
            let mut catalog = lock(&self.catalog);
            self.cut(&mut catalog)?;
            std::mem::take(&mut catalog.fresh)
        };
        let (at, frames) = {
            let state = lock(&pack.state);
            (state.offset, state.frames.len() + fresh.len())
        };
        for packed in fresh {
            let reserved = pack.reserve(&packed);
            self.fill(pack, &reserved, FrameKind::Catalog, packed, None)?;
        }
        let end = EndOfObject { catalog: at, frames: frames as u32 };
        let packed = end.pack();
        let reserved = pack.reserve(&packed);
        lock(&pack.state).closed = true;
        self.fill(pack, &reserved, FrameKind::End, packed, None)?;
        Ok(())
    }

    /// Closes the open pack; where there is none but lines of the catalog wait, in a new one.
    pub(crate) fn close_last(self: &Arc<Self>) -> Result<()> {
        let pack = {
            let mut packs = lock(&self.packs);
            if lock(&self.catalog).is_waiting() && packs.open.is_none() {
                self.open_pack(&mut packs)?;
            }
            packs.open.take()
        };
        pack.map_or(Ok(()), |pack| self.close(&pack))
    }

    /// Sends a complete pack to the store, in the background.
    fn ship(self: &Arc<Self>, pack: &Arc<Pack>) {
        let (frames, permits) = {
            let mut state = lock(&pack.state);
            (std::mem::take(&mut state.frames), std::mem::take(&mut state.permits))
        };
        let header = pack.place.object_header(ObjectKind::Pack);
        let parts: Vec<Bytes> = std::iter::once(Bytes::copy_from_slice(&header))
            .chain(frames.into_iter().flatten().flat_map(|(head, body)| [head, body]))
            .collect();
        let packer = Arc::clone(self);
        let number = pack.number;
        self.tasks.spawn_on(
            async move {
                match packer.upload(BackupObject::Pack(number), parts).await {
                    Ok(digest) => {
                        lock(&packer.stored).insert(number, digest);
                        packer.arrived.notify_waiters();
                    }
                    Err(e) => packer.fail(&e),
                }
                drop(permits);
            },
            &self.runtime,
        );
    }

    /// Stores an object of this backup and says what was stored.
    pub(crate) async fn upload(
        &self,
        object: BackupObject,
        parts: Vec<Bytes>,
    ) -> Result<ObjectDigest> {
        let _turn = self
            .uploads
            .acquire()
            .await
            .map_err(|_| Error::internal("the semaphore of the uploads was closed"))?;
        self.failed()?;
        let payload = PutPayload::from_iter(parts);
        let bytes = payload.content_length() as u64;
        let digested = payload.clone();
        let sha256 = tokio::task::spawn_blocking(move || {
            let mut digest = Sha256::new();
            digested.iter().for_each(|part| digest.update(part));
            hex(&digest.finalize())
        })
        .await
        .map_err(lost_task)?;
        let key = self.key(object);
        match self.store.create(&key, payload).await? {
            Created::New => {}
            Created::Exists => return Err(taken(&key)),
        }
        self.cx.progress().add_stored(bytes);
        Ok(ObjectDigest { name: object.to_string(), bytes, sha256 })
    }

    /// Waits until every pack that was begun is stored.
    pub(crate) async fn all_stored(&self) -> Result<()> {
        let begun = lock(&self.packs).next;
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            // From here on nothing is missed.
            arrived.as_mut().enable();
            self.failed()?;
            if lock(&self.stored).range(..begun).count() == begun as usize {
                return Ok(());
            }
            arrived.await;
        }
    }

    /// The packs stored, in order of their numbers. All tasks must have ended.
    pub(crate) fn stored(&self) -> Result<Vec<ObjectDigest>> {
        let stored: Vec<ObjectDigest> =
            std::mem::take(&mut *lock(&self.stored)).into_values().collect();
        if stored.len() == lock(&self.packs).next as usize {
            Ok(stored)
        } else {
            Err(Error::internal(format!("a pack of backup {} was lost on its way", self.backup)))
        }
    }
}
