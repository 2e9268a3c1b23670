//! Tablespaces: any bytes are pages or are refused, in the same way however they are cut into pieces.

use std::io::Cursor;

use backup_drivers::innodb::{
    PageChecker, TableFile, gtid_executed, innodb_tables, is_tablespace, mysql_files, read_sdi,
};

pub fn run(bytes: &[u8]) {
    let mut whole = PageChecker::new();
    whole.push(bytes);
    let whole = whole.finish();
    let mut pieces = PageChecker::new();
    bytes.chunks(1_000).for_each(|piece| pieces.push(piece));
    assert_eq!(pieces.finish(), whole);
    let good = whole.sound.values().sum::<u64>() + whole.zero + whole.compressed + whole.encrypted;
    assert!(good + whole.doublewrite <= whole.pages);
    let _ = gtid_executed(&mut Cursor::new(bytes));
    let _ = mysql_files(&mut Cursor::new(bytes));
    let _ = innodb_tables(&mut Cursor::new(bytes));
    if let Ok(found) = read_sdi(&mut Cursor::new(bytes)) {
        found.iter().for_each(|sdi| {
            let _ = sdi.table();
        });
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]);
    let _ = (TableFile::of(&text), is_tablespace(&text));
}

pub fn seeds() -> Vec<Vec<u8>> {
    // 4 KiB pages of MySQL with a dictionary, MariaDB's full_crc32, and KEY_BLOCK_SIZE=1.
    let named = innodb_tables(&mut Cursor::new(system())).ok().flatten().unwrap_or_default();
    assert_eq!(named.len(), 1, "{named:?}");
    let spaces = [3 << 6 | 1 << 14 | 0x21, 0x13, 0x23].map(space);
    [&spaces[..], &[system()]].concat()
}

/// The first nine pages of a system tablespace, whose dictionary names one table.
fn system() -> Vec<u8> {
    let mut file = vec![0; 9 * 4096];
    for (number, page) in file.chunks_mut(4096).enumerate() {
        page[..4].copy_from_slice(&0xDEAD_BEEF_u32.to_be_bytes());
        page[4..8].copy_from_slice(&(number as u32).to_be_bytes());
        page[4088..4092].copy_from_slice(&0xDEAD_BEEF_u32.to_be_bytes());
        let kind: u16 = [8, 6, 17_855][usize::from(number >= 7) + usize::from(number == 8)];
        page[24..26].copy_from_slice(&kind.to_be_bytes());
        page[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
    }
    // The root of SYS_TABLES, and one record between the first and the last: ends of its columns, whether these are
    // of one byte, the next record.
    file[54..58].copy_from_slice(&(3_u32 << 6).to_be_bytes());
    file[7 * 4096 + 73] = 8;
    let root = &mut file[8 * 4096..];
    root[99..101].copy_from_slice(&200_u16.to_be_bytes());
    root[184..194].copy_from_slice(&[12, 8, 8, 4, 4, 4, 4, 4, 4, 4]);
    root[197..200].copy_from_slice(&[1, 0, 116]);
    root[200..212].copy_from_slice(b"a/bc\0\0\0\0\0\0\0\x07");
    file
}

/// A tablespace of three pages, without checksums.
fn space(flags: u32) -> Vec<u8> {
    let size = if flags & 0xf == 3 && flags & 0x20 != 0 { 1024 } else { 4096 };
    let mut file = vec![0; 3 * size];
    for (number, page) in file.chunks_mut(size).enumerate() {
        page[..4].copy_from_slice(&0xDEAD_BEEF_u32.to_be_bytes());
        page[4..8].copy_from_slice(&(number as u32).to_be_bytes());
        page[size - 8..size - 4].copy_from_slice(&0xDEAD_BEEF_u32.to_be_bytes());
        page[34..38].copy_from_slice(&7_u32.to_be_bytes());
        let kind: u16 = if number == 0 { 8 } else { 17_853 };
        page[24..26].copy_from_slice(&kind.to_be_bytes());
        // The first record of the page: the supremum.
        page[97..99].copy_from_slice(&13_u16.to_be_bytes());
        page[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
    }
    file[38..42].copy_from_slice(&7_u32.to_be_bytes());
    file[54..58].copy_from_slice(&flags.to_be_bytes());
    if size == 4096 {
        // Where the dictionary is: version 1, root 1.
        let at = 150 + (24 + 256 / 4) * 16 + 115;
        file[at..at + 8].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    }
    file
}
