//! What the servers' tools say and write about a backup: any text is understood or refused.

use backup_core::Flavor;
use backup_drivers::physical::{
    Checkpoints, Line, ToolVersion, binlog_position, diagnose, info_value,
};

pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        let read = Line::parse(line);
        // Nothing is added to what the tool said, and what was taken off is not taken off again.
        assert!(line.contains(&read.text));
        assert_eq!(Line::parse(&read.text).text, read.text);
    }
    if let Some((_, problem, remedy)) = diagnose(text.lines()) {
        assert!(!problem.is_empty() && !remedy.is_empty());
    }
    if let Ok(read) = Checkpoints::parse(&text) {
        let again = format!(
            "backup_type = {}\nfrom_lsn = {}\nto_lsn = {}\nlast_lsn = {}\n",
            read.backup_type, read.from_lsn, read.to_lsn, read.last_lsn
        );
        assert_eq!(Checkpoints::parse(&again).ok(), Some(read));
    }
    for flavor in [Flavor::MariaDb, Flavor::MySql] {
        if let Ok(position) = binlog_position(&text, flavor) {
            assert!(position.file.is_some() && position.offset.is_some());
        }
    }
    let _ = info_value(&text, "server_version");
    let _ = ToolVersion::parse(&text);
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        "backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 44760\nlast_lsn = 7119390\nrecover_binlog_info = 0\n",
        "binlog.000001\t1200\t0-1-7\nbinlog.000002\t1855\t0-1-9,1-2-3\n",
        "binlog.000003\t157\t3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:1\n",
        "uuid = f1\nname = \ntool_command = --x = y\nserver_version = 10.11.19-MariaDB\npartial = N\n",
        "[00] 2026-11-27 23:04:48 Acquired locks for BACKUP STAGE BLOCK_COMMIT\n[01] 2026-11-27 23:04:47 Streaming \
         ./shop/t.ibd to <STDOUT>\n[00] FATAL ERROR: 2026-11-27 23:04:48 odd\n[00] 2026-11-27 23:04:48 completed OK!\n",
        "2024-01-01T00:00:00.000000-00:00 0 [ERROR] [MY-011825] [Xtrabackup] log block numbers mismatch\n240101 00:00:00 \
         completed OK!\nxtrabackup: error: no space left on device\n",
        "/usr/bin/mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu (x86_64)\n",
        "xtrabackup version 8.0.35-31 based on MySQL server 8.0.35 Linux (x86_64) (revision id: 55ec21d7)\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
