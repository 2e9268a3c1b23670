//! The most memory that holdfast takes for one huge file, and for very many small ones.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use backup_core::{Error, Result};

use super::{Side, measured};
use crate::server::file_error;

const HUGE: u64 = 50 << 30;
const MANY: u32 = 200_000;
const DIRECTORIES: u32 = 200;
const MIB: u64 = 1 << 20;

/// Measures both and gives a table.
pub(crate) fn measure() -> Result<String> {
    let parent = crate::target_directory().join("benches");
    std::fs::create_dir_all(&parent).map_err(file_error(&parent))?;
    let work = tempfile::tempdir_in(&parent).map_err(file_error(&parent))?;
    let mut table = String::from(
        "| work | back up: wall s | peak RSS MiB | verify: wall s | peak RSS MiB |\n|---|---|---|---|---|\n",
    );
    for (what, make) in [
        ("a sparse file of 50 GiB", huge as fn(&Path) -> std::io::Result<()>),
        ("200,000 files of 100 to 4,100 bytes", many),
    ] {
        let data = work.path().join("data");
        std::fs::create_dir(&data).map_err(file_error(&data))?;
        make(&data).map_err(file_error(&data))?;
        let repository = work.path().join("repository");
        let log = work.path().join("log");
        let side = Side::Holdfast("zstd:1".to_owned());
        side.init(&repository)?;
        let mut cells = vec![what.to_owned()];
        for mut command in [side.back_up(&repository, &data)?, side.verify(&repository)?] {
            let run = measured(what, &mut command, &log)?
                .map_err(|how| Error::internal(format!("{what}: {how}")))?;
            cells.extend([format!("{:.1}", run.wall), (run.memory / MIB).to_string()]);
        }
        table += &format!("| {} |\n", cells.join(" | "));
        for directory in [&data, &repository] {
            std::fs::remove_dir_all(directory).map_err(file_error(directory))?;
        }
    }
    Ok(table)
}

fn huge(directory: &Path) -> std::io::Result<()> {
    File::create(directory.join("huge.ibd"))?.set_len(HUGE)
}

fn many(directory: &Path) -> std::io::Result<()> {
    for i in 0..MANY {
        let parent = directory.join(format!("db{}", i % DIRECTORIES));
        if i < DIRECTORIES {
            std::fs::create_dir(&parent)?;
        }
        let mut file = File::create(parent.join(format!("t{i}.sdi")))?;
        let line = format!("{{\"table\": {i}}}\n");
        file.write_all(line.repeat((100 + i as usize % 4001) / line.len()).as_bytes())?;
    }
    Ok(())
}
