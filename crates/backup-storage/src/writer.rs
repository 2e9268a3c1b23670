//! One artifact being written: cut into chunks, digested, handed to the packer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use backup_core::{ArtifactInfo, ArtifactName, ArtifactWriter, Error, Layout, Result};
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use crate::format::{End, Entry, Extent, hex};
use crate::packer::{FRAME_MAX, FRAME_TARGET, Packer, lock, lost_task};

/// Shorter ends of artifacts share a frame; shorter blocks are collected.
pub(crate) const SMALL: usize = 64 << 10;
/// How many chunks of one artifact may be on their way.
const AHEAD: usize = 4;
/// How many extents a line of the catalog holds at most.
const PART: usize = 4096;
/// The longest attributes, in bytes of JSON.
const ATTRIBUTES: usize = 1 << 20;

pub(crate) struct Writer {
    packer: Arc<Packer>,
    layout: Layout,
    /// What the catalog will say next about the artifact.
    entry: Entry,
    buffer: BytesMut,
    bytes: u64,
    /// `None` while, or because, a task has it.
    digest: Option<Sha256>,
    jobs: VecDeque<JoinHandle<Result<Extent>>>,
    finished: bool,
}

impl Writer {
    pub(crate) fn new(packer: &Arc<Packer>, name: ArtifactName, layout: Layout) -> Result<Self> {
        if let Layout::Pages(size) = layout
            && !(size.is_power_of_two() && (512..=65_536).contains(&size))
        {
            return Err(Error::internal(format!("artifact {name} has pages of {size} bytes")));
        }
        packer.failed()?;
        if !lock(&packer.names).insert(name.clone()) {
            return Err(Error::internal(format!("artifact {name} is written twice")));
        }
        packer.unfinished.fetch_add(1, Ordering::Relaxed);
        Ok(Writer {
            packer: Arc::clone(packer),
            layout,
            entry: Entry {
                id: packer.next_id.fetch_add(1, Ordering::Relaxed),
                seq: 0,
                name,
                sources: Vec::new(),
                extents: Vec::new(),
                end: None,
            },
            buffer: BytesMut::new(),
            bytes: 0,
            digest: Some(Sha256::new()),
            jobs: VecDeque::new(),
            finished: false,
        })
    }

    /// Appends to what waits for its frame, and lets go of full frames.
    async fn collect(&mut self, mut bytes: Bytes) -> Result<()> {
        while self.buffer.len() + bytes.len() >= FRAME_TARGET {
            let chunk = if self.buffer.is_empty() {
                bytes.split_to(FRAME_TARGET)
            } else {
                let missing = FRAME_TARGET - self.buffer.len();
                self.buffer.extend_from_slice(&bytes.split_to(missing));
                self.buffer.split().freeze()
            };
            self.chunk(chunk).await?;
        }
        self.buffer.extend_from_slice(&bytes);
        Ok(())
    }

    /// Keeps a block together where it is neither too small nor too large for a frame.
    async fn block(&mut self, bytes: Bytes) -> Result<()> {
        let alone = (SMALL..=FRAME_MAX).contains(&bytes.len());
        if alone || self.buffer.len() + bytes.len() > FRAME_TARGET {
            self.flush().await?;
        }
        if alone { self.chunk(bytes).await } else { self.collect(bytes).await }
    }

    async fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = self.buffer.split().freeze();
        self.chunk(chunk).await
    }

    /// Sends a chunk on its way; digests it while it is compressed.
    async fn chunk(&mut self, chunk: Bytes) -> Result<()> {
        while self.jobs.len() >= AHEAD {
            self.await_job().await?;
        }
        self.jobs.push_back(self.packer.chunk(chunk.clone()).await?);
        self.update(chunk).await
    }

    async fn update(&mut self, chunk: Bytes) -> Result<()> {
        let mut digest = self.digest.take().ok_or_else(|| {
            Error::internal(format!(
                "artifact {} is written on after a write that was given up",
                self.entry.name
            ))
        })?;
        let digest = tokio::task::spawn_blocking(move || {
            digest.update(&chunk);
            digest
        });
        self.digest = Some(digest.await.map_err(lost_task)?);
        Ok(())
    }

    /// Takes the place of the oldest chunk on its way.
    async fn await_job(&mut self) -> Result<()> {
        // Awaited where it stands: a future that is dropped here loses nothing.
        let Some(job) = self.jobs.front_mut() else {
            return Ok(());
        };
        let extent = job.await.map_err(lost_task)??;
        self.jobs.pop_front();
        if self.entry.extents.len() == PART {
            self.packer.catalog(&self.entry)?;
            self.entry.extents.clear();
            self.entry.seq += 1;
        }
        self.entry.extents.push(extent);
        Ok(())
    }
}

#[async_trait]
impl ArtifactWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.packer.failed()?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.bytes += bytes.len() as u64;
        match self.layout {
            Layout::Blocks => self.block(bytes).await,
            Layout::Stream | Layout::Pages(_) => self.collect(bytes).await,
        }
    }

    async fn finish(mut self: Box<Self>, attributes: serde_json::Value) -> Result<ArtifactInfo> {
        self.packer.failed()?;
        let length = serde_json::to_string(&attributes).map_or(usize::MAX, |json| json.len());
        if length > ATTRIBUTES {
            return Err(Error::internal(format!(
                "the attributes of artifact {} are longer than {ATTRIBUTES} bytes",
                self.entry.name
            )));
        }
        if self.buffer.len() >= SMALL {
            self.flush().await?;
        }
        let end = self.buffer.split().freeze();
        self.update(end.clone()).await?;
        while !self.jobs.is_empty() {
            self.await_job().await?;
        }
        let info = ArtifactInfo {
            name: self.entry.name.clone(),
            bytes: self.bytes,
            sha256: hex(&self.digest.take().unwrap_or_default().finalize()),
            layout: self.layout,
            attributes,
        };
        let entry = Entry {
            end: Some(End {
                layout: info.layout,
                bytes: info.bytes,
                sha256: info.sha256.clone(),
                attributes: info.attributes.clone(),
            }),
            extents: std::mem::take(&mut self.entry.extents),
            ..self.entry.clone()
        };
        if end.is_empty() {
            self.packer.catalog(&entry)?;
        } else {
            self.packer.share(&end, entry).await?;
        }
        self.finished = true;
        self.packer.artifacts.fetch_add(1, Ordering::Relaxed);
        self.packer.bytes.fetch_add(info.bytes, Ordering::Relaxed);
        Ok(info)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.packer.unfinished.fetch_sub(1, Ordering::Relaxed);
        if !self.finished {
            lock(&self.packer.names).remove(&self.entry.name);
        }
    }
}
