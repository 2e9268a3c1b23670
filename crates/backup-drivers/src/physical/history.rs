//! Whether a server is still the one that it was: after a restore it goes on from an earlier point, and may have
//! the same LSNs with other pages.
//!
//! GTIDs tell nothing of that: what replication brought, or `gtid_slave_pos` was set to, is part of a position and may be
//! in no binary log of the server.

use std::fs::File;
use std::io::Result as IoResult;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use backup_core::{Flavor, Position, Result};
use xxhash_rust::xxh3::xxh3_128;

use super::details::Parent;
use crate::binlog::event::HEADER_LEN;
use crate::connect::Session;

/// How much of the binary log in front of a position is compared.
const TAIL: u64 = 64 << 10;
/// The first bytes of a file of the binary log, and of one that MySQL encrypts.
const PLAIN: [u8; 4] = *b"\xfebin";
const ENCRYPTED: [u8; 4] = *b"\xfdbin";
/// What MySQL puts before a file that it encrypts; positions do not count it.
const ENCRYPTION_HEADER: u64 = 512;
/// A process was there before a backup where it was started so many seconds before that began.
const WELL_BEFORE: u64 = 5;

/// What a server says of the process that it is, and where its binary log is.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// When it was started, in seconds since 1970.
    pub(super) started: Option<u64>,
    /// The directory of its binary logs, where it writes one.
    logs: Option<PathBuf>,
    /// Their names.
    files: Vec<String>,
}

impl Process {
    pub(super) async fn ask(session: &mut Session, flavor: Flavor) -> Result<Process> {
        let status = match flavor {
            Flavor::MariaDb => "information_schema.GLOBAL_STATUS",
            Flavor::MySql => "performance_schema.global_status",
        };
        // In one statement, so that both are of one moment, the one that it began: the servers count `Uptime` from a
        // time that they note when they start, so that the difference is that time, whatever the clock did since.
        let sql = format!(
            "SELECT CAST(UNIX_TIMESTAMP() - VARIABLE_VALUE AS SIGNED) FROM {status} WHERE VARIABLE_NAME = 'Uptime'"
        );
        let started: Option<Option<i64>> = session.query_first(&sql).await?;
        let started = started.flatten().and_then(|seconds| u64::try_from(seconds).ok());
        let sql = "SELECT @@GLOBAL.log_bin_basename";
        let base = session.query_first::<Option<String>>(sql).await?.flatten();
        let logs = base.and_then(|base| Some(PathBuf::from(base).parent()?.to_owned()));
        let mut files = Vec::new();
        if logs.is_some() {
            // An account that may not see them is told of it as such.
            let rows = session.query_rows::<mysql_async::Row>("SHOW BINARY LOGS").await;
            let rows = rows.unwrap_or_default();
            files.extend(rows.iter().filter_map(|row| row.get::<String, _>(0)));
        }
        Ok(Process { started, logs, files })
    }

    /// See [`tail`]; `None` where there is no binary log, or it cannot be read.
    pub(super) fn tail(&self, position: &Position) -> Option<String> {
        let (Some(directory), Some(file), Some(offset)) =
            (&self.logs, &position.file, position.offset)
        else {
            return None;
        };
        tail(&File::open(directory.join(file)).ok()?, offset).ok().flatten()
    }

    /// Why nothing proves that the files of the server have gone on from those of `parent`, if so. Files that somebody
    /// put back to an earlier state while the server was stopped may have any LSN by now, and the same identity.
    pub(super) fn unproven(&self, parent: &Parent) -> Option<String> {
        let goes_on = match (self.started, parent.server_started) {
            (Some(now), Some(then)) => now == then,
            (Some(now), None) => now + WELL_BEFORE < parent.began,
            (None, _) => false,
        };
        if goes_on {
            return None;
        }
        let anew = "the server was started anew since, and";
        let nothing =
            "nothing proves that its files were not put back to an earlier state meanwhile";
        let Some(file) = parent.position.file.as_ref().filter(|_| parent.position.offset.is_some())
        else {
            return Some(format!("{anew} without a binary log {nothing}"));
        };
        let Some(then) = &parent.binlog_tail else {
            return Some(format!(
                "{anew} that backup does not say what was in the binary log, which Holdfast could not read then, or \
                 was too old to look at: {nothing}"
            ));
        };
        if self.logs.is_none() {
            return Some(format!("{anew} its binary log is off now: {nothing}"));
        }
        if !self.files.contains(file) {
            return Some(format!(
                "{anew} {file} is not among its binary logs any more, purged or of another history: {nothing}"
            ));
        }
        match self.tail(&parent.position) {
            Some(now) if now == *then => None,
            Some(_) => Some(format!(
                "the binary log is another one now, with other bytes in front of {file}:{}: it was reset (RESET \
                 MASTER), or the files of the server were put back to an earlier state, or are another server's",
                parent.position.offset.unwrap_or_default()
            )),
            None => Some(format!(
                "{anew} {file} cannot be read up to the position of that backup: {nothing}"
            )),
        }
    }
}

