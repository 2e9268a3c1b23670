//! What the redo log of a stopped server tells: which server wrote it, and whether it was shut down
//! in order.
//!
//! Layouts: MySQL 8.0.30 and later, `log0files_io.h` (files `#innodb_redo/#ib_redoN`); MariaDB 10.8
//! and later, `log0log.h` and `log0recv.cc` (`ib_logfile0`); before these, `ib_logfile0` of both, with
//! the LSN of the last shutdown in the system tablespace.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Flavor, Result, io_error};

/// Header blocks before the log itself in a file of MySQL.
const MYSQL_HEADER: u64 = 2048;
const BLOCK: u64 = 512;
/// Where the checkpoints are in the first blocks of a file.
const CHECKPOINTS: [u64; 2] = [512, 1536];
/// The same in MariaDB 10.8 and later, and where the log begins there.
const MARIADB_CHECKPOINTS: [u64; 2] = [4096, 8192];
const MARIADB_START: u64 = 12_288;
/// The record that MariaDB writes with each checkpoint: type, tablespace and page 0, LSN, end mark,
/// CRC-32C.
const FILE_CHECKPOINT: u64 = 16;
/// The longest mini-transaction (`MTR_SIZE_MAX`).
const MTR_MAX: u64 = 1 << 20;
/// `log_t::FORMAT_10_8`, "Phys"; the highest bit of the first byte: the log is encrypted.
const FORMAT_10_8: u32 = 0x5068_7973;

/// What a redo log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Redo {
    pub(super) flavor: Flavor,
    /// The version of the server that made it.
    pub(super) version: String,
    /// `None` when nothing is left to recover, else why that cannot be said.
    pub(super) unclean: Option<String>,
}

impl Redo {
    /// Reads the redo log in `log`, and the first file of the system tablespace, `system`.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when there is none, or it is of no server that is known.
    pub(super) fn read(log: &Path, system: &Path) -> Result<Redo> {
        let files = files(log)?;
        let read = || -> std::io::Result<Option<Redo>> {
            let first = Log::open(&files[0])?;
            let creator = first.creator()?;
            let Some((flavor, version)) = creator_of(&creator) else { return Ok(None) };
            let unclean = match (flavor, first.word(0)?) {
                (Flavor::MariaDb, FORMAT_10_8) => mariadb(&first)?,
                (Flavor::MariaDb, format) if format & 0x7fff_ffff == FORMAT_10_8 & 0x7fff_ffff => {
                    Some("its redo log is encrypted".to_owned())
                }
                _ => by_shutdown_lsn(&files, system)?,
            };
            Ok(Some(Redo { flavor, version, unclean }))
        };
        let shown = files[0].display();
        match read() {
            Ok(Some(redo)) => Ok(redo),
            Ok(None) => Err(Error::new(
                ErrorKind::Source,
                format!("{shown} is no redo log of a server that is known"),
            )
            .with_remedy("see the documentation for the versions that can be copied")),
            Err(e) => Err(io_error(e, ErrorKind::Source, format!("cannot read {shown}"))),
        }
    }
}

