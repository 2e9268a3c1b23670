//! Where a donor's files go.

use backup_core::Result;

use super::broken;

/// The directory, in the data directory, for files that are elsewhere at the donor.
const EXTERNAL: &str = "#external";

/// A place in a data directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// From the data directory.
    pub(super) path: String,
    /// Where it is at the donor, if that is outside of the data directory.
    pub(super) origin: Option<String>,
}

impl Place {
    /// The place of a file by the donor's name for it: `./db/t.ibd`, `undo_001`, `/elsewhere/ts.ibd`.
    pub(super) fn of(name: &str) -> Result<Place> {
        let (path, origin) = match name.strip_prefix('/') {
            Some(rest) => (format!("{EXTERNAL}/{rest}"), Some(name.to_owned())),
            None => (name.strip_prefix("./").unwrap_or(name).to_owned(), None),
        };
        let inside = |part: &str| !part.is_empty() && part != "." && part != "..";
        if path.split('/').all(inside) && !path.chars().any(char::is_control) {
            Ok(Place { path, origin })
        } else {
            Err(broken(format!("it names a file `{}`", name.escape_debug())))
        }
    }

    /// The directories above it, from the top.
    pub(super) fn directories(&self) -> impl Iterator<Item = &str> {
        self.path.match_indices('/').map(|(at, _)| &self.path[..at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_inside() {
        let path = |name| Place::of(name).unwrap().path;
        assert_eq!(path("./shop/orders#p#p0.ibd"), "shop/orders#p#p0.ibd");
        assert_eq!(path("ibdata1"), "ibdata1");
        let external = Place::of("/ssd/ts/a.ibd").unwrap();
        assert_eq!(external.path, "#external/ssd/ts/a.ibd");
        assert_eq!(external.origin.as_deref(), Some("/ssd/ts/a.ibd"));
        assert_eq!(
            external.directories().collect::<Vec<_>>(),
            ["#external", "#external/ssd", "#external/ssd/ts"]
        );
        for bad in ["", "/", "..", "../x", "./../x", "/a/../b", "a//b", "a/", "./", "a\0b", "a\nb"]
        {
            assert!(Place::of(bad).is_err(), "{bad:?}");
        }
    }
}
