//! The archive of binlogs: one object a segment, as `docs/format.md` says. What is known of a segment
//! is its first frame, so that it is there if and only if the segment is.

use async_trait::async_trait;
use backup_core::{
    Appended, BinlogServer, Claim, ClusterName, Context, Error, ErrorKind, ListedSegment, Result,
    SegmentInfo, SegmentStore,
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::PutPayload;
use sha2::{Digest, Sha256};

use crate::claim::claim;
use crate::format::{
    Compression, FRAME_HEADER_LEN, FrameHeader, FrameKind, OBJECT_HEADER_LEN, ObjectKind, Place,
    compress, hex, open, seal,
};
use crate::key::{self, Key};
use crate::repo::Repo;
use crate::scan::missing_object;
use crate::store::Created;
use crate::sync::lost_task;

/// Bytes of a binlog in one frame.
const FRAME: usize = 1 << 20;
/// Where GTID sets are not huge, what is known of a segment is read with one call.
const HEAD: u64 = 4 << 10;
/// How many of these calls are made at once: each is short, and a stream makes thousands of segments a day.
const HEADS: usize = 64;
/// The longest segment: the longest event, and what may come before it.
const MAX_SEGMENT: u64 = 3 << 30;

/// What to do about a segment that is damaged.
const REMEDY: &str = "`holdfast binlog check` names every one that is damaged, and where the archive leads all the same; \
                      put it back from a copy of the repository, or from the server's own file with `holdfast binlog \
                      rescue`";

#[async_trait]
impl SegmentStore for Repo {
    async fn segments(&self, cx: &Context, cluster: &ClusterName) -> Result<Vec<ListedSegment>> {
        let servers = self.store().list(&key::binlogs(cluster)).await?.directories;
        let mut found = Vec::new();
        // What has no name of ours is not ours.
        for server in servers.iter().filter_map(|name| name.parse::<BinlogServer>().ok()) {
            let objects = self.store().list(&key::binlog(cluster, &server)).await?.objects;
            found.extend(objects.into_iter().filter_map(|(name, meta)| {
                Some((server.clone(), key::segment_number(&name)?, meta.bytes))
            }));
        }
        let mut listed: Vec<ListedSegment> = stream::iter(found)
            .map(|(server, seq, stored)| async move {
                cx.check()?;
                let info = match self.segment(cluster, &server, seq).await {
                    Ok(Some(info)) => Ok(info),
                    // It was removed between the two looks.
                    Ok(None) => return Ok(None),
                    Err(e) if e.kind() == ErrorKind::Damaged => Err(e),
                    Err(e) => return Err(e),
                };
                Ok::<_, Error>(Some(ListedSegment { server, seq, stored, info }))
            })
            .buffered(HEADS)
            .try_filter_map(|listed| async { Ok(listed) })
            .try_collect()
            .await?;
        listed.sort_by(|a, b| (&a.server, a.seq).cmp(&(&b.server, b.seq)));
        Ok(listed)
    }

    async fn segment(
        &self,
        cluster: &ClusterName,
        server: &BinlogServer,
        seq: u64,
    ) -> Result<Option<SegmentInfo>> {
        self.segment_info(cluster, server, seq).await.map_err(with_remedy)
    }

    async fn read(&self, cx: &Context, segment: &SegmentInfo) -> Result<Bytes> {
        self.read_segment(cx, segment).await.map_err(with_remedy)
    }

    async fn append(
        &self,
        cx: &Context,
        segment: &SegmentInfo,
        content: Bytes,
    ) -> Result<Appended> {
        // As with backups: who gives a key means to encrypt.
        self.refuse_clear_text("the binlogs")?;
        if content.len() as u64 != segment.bytes() {
            return Err(Error::internal(format!(
                "{} bytes are no content of {}",
                content.len(),
                segment.range
            )));
        }
        let key = Key::Segment(segment.cluster.clone(), segment.server.clone(), segment.seq);
        let place = self.new_place(cx, &key);
        let info = serde_json::to_vec(segment)
            .map_err(|e| Error::internal("a segment cannot be written as JSON").with_source(e))?;
        let compression = self.options().compression;
        let parts =
            tokio::task::spawn_blocking(move || object(&place, compression, info, &content))
                .await
                .map_err(lost_task)??;
        let stored = parts.iter().map(|part| part.len() as u64).sum();
        Ok(match self.store().create(&key, PutPayload::from_iter(parts)).await? {
            Created::New => Appended::Stored(stored),
            Created::Exists => Appended::Taken,
        })
    }

    async fn replace_damaged(
        &self,
        cx: &Context,
        segment: &SegmentInfo,
        content: Bytes,
    ) -> Result<()> {
        if hex(&Sha256::digest(&content)) != segment.sha256 {
            return Err(Error::internal(format!("{} is not what it says", segment.name())));
        }
        match SegmentStore::read(self, cx, segment).await {
            Err(e) if e.kind() == ErrorKind::Damaged => {}
            other => return other.map(drop),
        }
        self.refuse_clear_text("the binlogs")?;
        let key = Key::Segment(segment.cluster.clone(), segment.server.clone(), segment.seq);
        self.store().delete(&key).await?;
        self.append(cx, segment, content).await?;
        SegmentStore::read(self, cx, segment).await.map(drop)
    }

    async fn claim(
        &self,
        cx: &Context,
        cluster: &ClusterName,
        server: &BinlogServer,
    ) -> Result<Box<dyn Claim>> {
        claim(cx, self, cluster, server).await
    }
}

/// What to do about a segment, where it is the segment that is damaged.
fn with_remedy(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Damaged => error.with_remedy(REMEDY),
        _ => error,
    }
}

