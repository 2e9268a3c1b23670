//! Dumps that other programs wrote: mysqldump, mariadb-dump, mydumper; plain or compressed.
//!
//! They are read as a stream, in memory that does not grow with them, and every byte is looked at:
//! [`Scan`] counts tables, rows and code, and finds what makes no sense, with its line. A
//! [`ForeignImport`] keeps a dump in a repository as it is, or without what makes no sense.

mod dump;
mod import;
mod lexer;
mod lines;
mod metadata;
mod reader;
mod scan;
mod source;
mod statement;
mod token;

pub use dump::{Dump, DumpPart, examine_dump, examine_kept};
pub use import::{CONTENTS, ForeignImport};
pub use lines::Load;
pub use scan::{Contents, Fault, Scan};
pub use token::Place;
