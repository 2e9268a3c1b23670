//! File systems that are mounted, and mounting one more.

use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result, io_error};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A line of `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    /// The part of the file system that is mounted.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) at: PathBuf,
    /// `ext4`, `xfs`, `btrfs`.
    pub(super) kind: String,
    /// `/dev/mapper/vg-data`.
    pub(super) device: String,
}

impl Mounted {
    /// All of them, in the order in which they were mounted.
    pub(super) fn all() -> Result<Vec<Mounted>> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").map_err(|e| {
            io_error(e, ErrorKind::Source, "cannot see which file systems are mounted")
        })?;
        Ok(text.lines().filter_map(Mounted::parse).collect())
    }

    fn parse(line: &str) -> Option<Mounted> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, at) = (unescape(left.next()?), unescape(left.next()?));
        let mut right = right.split(' ');
        let (kind, device) = (right.next()?.to_owned(), unescape(right.next()?));
        Some(Mounted { root: root.into(), at: at.into(), kind, device })
    }

    /// The one that a path is on; the last of several at one place hides the others.
    pub(super) fn of(path: &Path) -> Result<Mounted> {
        let path = path.canonicalize().map_err(|e| {
            io_error(e, ErrorKind::Source, format!("cannot find {}", path.display()))
        })?;
        let on = Mounted::all()?.into_iter().filter(|mounted| path.starts_with(&mounted.at));
        on.max_by_key(|mounted| mounted.at.components().count()).ok_or_else(|| {
            Error::new(
                ErrorKind::Source,
                format!("{} is on no mounted file system", path.display()),
            )
        })
    }
}

/// `\040` is a space.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let digits = bytes.clone().take(3).collect::<Vec<_>>();
        let octal = std::str::from_utf8(&digits).ok().and_then(|d| u8::from_str_radix(d, 8).ok());
        match (byte, octal) {
            (b'\\', Some(value)) if digits.len() == 3 => {
                out.push(value);
                bytes.nth(2);
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Mounts a snapshot to be read, and for nothing else.
pub(super) fn mount_read_only(device: &Path, at: &Path, kind: &str) -> Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    // XFS refuses a second file system with the identity of one that is mounted.
    let data = if kind == "xfs" { c"nouuid" } else { c"" };
    mount(device, at, kind, flags, Some(data)).map_err(|e| {
        let message = format!("cannot mount the snapshot {} on {}", device.display(), at.display());
        io_error(e.into(), ErrorKind::Source, message)
            .with_remedy("run as root, and look into the kernel's log (dmesg)")
    })
}

/// Unmounts what is mounted at a place, if anything.
pub(super) fn unmount_all(at: &Path) -> Result<()> {
    for mounted in Mounted::all()?.iter().rev().filter(|mounted| mounted.at == at) {
        unmount(&mounted.at, UnmountFlags::empty()).map_err(|e| {
            io_error(e.into(), ErrorKind::Source, format!("cannot unmount {}", at.display()))
                .with_remedy("see with `fuser -m` who uses it, end that, and unmount it by hand")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel() {
        let line =
            "36 35 98:0 /data /mnt/my\\040disk rw,noatime master:1 - ext4 /dev/mapper/vg-a rw";
        let mounted = Mounted::parse(line).unwrap();
        assert_eq!(mounted.at, Path::new("/mnt/my disk"));
        assert_eq!((mounted.root.to_str(), mounted.kind.as_str()), (Some("/data"), "ext4"));
        assert_eq!(mounted.device, "/dev/mapper/vg-a");
        assert!(Mounted::parse("").is_none());
        assert!(
            Path::new("/proc/self").starts_with(Mounted::of(Path::new("/proc/self")).unwrap().at)
        );
    }
}