/// The files of a redo log, in no order.
pub(super) fn files(log: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (directory, prefix) in [
        (log.join("#innodb_redo"), "#ib_redo"),
        (log.to_owned(), "ib_logfile"),
        (log.to_owned(), "#ib_redo"),
    ] {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
            if number.is_some_and(|number| number.parse::<u64>().is_ok()) {
                found.push(entry.path());
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(Error::new(ErrorKind::Source, format!("there is no redo log in {}", log.display()))
        .with_remedy(
            "name the data directory of a MySQL or MariaDB server; where its redo log is elsewhere \
             (innodb_log_group_home_dir), name that too: file:///var/lib/mysql?redo=/directory",
        ))
}

/// Which server a redo log is of: `MySQL 9.7.4`, `MariaDB 10.11.19`, `Backup 10.11.19`.
fn creator_of(creator: &str) -> Option<(Flavor, String)> {
    let (name, version) = creator.split_once(' ')?;
    let flavor = match name {
        "MySQL" | "Percona" => Flavor::MySql,
        "MariaDB" | "Backup" => Flavor::MariaDb,
        _ => return None,
    };
    let version = version.trim();
    let numbers = version.split(['-', ' ']).next().unwrap_or_default();
    let ok = numbers.split('.').all(|part| part.parse::<u16>().is_ok());
    (ok && numbers.contains('.')).then(|| (flavor, version.to_owned()))
}

struct Log {
    file: File,
    len: u64,
}

impl Log {
    fn open(path: &Path) -> std::io::Result<Log> {
        let file = File::open(path)?;
        Ok(Log { len: file.metadata()?.len(), file })
    }

    fn bytes<const N: usize>(&self, at: u64) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    fn word(&self, at: u64) -> std::io::Result<u32> {
        self.bytes(at).map(u32::from_be_bytes)
    }

    fn long(&self, at: u64) -> std::io::Result<u64> {
        self.bytes(at).map(u64::from_be_bytes)
    }

    fn creator(&self) -> std::io::Result<String> {
        let name: [u8; 32] = self.bytes(16)?;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        Ok(String::from_utf8_lossy(&name[..end]).into_owned())
    }

    /// Whether a block of 512 bytes has the checksum it should have.
    fn is_whole(&self, block: u64) -> std::io::Result<bool> {
        let bytes: [u8; BLOCK as usize] = self.bytes(block)?;
        let (content, sum) = bytes.split_at(508);
        Ok(sum == crc32c::crc32c(content).to_be_bytes())
    }
}

/// Servers that write the LSN of an orderly shutdown into the first page of the system tablespace
/// (`FIL_PAGE_FILE_FLUSH_LSN`, at 26): it must be that of the last checkpoint, and nothing in the log
/// behind it.
fn by_shutdown_lsn(files: &[PathBuf], system: &Path) -> std::io::Result<Option<String>> {
    let shutdown = Log::open(system)?.long(26)?;
    let mut last = 0;
    for path in files {
        let log = Log::open(path)?;
        for block in CHECKPOINTS {
            if log.is_whole(block)? {
                last = last.max(log.long(block + 8)?);
            }
        }
    }
    if last != shutdown {
        return Ok(Some(format!(
            "its last checkpoint is at LSN {last}, its last orderly shutdown was at LSN {shutdown}"
        )));
    }
    // The block in which the log ends says how full it is.
    for path in files {
        let log = Log::open(path)?;
        let start = log.long(8)? / BLOCK * BLOCK;
        let Some(at) = (last / BLOCK * BLOCK).checked_sub(start) else { continue };
        let block = MYSQL_HEADER.saturating_add(at);
        if block.saturating_add(BLOCK) <= log.len && path.to_string_lossy().contains("#ib_redo") {
            let full = u64::from(log.word(block + 4)? >> 16 & 0x7fff);
            if log.is_whole(block)? && full > last % BLOCK {
                return Ok(Some(format!(
                    "its redo log goes on behind the checkpoint at LSN {last}"
                )));
            }
        }
    }
    Ok(None)
}

/// MariaDB 10.8 and later: after an orderly shutdown, the last checkpoint is of its own end, and only
/// its own record follows.
fn mariadb(log: &Log) -> std::io::Result<Option<String>> {
    let first_lsn = log.long(8)?;
    let mut checkpoint = None;
    for at in MARIADB_CHECKPOINTS {
        let block: [u8; 64] = log.bytes(at)?;
        if block[60..] == crc32c::crc32c(&block[..60]).to_be_bytes() {
            checkpoint = checkpoint.max(Some((log.long(at)?, log.long(at + 8)?)));
        }
    }
    let Some((lsn, end)) = checkpoint else {
        return Ok(Some("its redo log has no checkpoint that is whole".to_owned()));
    };
    if lsn != end {
        return Ok(Some(format!("its redo log from LSN {lsn} to {end} is not applied")));
    }
    let Some(capacity) = log.len.checked_sub(MARIADB_START).filter(|&n| n > 0) else {
        return Ok(Some("its redo log is too short".to_owned()));
    };
    // No log is so long that its numbers come near their end.
    let Some(at) = end.checked_sub(first_lsn).filter(|&at| at < 1 << 62) else {
        return Ok(Some("its checkpoint is not in its redo log".to_owned()));
    };
    let ring = Ring { log, capacity };
    if ring.mini_transaction(at)? != Some(FILE_CHECKPOINT) {
        return Ok(Some(format!("the checkpoint at LSN {end} has no record of its own")));
    }
    Ok(ring
        .mini_transaction(at + FILE_CHECKPOINT)?
        .map(|_| format!("its redo log goes on behind the checkpoint at LSN {end}")))
}

/// The log of MariaDB as a ring of bytes.
struct Ring<'a> {
    log: &'a Log,
    capacity: u64,
}

impl Ring<'_> {
    fn byte(&self, at: u64) -> std::io::Result<u8> {
        self.log.bytes::<1>(MARIADB_START + at % self.capacity).map(|[byte]| byte)
    }

    /// The length of the mini-transaction at `at`, with its end mark and checksum; `None` when none
    /// that is whole begins there.
    fn mini_transaction(&self, start: u64) -> std::io::Result<Option<u64>> {
        let mut bytes = Vec::new();
        let mut at = start;
        // Type and length: the lower four bits, or 0 and a number of variable length.
        loop {
            let head = self.byte(at)?;
            if head <= 1 {
                break;
            }
            let mut len = u64::from(head & 0xf);
            if len == 0 {
                len = self.number(at + 1)?.saturating_add(15);
            }
            at += 1 + len;
            if at - start > MTR_MAX {
                return Ok(None);
            }
        }
        // The mark changes each time that the log begins anew.
        let mark = u8::from((at / self.capacity).is_multiple_of(2));
        if at == start || self.byte(at)? != mark {
            return Ok(None);
        }
        for at in start..at {
            bytes.push(self.byte(at)?);
        }
        let mut sum = [0; 4];
        for (n, byte) in sum.iter_mut().enumerate() {
            *byte = self.byte(at + 1 + n as u64)?;
        }
        let whole = sum == crc32c::crc32c(&bytes).to_be_bytes();
        Ok(whole.then_some(at + 5 - start))
    }

    /// A number of one to five bytes (`mlog_decode_varint`).
    fn number(&self, at: u64) -> std::io::Result<u64> {
        let first = self.byte(at)?;
        let more = match first {
            0..0x80 => 0,
            0x80..0xc0 => 1,
            0xc0..0xe0 => 2,
            0xe0..0xf0 => 3,
            _ => 4,
        };
        let mut value = u64::from(first) & (0x7f >> more);
        let mut base = 0;
        for n in 0..more {
            value = value << 8 | u64::from(self.byte(at + 1 + n)?);
            base += 1 << (7 * (n + 1));
        }
        Ok(value + base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A redo log of MariaDB whose checkpoint says this, with zeros behind it.
    fn mariadb_log(lsn: u64, end: u64, first: u64, record: &[u8]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let mut log = vec![0; MARIADB_START as usize + 4096];
        log[..4].copy_from_slice(&FORMAT_10_8.to_be_bytes());
        log[8..16].copy_from_slice(&first.to_be_bytes());
        log[16..32].copy_from_slice(b"MariaDB 10.11.19");
        let block = &mut log[4096..4160];
        block[..8].copy_from_slice(&lsn.to_be_bytes());
        block[8..16].copy_from_slice(&end.to_be_bytes());
        let sum = crc32c::crc32c(&block[..60]).to_be_bytes();
        block[60..].copy_from_slice(&sum);
        let at = MARIADB_START as usize;
        log[at..at + record.len()].copy_from_slice(record);
        std::fs::write(dir.path().join("ib_logfile0"), log).unwrap();
        let redo = Redo::read(dir.path(), dir.path()).unwrap();
        assert_eq!((redo.flavor, redo.version.as_str()), (Flavor::MariaDb, "10.11.19"));
        redo.unclean
    }

    fn checkpoint_record() -> Vec<u8> {
        // FILE_CHECKPOINT, 10 bytes follow: tablespace 0, page 0, LSN; then the mark of the first lap.
        let mut record = [&[0xfa, 0, 0][..], &12_345_u64.to_be_bytes()].concat();
        let sum = crc32c::crc32c(&record).to_be_bytes();
        record.push(1);
        record.extend(sum);
        record
    }

    #[test]
    fn a_log_that_ends_with_its_checkpoint_is_clean_and_no_other() {
        let record = checkpoint_record();
        assert_eq!(record.len() as u64, FILE_CHECKPOINT);
        assert_eq!(mariadb_log(12_345, 12_345, 12_345, &record), None);
        let twice = [record.clone(), record.clone()].concat();
        let goes_on = mariadb_log(12_345, 12_345, 12_345, &twice).unwrap();
        assert!(goes_on.contains("goes on"), "{goes_on}");
        let mut damaged = record.clone();
        damaged[5] ^= 1;
        assert!(mariadb_log(12_345, 12_345, 12_345, &damaged).is_some());
        assert!(mariadb_log(12_345, 12_400, 12_345, &record).is_some());
        // Numbers that no server writes.
        for (end, first) in [(0, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX), (1 << 62, 0)] {
            let _ = mariadb_log(end, end, first, &record);
        }
    }

    #[test]
    fn numbers_of_a_hostile_log_of_mysql_overflow_nothing() {
        for (lsn, start) in [(u64::MAX, 0), (u64::MAX, u64::MAX), (0, u64::MAX), (8704, 8192)] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("#innodb_redo")).unwrap();
            let mut log = vec![0; 8192];
            log[8..16].copy_from_slice(&start.to_be_bytes());
            log[16..27].copy_from_slice(b"MySQL 9.7.4");
            log[520..528].copy_from_slice(&lsn.to_be_bytes());
            let sum = crc32c::crc32c(&log[512..1020]).to_be_bytes();
            log[1020..1024].copy_from_slice(&sum);
            std::fs::write(dir.path().join("#innodb_redo/#ib_redo7"), log).unwrap();
            let mut system = vec![0; 16_384];
            system[26..34].copy_from_slice(&lsn.to_be_bytes());
            std::fs::write(dir.path().join("ibdata1"), system).unwrap();
            let redo = Redo::read(dir.path(), &dir.path().join("ibdata1")).unwrap();
            assert_eq!(redo.flavor, Flavor::MySql);
        }
    }

    #[test]
    fn creators() {
        let version = |text: &str| creator_of(text).map(|(_, version)| version);
        assert_eq!(version("MySQL 9.7.4").as_deref(), Some("9.7.4"));
        assert_eq!(version("MariaDB 10.11.19").as_deref(), Some("10.11.19"));
        assert_eq!(version("MariaDB 11.8.9-MariaDB").as_deref(), Some("11.8.9-MariaDB"));
        for bad in ["", "MySQL", "Oracle 9.7", "MySQL x.y", "MySQL 9"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }
}