/// XXH3-128, in hexadecimal digits, of the last bytes in front of `offset` in a file of the binary log, at most
/// [`TAIL`] of them. The event that describes the file is not among them, for it says whether the file is in use.
/// `None` where nothing else is there.
pub(super) fn tail(file: &File, offset: u64) -> IoResult<Option<String>> {
    let mut head = [0; PLAIN.len() + HEADER_LEN];
    file.read_exact_at(&mut head, 0)?;
    let (magic, event) = head.split_at(PLAIN.len());
    let (first, end) = match magic {
        magic if magic == PLAIN => {
            let length = [event[9], event[10], event[11], event[12]];
            (PLAIN.len() as u64 + u64::from(u32::from_le_bytes(length)), offset)
        }
        // How long that event is cannot be read there: at least as long as its header, where the flag is.
        magic if magic == ENCRYPTED => {
            (ENCRYPTION_HEADER + head.len() as u64, offset.saturating_add(ENCRYPTION_HEADER))
        }
        _ => return Ok(None),
    };
    let begin = end.saturating_sub(TAIL).max(first);
    if begin >= end {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(end - begin).unwrap_or_default()];
    file.read_exact_at(&mut bytes, begin)?;
    Ok(Some(format!("{:032x}", xxh3_128(&bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_what_is_before_the_position_without_its_description() {
        let mut bytes = b"\xfebin".to_vec();
        bytes.extend([0; 9]);
        bytes.extend(100_u32.to_le_bytes());
        bytes.resize(104, 7);
        bytes.extend((0..200_000_u32).map(|n| (n % 251) as u8));
        let of = |bytes: &[u8], offset: u64| {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, bytes).unwrap();
            tail(&file, offset)
        };
        let whole = |offset| of(&bytes, offset).unwrap();
        assert_eq!(whole(104), None);
        let short = whole(1000).unwrap();
        let mut used = bytes.clone();
        used[4 + 17] ^= 1;
        assert_eq!(of(&used, 1000).unwrap().as_ref(), Some(&short), "the flag of use");
        assert_eq!(of(&bytes[..1000], 1000).unwrap().as_ref(), Some(&short));
        used[999] ^= 1;
        assert_ne!(of(&used, 1000).unwrap().as_ref(), Some(&short));
        // Only so much.
        let long = whole(150_000).unwrap();
        assert_eq!(of(&used, 150_000).unwrap(), Some(long));
        // Gone, and no log.
        assert!(of(&bytes[..999], 1000).is_err());
        assert_eq!(of(&[0; 5000], 1000).unwrap(), None);
        // Encrypted, what is before it is not counted.
        let mut encrypted = b"\xfdbin".to_vec();
        encrypted.resize(512, 9);
        encrypted.extend(&bytes);
        let sum = of(&encrypted, 1000).unwrap();
        encrypted[100] ^= 1;
        assert_eq!(of(&encrypted, 1000).unwrap(), sum);
        encrypted[512 + 999] ^= 1;
        assert_ne!(of(&encrypted, 1000).unwrap(), sum);
    }

    #[test]
    fn only_the_same_process_needs_no_proof() {
        let parent = |started: Option<u64>| Parent {
            backup: "20260101T000000Z-full-aaaaaa".parse().unwrap(),
            server_uuid: None,
            instance: String::new(),
            system_file: None,
            version: String::new(),
            position: Position::default(),
            to_lsn: 1,
            last_table: None,
            server_started: started,
            binlog_tail: None,
            began: 1000,
        };
        for (now, then, proven) in [
            (Some(500), Some(500), true),
            (Some(501), Some(500), false),
            (Some(503), Some(500), false),
            (Some(500), None, true),
            (Some(999), None, false),
            (Some(1500), None, false),
            (None, Some(500), false),
        ] {
            let process = Process { started: now, ..Process::default() };
            assert_eq!(process.unproven(&parent(then)).is_none(), proven, "{now:?} {then:?}");
        }
    }
}
