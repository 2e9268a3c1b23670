//! Of which server, which binlog and which place in it a piece is.

use std::fmt;

use backup_core::{
    BinlogFile, BinlogServer, Error, ErrorKind, Flavor, Gtid, GtidSet, MariaDbBinlogState,
    MySqlGtidSet, Result, SegmentInfo,
};
use bytes::Bytes;

use super::super::event::{Events, Format, HEADER_LEN, MAGIC};
use super::super::gtid::{Begin, state_before, transactions_before};
use super::super::segment::{format_of, hex_of};
use super::super::source::Covered;
use super::kin::stranger;
use super::saved::{Part, Saved};
use super::writer::find;
use super::{LocalFile, Rescue, RescueOptions, WINDOW, as_closed, writer};

/// Bytes of one binlog.
pub(super) struct Piece<'a> {
    local: &'a LocalFile,
    pub(super) server: BinlogServer,
    pub(super) name: String,
    /// The binlog's first event.
    pub(super) format: Format,
    /// Where position `start` is in the local file.
    at: u64,
    /// Where it begins in the binlog.
    pub(super) start: u64,
    /// Where its last event ends that seems to be whole.
    pub(super) end: u64,
    /// Where it ends.
    pub(super) limit: u64,
    /// Of a piece of the middle of a binlog, the first transaction that begins in it, and where.
    first: Option<(Begin, u64)>,
    /// MySQL: what came before that binlog, where it is told.
    known_before: Option<GtidSet>,
}

impl<'a> Piece<'a> {
    /// All of a binlog.
    pub(super) fn of_file(local: &'a LocalFile, server: BinlogServer, name: String) -> Self {
        Piece {
            local,
            server,
            name,
            format: local.format.clone(),
            at: 0,
            start: 0,
            end: local.len,
            limit: local.len,
            first: None,
            known_before: None,
        }
    }

    pub(super) fn flavor(&self) -> Flavor {
        if self.format.is_mariadb() { Flavor::MariaDb } else { Flavor::MySql }
    }

    /// Up to `len` bytes from this place of the binlog on.
    pub(super) fn read(&self, position: u64, len: usize) -> Result<Bytes> {
        let len = usize::try_from(self.limit - position).unwrap_or(len).min(len);
        let bytes = self.local.bytes(self.at + (position - self.start), len)?;
        Ok(if position == 0 { as_closed(&bytes, &self.format) } else { bytes })
    }

    /// What the binlog says that came before it; `None` where that is not whole.
    fn before(&self) -> Result<Option<(GtidSet, Option<MariaDbBinlogState>)>> {
        let head = (MAGIC.len() + self.format.event.bytes().len()) as u64;
        let mut events = Events::new(self.read(head, WINDOW)?, head, self.format.checksum);
        // MariaDB may say first that the file is encrypted.
        for _ in 0..2 {
            let Ok(Some(event)) = events.next_whole() else { break };
            if let Some(before) = transactions_before(&event)? {
                return Ok(Some((before, state_before(&event)?)));
            }
        }
        Ok(None)
    }

    /// The same, where it is the start of the binlog or was told with the piece.
    pub(super) fn told_before(&self) -> Result<Option<(GtidSet, Option<MariaDbBinlogState>)>> {
        match self.start {
            0 => self.before(),
            _ => Ok(self.known_before.clone().map(|set| (set, None))),
        }
    }

    /// Whether a transaction begins in it of which that is so. What is behind damage is not looked at.
    pub(super) fn any(&self, mut is: impl FnMut(&Gtid) -> bool) -> Result<bool> {
        let head = (MAGIC.len() + self.format.event.bytes().len()) as u64;
        let from = if self.start == 0 { head } else { self.start };
        let read = |at, len| self.read(at, len);
        let found = find(read, from..self.end, self.format.checksum, |_, begin| {
            begin.gtid.as_ref().is_some_and(&mut is).then_some(())
        });
        Ok(found?.is_some())
    }

    /// Whether a segment is of the same binlog.
    pub(super) fn is_of(&self, info: &SegmentInfo) -> bool {
        info.server == self.server
            && info.range.file == self.name
            && info.range.began_at(self.format.started())
    }

    /// Where these bytes of the piece, which begin at `from`, are damaged, if up to there they are what is
    /// archived: an event that is not whole.
    fn damage(&self, from: u64, ours: &Bytes, archived: &[u8]) -> Option<u64> {
        let head = match from {
            0 => MAGIC.len() + self.format.event.bytes().len(),
            _ => 0,
        };
        let from = from + head as u64;
        let mut events =
            Events::new(ours.slice(head.min(ours.len())..), from, self.format.checksum);
        while let Ok(Some(_)) = events.next_whole() {}
        let at = usize::try_from(events.position() - from).ok()? + head;
        (at < ours.len() && archived.get(..at) == ours.get(..at)).then_some(events.position())
    }

