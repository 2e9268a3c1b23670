//! The files of a dump, decompressed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result, io_error};
use flate2::bufread::GzDecoder;

use super::reader::is_sql;
use crate::exchange::Codec;

/// Bytes that are read at once.
pub(super) const PIECE: usize = 256 << 10;

/// A file of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DumpFile {
    pub(super) path: PathBuf,
    /// Its path below the directory that was named, or its name, without what a codec adds.
    pub(super) name: String,
}

/// The files below `path`, sorted by name, those without statements last; itself where it is a file.
pub(super) fn files(path: &Path) -> Result<Vec<DumpFile>> {
    let cannot = |e, path: &Path| {
        io_error(e, ErrorKind::Usage, format!("cannot read {}", path.display()))
            .with_remedy("name a dump, or a directory of one")
    };
    let kind = path.metadata().map_err(|e| cannot(e, path))?;
    if !kind.is_dir() {
        let name = path.file_name().unwrap_or_default();
        return Ok(vec![file(path.to_owned(), Path::new(name))]);
    }
    let mut found = Vec::new();
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).map_err(|e| cannot(e, &directory))? {
            let entry = entry.map_err(|e| cannot(e, &directory))?;
            let kind = entry.file_type().map_err(|e| cannot(e, &entry.path()))?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                let whole = entry.path();
                let name = whole.strip_prefix(path).unwrap_or(&whole).to_owned();
                found.push(file(whole, &name));
            }
        }
    }
    if found.is_empty() {
        return Err(Error::usage(format!("{} has no files", path.display())));
    }
    // Statements tell how the files of rows are to be read that they load.
    found.sort_by(|a, b| (!is_sql(&a.name), &a.name).cmp(&(!is_sql(&b.name), &b.name)));
    Ok(found)
}

fn file(path: PathBuf, name: &Path) -> DumpFile {
    let name = name.to_string_lossy();
    let codec = Codec::of_name(Path::new(&*name));
    let name = name.strip_suffix(codec.extension()).unwrap_or(&name).to_owned();
    DumpFile { path, name }
}

/// Why a file cannot be read to its end.
pub(super) enum Broken {
    /// The disk, or rights.
    Cannot(Error),
    /// The compressed stream is damaged or cut; so many bytes of the file were read.
    Compressed { codec: Codec, at: u64, error: io::Error },
}

/// Gives the decompressed bytes of a file to `each`, piece by piece, until it gives false.
pub(super) fn read(
    path: &Path,
    mut each: impl FnMut(&[u8]) -> bool,
) -> std::result::Result<(), Broken> {
    let cannot = |e| {
        Broken::Cannot(io_error(e, ErrorKind::Usage, format!("cannot read {}", path.display())))
    };
    let file = Counted { file: File::open(path).map_err(cannot)?, read: 0, failed: false };
    let mut file = BufReader::with_capacity(PIECE, file);
    let codec = Codec::of_head(file.fill_buf().map_err(cannot)?);
    // The decoder holds the file; what it read is counted where both can see it.
    let counted = std::cell::RefCell::new(file);
    let shared = Shared(&counted);
    let mut piece = vec![0; PIECE];
    let mut decoder: Box<dyn Read + '_> = match codec {
        Codec::Plain => Box::new(shared),
        Codec::Gzip => Box::new(Gzip::of(BufReader::with_capacity(PIECE, shared))),
        codec => codec.local_decoder(BufReader::with_capacity(PIECE, shared)).map_err(cannot)?,
    };
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                if !each(&piece[..read]) {
                    return Ok(());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let file = counted.borrow();
                if codec == Codec::Plain || file.get_ref().failed {
                    return Err(cannot(error));
                }
                return Err(Broken::Compressed { codec, at: file.get_ref().read, error });
            }
        }
    }
}

/// Members of gzip one behind the other. Zeros behind the last, as tapes and block devices pad files with, are passed
/// over, as gunzip does.
struct Gzip<R>(Member<R>);

enum Member<R> {
    Open(Box<GzDecoder<R>>),
    /// Behind the last one.
    End(R),
    Between,
}

impl<R: BufRead> Member<R> {
    fn of(from: R) -> Self {
        Member::Open(Box::new(GzDecoder::new(from)))
    }
}

impl<R: BufRead> Gzip<R> {
    fn of(from: R) -> Self {
        Gzip(Member::of(from))
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut from = match std::mem::replace(&mut self.0, Member::Between) {
                Member::Open(mut member) => match member.read(buffer) {
                    Ok(0) if !buffer.is_empty() => (*member).into_inner(),
                    read => {
                        self.0 = Member::Open(member);
                        return read;
                    }
                },
                Member::End(from) => from,
                Member::Between => return Ok(0),
            };
            match from.fill_buf() {
                Ok([]) => {
                    self.0 = Member::End(from);
                    return Ok(0);
                }
                Ok([0, ..]) => {}
                Ok(_) => {
                    self.0 = Member::of(from);
                    continue;
                }
                Err(e) => {
                    self.0 = Member::End(from);
                    return Err(e);
                }
            }
            return match zeros(&mut from) {
                Ok(()) => {
                    self.0 = Member::End(from);
                    Ok(0)
                }
                Err(e) => Err(e),
            };
        }
    }
}

/// Reads to the end; fails where anything but zeros comes.
fn zeros(from: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = match from.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.iter().any(|byte| *byte != 0) {
            let problem = "something comes behind its end that is no gzip";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        match buffer.len() {
            0 => return Ok(()),
            length => from.consume(length),
        }
    }
}

/// A file, and how much of it was read.
struct Counted {
    file: File,
    read: u64,
    failed: bool,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer);
        match &read {
            Ok(read) => self.read += *read as u64,
            Err(e) => self.failed |= e.kind() != io::ErrorKind::Interrupted,
        }
        read
    }
}

struct Shared<'a>(&'a std::cell::RefCell<BufReader<Counted>>);

impl Read for Shared<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn gzip_is_read_as_gunzip_does() {
        let member = |text: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let (one, two) = (member(b"one"), member(b"two"));
        let read = |bytes: &[u8]| {
            let mut text = String::new();
            let from = BufReader::with_capacity(5, bytes);
            Gzip::of(from).read_to_string(&mut text).map(|_| text).map_err(|e| e.kind())
        };
        let both = [&one[..], &two].concat();
        assert_eq!(read(&both).as_deref(), Ok("onetwo"));
        for zeros in [1, 5, 512] {
            assert_eq!(read(&[&both[..], &vec![0; zeros]].concat()).as_deref(), Ok("onetwo"));
            assert!(read(&[&both[..], &vec![0; zeros], b"x"].concat()).is_err());
            assert!(read(&[&one[..], &vec![0; zeros], &two].concat()).is_err());
        }
        for end in 1..both.len() {
            let whole = end == one.len();
            assert_eq!(read(&both[..end]).is_ok(), whole, "{end}");
        }
        assert!(read(&[&both[..], b"garbage"].concat()).is_err());
    }
}