impl Repo {
    async fn segment_info(
        &self,
        cluster: &ClusterName,
        server: &BinlogServer,
        seq: u64,
    ) -> Result<Option<SegmentInfo>> {
        let key = Key::Segment(cluster.clone(), server.clone(), seq);
        let place = self.place(&key);
        let Some(mut head) = self.store().get_range(&key, 0..HEAD).await? else {
            return Ok(None);
        };
        place.check_object_header(ObjectKind::Segment, &head)?;
        let header = frame_header(&place, &head, OBJECT_HEADER_LEN)?;
        let end = OBJECT_HEADER_LEN as u64 + u64::from(header.frame_len());
        if end > head.len() as u64 {
            head =
                self.store().get_range(&key, 0..end).await?.ok_or_else(|| missing_object(&key))?;
        }
        let (kind, json, _) = frame(&place, &head, OBJECT_HEADER_LEN)?;
        if kind != FrameKind::Segment {
            return Err(Error::damaged(format!("{key} does not begin with what is known of it")));
        }
        let info: SegmentInfo = serde_json::from_slice(&json)
            .map_err(|e| Error::damaged(format!("{key} cannot be understood")).with_source(e))?;
        let itself = &info.cluster == cluster && &info.server == server && info.seq == seq;
        let ordered = info.range.start < info.range.end && info.bytes() <= MAX_SEGMENT;
        if !itself || !ordered {
            return Err(Error::damaged(format!("{key} is another segment than it says")));
        }
        Ok(Some(info))
    }

    async fn read_segment(&self, cx: &Context, segment: &SegmentInfo) -> Result<Bytes> {
        let key = Key::Segment(segment.cluster.clone(), segment.server.clone(), segment.seq);
        let object = cx.run(self.store().get(&key, MAX_SEGMENT)).await?;
        let object = object.ok_or_else(|| missing_object(&key))?;
        let place = self.place(&key);
        let segment = segment.clone();
        tokio::task::spawn_blocking(move || content(&place, &object, &segment))
            .await
            .map_err(lost_task)?
    }
}

/// The parts of the object.
fn object(
    place: &Place,
    compression: Compression,
    info: Vec<u8>,
    content: &Bytes,
) -> Result<Vec<Bytes>> {
    let mut parts = vec![Bytes::copy_from_slice(&place.object_header(ObjectKind::Segment))];
    let mut offset = OBJECT_HEADER_LEN as u64;
    let mut add = |kind, compression, raw: Bytes| -> Result<()> {
        let frame = seal(place, offset, kind, compress(compression, raw)?)?;
        offset += u64::from(frame.header.frame_len());
        parts.extend([Bytes::copy_from_slice(&frame.head), frame.payload]);
        Ok(())
    };
    add(FrameKind::Segment, Compression::Zstd(3), info.into())?;
    let mut rest = content.clone();
    while !rest.is_empty() {
        add(FrameKind::Data, compression, rest.split_to(rest.len().min(FRAME)))?;
    }
    Ok(parts)
}

fn frame_header(place: &Place, object: &[u8], offset: usize) -> Result<FrameHeader> {
    let bytes = object.get(offset..).and_then(|rest| rest.first_chunk::<FRAME_HEADER_LEN>());
    bytes
        .ok_or_else(|| Error::damaged("a frame's header is cut off"))
        .and_then(FrameHeader::parse)
        .map_err(|e| e.context(format!("{} at byte {offset}", place.path())))
}

/// The frame at `offset`, checked: kind, content, and where the next one begins.
fn frame(place: &Place, object: &Bytes, offset: usize) -> Result<(FrameKind, Bytes, usize)> {
    let header = frame_header(place, object, offset)?;
    let end = offset + header.frame_len() as usize;
    if end > object.len() {
        return Err(Error::damaged(format!("{} is cut off at byte {offset}", place.path())));
    }
    let payload = object.slice(offset + FRAME_HEADER_LEN..end);
    Ok((header.kind, open(place, offset as u64, &header, payload)?, end))
}

/// The content of an object that is a whole segment.
fn content(place: &Place, object: &Bytes, segment: &SegmentInfo) -> Result<Bytes> {
    let damaged = |problem: &str| Err(Error::damaged(format!("{}: {problem}", place.path())));
    place.check_object_header(ObjectKind::Segment, object)?;
    let (kind, json, mut offset) = frame(place, object, OBJECT_HEADER_LEN)?;
    if kind != FrameKind::Segment || serde_json::from_slice(&json).ok().as_ref() != Some(segment) {
        return damaged("it is another segment than it was when it was listed");
    }
    // What the frames hold, not what was announced, decides about the memory.
    let mut content = BytesMut::new();
    while offset < object.len() {
        let (kind, bytes, end) = frame(place, object, offset)?;
        if kind != FrameKind::Data || (content.len() + bytes.len()) as u64 > segment.bytes() {
            return damaged("it holds more than it should");
        }
        content.extend_from_slice(&bytes);
        offset = end;
    }
    if content.len() as u64 != segment.bytes() {
        return damaged("its end is missing");
    }
    if hex(&Sha256::digest(&content)) != segment.sha256 {
        return damaged("its content does not match its digest");
    }
    Ok(content.freeze())
}