    pub(super) fn is_another(&self) -> Error {
        Error::new(
            ErrorKind::Source,
            format!("{} is not of the {} that was archived", self.local.path.display(), self.name),
        )
        .with_remedy(
            "the server began its binlogs anew; archive them under another cluster name, with a \
             backup of their own",
        )
    }

    /// Whether the piece, from `start` on, comes right behind what is archived.
    pub(super) fn follows(&self, tip: &SegmentInfo, start: u64) -> bool {
        if tip.range.file == self.name {
            return tip.range.end == start;
        }
        if tip.ends_inside || tip.file_after().as_ref() != Some(&self.name) {
            return false;
        }
        // Its first event and, on MySQL, the one that says what came before.
        let head = (MAGIC.len() + self.format.event.bytes().len()) as u64;
        let before = match &tip.after {
            GtidSet::MySql(set) => HEADER_LEN + set.encode().len() + self.format.checksum.len(),
            _ => 0,
        };
        if start != head && start != head + before as u64 {
            return false;
        }
        // One that died wrote nobody knows how much into the last one; its transactions tell.
        tip.closes_file || start == head || self.goes_on_from(tip)
    }

    /// Whether the first transaction is the one behind the last of the archive.
    fn goes_on_from(&self, tip: &SegmentInfo) -> bool {
        match (self.first.as_ref().and_then(|(begin, _)| begin.gtid.as_ref()), &tip.after) {
            (Some(Gtid::MySql(first)), GtidSet::MySql(after)) => {
                after.last(first.tsid()).unwrap_or(0) + 1 == first.gno()
            }
            _ => false,
        }
    }

    /// Where the piece can be begun with by its transactions: everything before its first one is in the
    /// archive, from whichever server.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] where that is not so, or cannot be told.
    pub(super) fn enter(
        &self,
        tip: Option<&SegmentInfo>,
        covered: Option<Covered>,
    ) -> Result<(Covered, u64)> {
        let hole = |what: &str| {
            let between = match tip {
                Some(tip) if tip.range.file == self.name => format!(
                    "bytes {} to {} of {} are missing",
                    tip.range.end, self.start, self.name
                ),
                Some(tip) => format!(
                    "what is between {}:{} and {}:{} is missing",
                    tip.range.file, tip.range.end, self.name, self.start
                ),
                None => format!("what is before {}:{} is missing", self.name, self.start),
            };
            let path = self.local.path.display();
            Error::new(
                ErrorKind::Source,
                format!("{path} does not join the archive: {between}{what}"),
            )
            .with_remedy(
                "archive the binlogs of the server that took over, which has what a replica had, with \
                 `holdfast binlog backup`; then try again, or go on without the file",
            )
        };
        let Some((Begin { gtid: Some(first), .. }, place)) = &self.first else {
            return Err(hole(""));
        };
        let covered = covered.ok_or_else(|| hole("; nothing is archived"))?;
        let lacking = match (first, &covered.set) {
            (Gtid::MySql(first), GtidSet::MySql(have)) => {
                // A server counts its own transactions in the order of its binlog.
                let mut wanted = match &self.known_before {
                    Some(GtidSet::MySql(known)) => known.clone(),
                    _ => MySqlGtidSet::default(),
                };
                if first.gno() > 1 {
                    wanted.add_range(first.tsid().clone(), 1..=first.gno() - 1)?;
                }
                let lacking = wanted.subtract(have);
                (!lacking.is_empty()).then(|| lacking.to_string())
            }
            (Gtid::MariaDb(first), GtidSet::MariaDb(have)) => {
                let last = have.get(first.domain).map_or(0, |last| last.seq);
                let known = covered.state.as_ref().is_some_and(|state| state.contains(*first));
                // Another one of that number: the servers went apart.
                (last + 1 != first.seq && !known).then(|| {
                    format!("what is between {last} and {} in domain {}", first.seq, first.domain)
                })
            }
            _ => Some("those of another family".to_owned()),
        };
        match lacking {
            None => Ok((covered, *place)),
            Some(lacking) => Err(hole(&format!(", transactions {lacking}"))),
        }
    }
}

impl fmt::Display for Piece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.local.path.display().fmt(f)
    }
}

