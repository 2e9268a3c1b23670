//! Headers of objects: none opens but the one that was made for the place.

use backup_storage::format::{OBJECT_HEADER_LEN, ObjectKind};

use super::frame::places;

pub fn run(bytes: &[u8]) {
    for place in places() {
        for kind in [ObjectKind::Pack, ObjectKind::Index, ObjectKind::Manifest, ObjectKind::Record]
        {
            if place.check_object_header(kind, bytes).is_ok() {
                assert_eq!(
                    bytes.first_chunk::<OBJECT_HEADER_LEN>(),
                    Some(&place.object_header(kind))
                );
            }
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let [place, _] = places();
    [ObjectKind::Pack, ObjectKind::Record].map(|kind| place.object_header(kind).to_vec()).into()
}
