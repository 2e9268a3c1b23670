//! Where a donor's files go.
//!
//! A server that starts finds a tablespace wherever it was moved to, but not everywhere: one of a single
//! table has to be in the directory of its database, a general one must not be below the data directory
//! but in it (`Fil_path::is_valid_location`, `Tablespace_files::validate`). So what is outside of the donor's
//! data directory goes where it would be without that.

use backup_core::Result;

use super::broken;

/// The longest name that file systems take.
const MAX_NAME: usize = 255;

/// A place in a data directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// From the data directory.
    pub(super) path: String,
    /// Where it is at the donor, if that is outside of the data directory.
    pub(super) origin: Option<String>,
}

impl Place {
    /// The place of a file by the donor's name for it: `./db/t.ibd`, `undo_001`, `/elsewhere/ts.ibd`. A
    /// `general` tablespace is that of no single table.
    pub(super) fn of(name: &str, general: bool) -> Result<Place> {
        let bad = || broken(format!("it names a file `{}`", name.escape_debug()));
        let inside = |part: &str| !part.is_empty() && part != "." && part != "..";
        let external = name.strip_prefix('/');
        let relative = external.unwrap_or_else(|| name.strip_prefix("./").unwrap_or(name));
        if !relative.split('/').all(inside) || name.chars().any(char::is_control) {
            return Err(bad());
        }
        let Some(relative) = external else {
            return Ok(Place { path: relative.to_owned(), origin: None });
        };
        let path = match general {
            true => flat(relative),
            false => {
                let (above, table) = relative.rsplit_once('/').ok_or_else(bad)?;
                let database = above.rsplit('/').next().unwrap_or(above);
                format!("{database}/{table}")
            }
        };
        Ok(Place { path, origin: Some(name.to_owned()) })
    }

    /// The directories above it, from the top.
    pub(super) fn directories(&self) -> impl Iterator<Item = &str> {
        self.path.match_indices('/').map(|(at, _)| &self.path[..at])
    }
}

/// A path as one name, with slashes as servers write them in names of databases: no file of the data
/// directory itself is called so.
fn flat(path: &str) -> String {
    let name = path.replace('/', "@002f");
    if name.len() <= MAX_NAME {
        return name;
    }
    let file = path.rsplit('/').next().unwrap_or(path);
    format!("{:016x}@002f{file}", xxhash_rust::xxh3::xxh3_64(path.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_inside() {
        let path = |name| Place::of(name, false).unwrap().path;
        assert_eq!(path("./shop/orders#p#p0.ibd"), "shop/orders#p#p0.ibd");
        assert_eq!(path("ibdata1"), "ibdata1");
        for bad in ["", "/", "..", "../x", "./../x", "/a/../b", "a//b", "a/", "./", "a\0b", "a\nb"]
        {
            for general in [false, true] {
                assert!(Place::of(bad, general).is_err(), "{bad:?}");
            }
        }
    }

    #[test]
    fn what_is_elsewhere_goes_where_a_server_looks() {
        let table = Place::of("/ssd/shop/orders#p#p0.ibd", false).unwrap();
        assert_eq!(table.path, "shop/orders#p#p0.ibd");
        assert_eq!(table.directories().collect::<Vec<_>>(), ["shop"]);
        assert_eq!(table.origin.as_deref(), Some("/ssd/shop/orders#p#p0.ibd"));
        assert!(Place::of("/orders.ibd", false).is_err());
        let general = Place::of("/ssd/ts/a.ibd", true).unwrap();
        assert_eq!(general.path, "ssd@002fts@002fa.ibd");
        assert_eq!(general.directories().count(), 0);
        let long = |from: &str| Place::of(&format!("/{}/a.ibd", from.repeat(300)), true).unwrap();
        assert!(long("x").path.ends_with("@002fa.ibd") && long("x").path.len() < 64);
        assert_ne!(long("x"), long("y"));
    }
}
