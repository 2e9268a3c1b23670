//! What a store tells of objects without reading them.

use jiff::Timestamp;
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta};

/// What the store knows of an object without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was written, by the store's own clock (that of the file server, of the object store,
    /// or of this machine for a local disk). Full seconds are all that some stores tell.
    pub modified: Timestamp,
}

/// What a directory of the store holds directly, sorted by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Names of objects, and what is known of them.
    pub objects: Vec<(String, Meta)>,
    /// Names of directories.
    pub directories: Vec<String>,
}

impl Listing {
    /// What is known of one object; `None` when it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Meta> {
        let at = self.objects.binary_search_by(|(found, _)| found.as_str().cmp(name)).ok()?;
        Some(self.objects[at].1)
    }

    /// Adds objects of the same directory in another store, but for those that are here as well.
    pub(crate) fn merge(&mut self, other: Listing) {
        self.objects.extend(other.objects);
        // Stable: of two with one name, the first was here before.
        self.objects.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.objects.dedup_by(|(later, _), (earlier, _)| later == earlier);
    }
}

impl From<ListResult> for Listing {
    fn from(found: ListResult) -> Self {
        let name = |path: &Path| path.filename().map(str::to_owned);
        let object = |meta: &ObjectMeta| Some((name(&meta.location)?, Meta::from(meta)));
        let mut objects: Vec<_> = found.objects.iter().filter_map(object).collect();
        let mut directories: Vec<_> = found.common_prefixes.iter().filter_map(name).collect();
        objects.sort_by(|(a, _), (b, _)| a.cmp(b));
        directories.sort();
        Listing { objects, directories }
    }
}

impl From<&ObjectMeta> for Meta {
    fn from(meta: &ObjectMeta) -> Self {
        // Times outside of what we can count are no times at all.
        let modified =
            Timestamp::from_millisecond(meta.last_modified.timestamp_millis()).unwrap_or_default();
        Meta { bytes: meta.size, modified }
    }
}
