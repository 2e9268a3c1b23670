//! Copies of a repository that stand in for what is damaged or gone: only frames whose check passes
//! are taken.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use backup_core::{Context, Error, ErrorKind, Event, Result};
use bytes::Bytes;

use crate::key::Key;
use crate::scan::is_damage;
use crate::shelf::Elsewhere;
use crate::sync::lock;

/// The copies that reads fall back to. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Copies(Option<Arc<Known>>);

#[derive(Debug)]
struct Known {
    cx: Context,
    places: Vec<Elsewhere>,
    /// Objects of which people were told that a copy stands in.
    told: Mutex<HashSet<Key>>,
}

impl Copies {
    /// These, for the reads of a run.
    pub(crate) fn new(cx: &Context, places: Vec<Elsewhere>) -> Self {
        Copies(Some(Arc::new(Known { cx: cx.clone(), places, told: Mutex::default() })))
    }

    /// Where they are.
    pub(crate) fn places(&self) -> &[Elsewhere] {
        self.0.as_deref().map(|known| known.places.as_slice()).unwrap_or_default()
    }

    /// What was found of a range of an object, or what the first copy has of it where the object is
    /// damaged or gone, or its store cannot be read (a tier that is not mounted, an archive that has not
    /// given it back). It is not yet checked.
    pub(crate) async fn stand_in(
        &self,
        key: &Key,
        range: Range<u64>,
        found: Result<Option<Bytes>>,
    ) -> Result<Option<Bytes>> {
        let (Some(known), false) = (&self.0, matches!(&found, Ok(Some(_)))) else {
            return found;
        };
        let why = match &found {
            Err(e) if !is_damage(e) && e.kind() != ErrorKind::Store => return found,
            Err(e) => e.chain(),
            Ok(_) => "it is missing".to_owned(),
        };
        for copy in &known.places {
            match known.read(copy, key, range.clone()).await {
                Ok(None) => {}
                Ok(bytes) => {
                    known.tell(key, copy, &why);
                    return Ok(bytes);
                }
                Err(e) => known.cannot_help(key, copy, &e),
            }
        }
        found
    }

    /// What `open` makes of the bytes of a frame, from the first copy where it succeeds; `error` is
    /// why it did not here, and what is left when no copy can help.
    pub(crate) async fn frame<T>(
        &self,
        key: &Key,
        range: Range<u64>,
        error: Error,
        open: impl Fn(Bytes) -> Result<T>,
    ) -> Result<T> {
        let (Some(known), true) = (&self.0, is_damage(&error)) else { return Err(error) };
        for copy in &known.places {
            let bytes = match known.read(copy, key, range.clone()).await {
                Ok(Some(bytes)) => Ok(bytes),
                Ok(None) => continue,
                Err(e) => Err(e),
            };
            match bytes.and_then(&open) {
                Ok(content) => {
                    known.tell(key, copy, &error.chain());
                    return Ok(content);
                }
                Err(e) => known.cannot_help(key, copy, &e),
            }
        }
        Err(error)
    }
}

impl Known {
    async fn read(&self, copy: &Elsewhere, key: &Key, range: Range<u64>) -> Result<Option<Bytes>> {
        copy.store().await?.get_range(key, range).await
    }

    /// Once for an object.
    fn tell(&self, key: &Key, copy: &Elsewhere, why: &str) {
        if lock(&self.told).insert(key.clone()) {
            let text = format!("{key} is read from the copy in {}: {why}", copy.name());
            self.cx.event(Event::Warning { text });
        }
    }

    fn cannot_help(&self, key: &Key, copy: &Elsewhere, error: &Error) {
        self.cx.note(format!("the copy in {} cannot give {key}: {}", copy.name(), error.chain()));
    }
}
