//! What the archive has of a binlog that is damaged or lost there, put right from the binlog itself.

use backup_core::{Appended, BinlogChain, Error, ErrorKind, Event as Told, Result, SegmentInfo};

use super::super::segment::{Head, Upto, examine, hex_of, sha256};
use super::Rescue;
use super::place::Piece;

impl Rescue<'_> {
    /// Writes segments again that are damaged, where the piece has the very bytes that were archived.
    pub(super) async fn put_right(&mut self, piece: &Piece<'_>) -> Result<()> {
        let inside = |info: &&SegmentInfo| {
            piece.is_of(info) && piece.start <= info.range.start && info.range.end <= piece.limit
        };
        let inside: Vec<SegmentInfo> = self.known.iter().filter(inside).cloned().collect();
        for info in inside {
            self.cx.check()?;
            let damage = match self.store.read(self.cx, &info).await {
                Ok(_) => continue,
                Err(e) if e.kind() == ErrorKind::Damaged => e,
                Err(e) => return Err(e),
            };
            let len = usize::try_from(info.bytes()).unwrap_or(usize::MAX);
            let content = piece.read(info.range.start, len)?;
            if sha256(&content) != info.sha256 {
                self.warn(format!(
                    "segment {} ({}) is damaged in the archive, and {piece} has other bytes there: {}",
                    info.name(),
                    info.range,
                    damage.chain()
                ));
                continue;
            }
            self.store.replace_damaged(self.cx, &info, content).await?;
            self.has_put_right(&info);
        }
        Ok(())
    }

    /// Archives what is missing between two segments, where it is in the piece: their numbers tell that
    /// something was there.
    pub(super) async fn fill(&mut self, piece: &Piece<'_>) -> Result<()> {
        let of_server = self.known.iter().filter(|info| info.server == piece.server);
        let mut known: Vec<SegmentInfo> = of_server.cloned().collect();
        known.sort_by_key(|info| info.seq);
        for pair in known.windows(2) {
            let [last, next] = pair else { continue };
            let start = match piece.is_of(last) {
                true => last.range.end,
                false if last.file_after().as_ref() == Some(&piece.name) => 0,
                false => continue,
            };
            let end = if piece.is_of(next) { next.range.start } else { piece.limit };
            if last.seq + 1 == next.seq || start >= end || start < piece.start || end > piece.limit
            {
                continue;
            }
            let head = Head {
                cluster: self.cluster.clone(),
                server: piece.server.clone(),
                seq: last.seq + 1,
                file: piece.name.clone(),
                start,
                format_description: hex_of(&piece.format),
                before: last.after.clone(),
                state_before: last.state_after.clone(),
                begins_inside: last.ends_inside,
                gap_before: None,
            };
            let content = piece.read(start, usize::try_from(end - start).unwrap_or(usize::MAX))?;
            let found = match examine(&head, &content, Upto::End, sha256, self.cx.now()) {
                Ok(Some(info)) => info,
                Ok(None) => continue,
                Err(e) => {
                    self.warn(format!("{piece} cannot fill a hole in the archive: {}", e.chain()));
                    continue;
                }
            };
            let joined = vec![last.clone(), found.clone(), next.clone()];
            if !BinlogChain::new(joined).gaps().is_empty() {
                continue;
            }
            if self.store.append(self.cx, &found, content.clone()).await? == Appended::Taken {
                self.store.replace_damaged(self.cx, &found, content).await?;
            }
            self.has_put_right(&found);
            self.known.push(found);
        }
        Ok(())
    }

    pub(super) fn has_put_right(&mut self, info: &SegmentInfo) {
        self.cx.note(format!("segment {} ({}) is whole again", info.name(), info.range));
        self.result.put_right += 1;
    }

    pub(super) fn warn(&mut self, text: String) {
        self.cx.event(Told::Warning { text: text.clone() });
        self.result.warnings.push(text);
    }

    /// The piece is damaged at this byte, in what is archived.
    pub(super) fn damaged_here(&mut self, piece: &Piece<'_>, at: u64) {
        self.warn(format!(
            "{piece} is damaged at byte {at}, in what was archived before and is whole in the archive"
        ));
    }

    /// The archive has other bytes than the piece.
    pub(super) fn other(piece: &Piece<'_>, from: u64) -> Error {
        Error::new(
            ErrorKind::Source,
            format!("{piece} holds other events at {}:{from} than the archive", piece.name),
        )
        .with_remedy(
            "it is of another binlog, which --first-file can name, or of another server, which --server can name",
        )
    }
}
