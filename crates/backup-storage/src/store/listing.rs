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
    /// Names of objects with their lengths.
    pub objects: Vec<(String, u64)>,
    /// Names of directories.
    pub directories: Vec<String>,
    /// When each of `objects` was written, in the same order.
    modified: Vec<Timestamp>,
}

impl Listing {
    fn new(mut objects: Vec<(String, Meta)>, mut directories: Vec<String>) -> Self {
        objects.sort_by(|(a, _), (b, _)| a.cmp(b));
        directories.sort();
        let modified = objects.iter().map(|(_, meta)| meta.modified).collect();
        let objects = objects.into_iter().map(|(name, meta)| (name, meta.bytes)).collect();
        Listing { objects, directories, modified }
    }

    /// Every object with all that is known of it.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Meta)> {
        self.objects
            .iter()
            .zip(&self.modified)
            .map(|((name, bytes), &modified)| (name.as_str(), Meta { bytes: *bytes, modified }))
    }

    /// What is known of one object; `None` when it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Meta> {
        self.entries().find(|(found, _)| *found == name).map(|(_, meta)| meta)
    }

    /// When the newest of the objects was written; `None` when there is none.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.modified.iter().copied().max()
    }
}

impl From<ListResult> for Listing {
    fn from(found: ListResult) -> Self {
        let name = |path: &Path| path.filename().map(str::to_owned);
        let object = |meta: &ObjectMeta| Some((name(&meta.location)?, Meta::from(meta)));
        Listing::new(
            found.objects.iter().filter_map(object).collect(),
            found.common_prefixes.iter().filter_map(name).collect(),
        )
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
