//! Types of pages.

use std::fmt;

/// The type of a page, as its header says it. Values of MySQL and MariaDB do not collide, but for
/// those above 17 that only one of them has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageKind(pub u16);

impl PageKind {
    /// Never initialised, or freed.
    pub const ALLOCATED: PageKind = PageKind(0);
    /// The first page of a tablespace.
    pub const SPACE_HEADER: PageKind = PageKind(8);
    /// MySQL: a page of a table with `COMPRESSION=…`.
    pub const MYSQL_COMPRESSED: PageKind = PageKind(14);
    /// MySQL: encrypted.
    pub const MYSQL_ENCRYPTED: PageKind = PageKind(15);
    /// MySQL: compressed, then encrypted.
    pub const MYSQL_COMPRESSED_ENCRYPTED: PageKind = PageKind(16);
    /// MySQL: an encrypted page of a spatial index.
    pub const MYSQL_ENCRYPTED_RTREE: PageKind = PageKind(17);
    /// MySQL: overflow of the dictionary's records.
    pub const SDI_BLOB: PageKind = PageKind(18);
    /// MySQL: the dictionary's records about the tablespace.
    pub const SDI: PageKind = PageKind(17_853);
    /// A node of a spatial index.
    pub const RTREE: PageKind = PageKind(17_854);
    /// A node of an index.
    pub const INDEX: PageKind = PageKind(17_855);
    /// MariaDB: a page of a `PAGE_COMPRESSED` table in the format before full_crc32.
    pub const MARIADB_COMPRESSED: PageKind = PageKind(34_354);
    /// MariaDB: the same, encrypted.
    pub const MARIADB_COMPRESSED_ENCRYPTED: PageKind = PageKind(37_401);

    /// Whether MySQL says by this type that the page is encrypted.
    #[must_use]
    pub fn is_mysql_encrypted(self) -> bool {
        (Self::MYSQL_ENCRYPTED.0..=Self::MYSQL_ENCRYPTED_RTREE.0).contains(&self.0)
    }
}

impl fmt::Display for PageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "allocated",
            2 => "undo log",
            3 => "file segments",
            4 => "change buffer free list",
            5 => "change buffer bitmap",
            6 => "system",
            7 => "transaction system",
            8 => "space header",
            9 => "extents",
            10 => "BLOB",
            11 | 12 => "compressed BLOB",
            14 => "page compressed",
            15 | 17 => "encrypted",
            16 | 37_401 => "page compressed and encrypted",
            18 | 19 => "SDI BLOB",
            20 => "old doublewrite",
            21 => "rollback segments",
            22..=24 => "LOB",
            25..=29 => "compressed LOB",
            17_853 => "SDI",
            17_854 => "spatial index",
            17_855 => "index",
            34_354 => "page compressed",
            other => return write!(f, "type {other}"),
        })
    }
}