impl Rescue<'_> {
    /// Archives what is not archived yet of a file that MHA saved.
    pub(super) async fn saved(
        &mut self,
        path: &std::path::Path,
        options: &RescueOptions,
    ) -> Result<()> {
        let mut saved = Saved::open(path)?;
        if saved.parts.is_empty() {
            return Ok(());
        }
        let server = match &options.server {
            None => server_of(&saved, &self.known)?,
            Some(named) if options.anyway => named.clone(),
            named => writer::agreed(path, own(&saved)?.as_ref(), named.as_ref())?,
        };
        let told = options.first_file.as_ref();
        let names = self.names(&mut saved, &server, told).await?;
        let last = saved.parts.len() - 1;
        if self.kin.is_new(&server) && !options.anyway {
            let mut known = None;
            for (at, (part, name)) in saved.parts.iter().zip(&names).enumerate().rev() {
                let piece = saved.piece(at, part, server.clone(), name.to_string())?;
                known = self.kin.knows_piece(&piece)?;
                if known.is_some() {
                    break;
                }
            }
            if known != Some(true) {
                return Err(stranger(path, &server, self.cluster));
            }
        }
        for (at, (part, name)) in saved.parts.iter().zip(names).enumerate() {
            self.cx.check()?;
            let piece = saved.piece(at, part, server.clone(), name.to_string())?;
            self.cx.note(format!("{}:{}-{}", piece.name, piece.start, piece.end));
            self.put_right(&piece).await?;
            if let Some(at) = self.compare(&piece, &self.known).await? {
                self.damaged_here(&piece, at);
            }
            self.piece(&piece, at == last).await?;
        }
        self.tell_lacking(&server)
    }

    /// The names of the binlogs that the parts are of. Where the head turns out to be that of another one, it
    /// is taken away.
    async fn names(
        &self,
        saved: &mut Saved,
        server: &BinlogServer,
        told: Option<&BinlogFile>,
    ) -> Result<Vec<BinlogFile>> {
        let path = saved.local.path.display().to_string();
        let head = hex_of(&saved.local.format);
        let of_head =
            self.known.iter().filter(|s| s.server == *server && s.format_description == head);
        let mut of_head: Vec<BinlogFile> =
            of_head.filter_map(|info| info.range.file.parse().ok()).collect();
        of_head.dedup();
        let names = match (saved.names()?, told) {
            (Some(names), Some(told)) if names[0] != *told => {
                return Err(Error::usage(format!(
                    "{path} begins with {}, and not with {told}",
                    names[0]
                ))
                .with_remedy("leave --first-file out"));
            }
            (Some(names), _) => names,
            (None, Some(told)) => saved.names_from(told)?,
            (None, None) => {
                let first = self.first_name(saved, server, &of_head).await?;
                saved.names_from(&first)?
            }
        };
        let of_another = !of_head.is_empty() && !of_head.contains(&names[0]);
        if of_another || !saved.head_fits()? {
            saved.drop_head();
        }
        Ok(names)
    }

    /// The name of the first binlog, by what is archived: the one that begins with this head and has these
    /// events, or the one behind the end of the archive.
    async fn first_name(
        &self,
        saved: &Saved,
        server: &BinlogServer,
        of_head: &[BinlogFile],
    ) -> Result<BinlogFile> {
        let mut other = None;
        for name in of_head {
            let piece = saved.piece(0, &saved.parts[0], server.clone(), name.to_string())?;
            match self.compare(&piece, &self.known).await {
                Ok(_) => return Ok(name.clone()),
                Err(e) if e.kind() == ErrorKind::Source => other = Some(e),
                Err(e) => return Err(e),
            }
        }
        let next = self.tip(server).and_then(|tip| tip.file_after()?.parse().ok());
        match next {
            Some(next) if saved.parts[0].start <= saved.head => Ok(next),
            _ => Err(other.unwrap_or_else(|| {
                Error::new(
                    ErrorKind::Source,
                    format!("nothing tells of which binlog {} is", saved.local.path.display()),
                )
                .with_remedy(
                    "name it with --first-file: MHA's log says `Concat binary/relay logs from` and the name",
                )
            })),
        }
    }

    /// Where a binlog of this name is archived, it has to be this one: what the archive has of its start says that
    /// the same came before it, and the last piece of the archive has the same bytes.
    pub(super) async fn is_archived_one(&mut self, piece: &Piece<'_>) -> Result<()> {
        let mut same = self.known.iter().filter(|info| piece.is_of(info));
        if let Some(first) = same.next()
            && first.range.start == 0
            && let Some((before, state)) = piece.before()?
            && (before != first.before || state != first.state_before)
        {
            return Err(piece.is_another());
        }
        match self.tip(&piece.server) {
            Some(tip) if tip.range.file == piece.name => {
                let damage = self.compare(piece, std::slice::from_ref(&tip)).await?;
                if let Some(at) = damage {
                    self.damaged_here(piece, at);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What is archived of the piece has to be what is in it, up to where the piece is damaged: gives that place.
    async fn compare(&self, piece: &Piece<'_>, known: &[SegmentInfo]) -> Result<Option<u64>> {
        let mut damaged = None;
        for info in known.iter().filter(|info| piece.is_of(info)) {
            self.cx.check()?;
            let (from, to) = (info.range.start.max(piece.start), info.range.end.min(piece.end));
            if from >= to {
                continue;
            }
            let archived = self.store.read(self.cx, info).await?;
            let len = usize::try_from(to - from).unwrap_or(usize::MAX);
            let skip = usize::try_from(from - info.range.start).unwrap_or(usize::MAX);
            let ours = piece.read(from, len)?;
            let there = archived.get(skip..skip.saturating_add(len)).unwrap_or_default();
            if there != &ours[..] {
                match piece.damage(from, &ours, there) {
                    Some(at) => damaged = damaged.or(Some(at)),
                    None => return Err(Self::other(piece, from)),
                }
            }
        }
        Ok(damaged)
    }
}

impl Saved {
    fn piece(
        &self,
        at: usize,
        part: &Part,
        server: BinlogServer,
        name: String,
    ) -> Result<Piece<'_>> {
        let torn = match at + 1 == self.parts.len() {
            true => self.local.len - (part.at + (part.end - part.start)),
            false => 0,
        };
        let format = match &part.format {
            Some(format) => format.clone(),
            None => self.local.format.of_unknown_time(),
        };
        Ok(Piece {
            local: &self.local,
            server,
            name,
            known_before: if part.format.is_some() { self.before.clone() } else { None },
            format,
            at: part.at,
            start: part.start,
            end: part.end,
            limit: part.end + torn,
            first: if part.start > 0 { self.first(part)? } else { None },
        })
    }

    /// Whether the head can be that of the binlog that follows it: where nothing of the first binlog was left to
    /// be saved, it is that of the one before.
    fn head_fits(&self) -> Result<bool> {
        let part = &self.parts[0];
        let (Some(GtidSet::MySql(before)), 0) = (&self.before, part.start) else {
            return Ok(true);
        };
        Ok(match self.first(part)? {
            Some((Begin { gtid: Some(Gtid::MySql(first)), .. }, _)) => {
                before.last(first.tsid()).unwrap_or(0) + 1 == first.gno()
            }
            _ => true,
        })
    }

    fn drop_head(&mut self) {
        let part = &mut self.parts[0];
        part.format = None;
        if part.start == 0 {
            part.start = self.head;
            part.at = self.head;
        }
    }
}

/// Who wrote what was saved, by its own word.
fn own(saved: &Saved) -> Result<Option<BinlogServer>> {
    let format = &saved.local.format;
    let id = format.event.header().server_id;
    if format.is_mariadb() {
        return Ok(Some(BinlogServer::of_id(id)));
    }
    // What it committed itself has its server_id, and its server_uuid in the GTID.
    for part in &saved.parts {
        let own = saved.find(part, |event, begin, _| match &begin.gtid {
            Some(Gtid::MySql(gtid)) if event.header().server_id == id => Some(gtid.tsid().uuid),
            _ => None,
        })?;
        if let Some(uuid) = own {
            return Ok(Some(BinlogServer::of_uuid(uuid)));
        }
    }
    Ok(None)
}

/// Who wrote what was saved, by its own word and by what is archived.
fn server_of(saved: &Saved, known: &[SegmentInfo]) -> Result<BinlogServer> {
    let format = &saved.local.format;
    let head = hex_of(format);
    let archived = known.iter().find(|info| info.format_description == head);
    if let (Some(info), false) = (archived, format.is_mariadb()) {
        return Ok(info.server.clone());
    }
    if let Some(own) = own(saved)? {
        return Ok(own);
    }
    let id = format.event.header().server_id;
    let mut servers: Vec<&BinlogServer> = known
        .iter()
        .filter(|info| {
            format_of(&info.format_description)
                .is_ok_and(|format| format.event.header().server_id == id)
        })
        .map(|info| &info.server)
        .collect();
    servers.dedup();
    match &servers[..] {
        [server] => Ok((*server).clone()),
        _ => Err(Error::usage(format!(
            "nothing in {} tells which server wrote it",
            saved.local.path.display()
        ))
        .with_remedy("name it with --server and its server_uuid")),
    }
}
