//! Two copies of a data directory, of two days, made once and kept.

use std::path::{Path, PathBuf};

use backup_core::{Context, ErrorKind, Result, io_error};

use crate::server::{Server, file_error};
use crate::shop::{self, Maker};

const UPDATES: u32 = 20_000;
const INSERTS: u32 = 20_000;
const DELETES: u32 = 5_000;
/// How many statements make a transaction.
const TRANSACTION: u32 = 100;

/// The copies.
pub(crate) struct Data {
    directory: PathBuf,
}

/// What is between the two.
pub(crate) fn describe() -> String {
    format!(
        "between the two copies: {UPDATES} random single-row updates (7 of 10 of lineitem, the others \
         of customer and event), {INSERTS} inserts into and {DELETES} random deletes from lineitem"
    )
}

impl Data {
    /// Those of a server and scale; they are made when they are missing.
    pub(crate) async fn have(server: &str, scale: f64) -> Result<Data> {
        let parent = crate::target_directory().join("bench-data");
        let directory = parent.join(format!("{server}-shop-{scale}"));
        let data = Data { directory: directory.clone() };
        if !data.first().is_dir() || !data.second().is_dir() {
            // A run that was killed has taken one of them away.
            let _ = std::fs::remove_dir_all(&directory);
            std::fs::create_dir_all(&parent).map_err(file_error(&parent))?;
            let work = tempfile::tempdir_in(&parent).map_err(file_error(&parent))?;
            let copies = work.path().join("copies");
            std::fs::create_dir(&copies).map_err(file_error(&copies))?;
            make(server, scale, work.path(), &copies).await?;
            std::fs::rename(&copies, &directory).map_err(file_error(&directory))?;
        }
        Ok(data)
    }

    /// The directory on the first day.
    pub(crate) fn first(&self) -> PathBuf {
        self.directory.join("first")
    }

    /// The directory on the second day.
    pub(crate) fn second(&self) -> PathBuf {
        self.directory.join("second")
    }
}

async fn make(server: &str, scale: f64, work: &Path, copies: &Path) -> Result<()> {
    let cx = Context::builder().build();
    let data = work.join("data");
    eprintln!("making the data set at scale {scale}");
    let tsv = work.join("shop");
    std::fs::create_dir(&tsv).map_err(file_error(&tsv))?;
    shop::write(&tsv, scale).map_err(file_error(&tsv))?;
    eprintln!("loading it into {server}");
    let mut day = Server::on(server, &data, &cx).await?;
    day.fill(&tsv).await?;
    day.calm().await?;
    day.stop().await?;
    copy(&data, &copies.join("first"))?;
    eprintln!("changing it");
    let mut day = Server::on(server, &data, &cx).await?;
    change(&mut day, scale).await?;
    day.calm().await?;
    day.stop().await?;
    let second = copies.join("second");
    std::fs::rename(&data, &second).map_err(file_error(&second))
}

async fn change(server: &mut Server, scale: f64) -> Result<()> {
    let [lineitem, customer, _, event, _] = &shop::TABLES;
    let rows = lineitem.rows(scale);
    let mut maker = Maker::new();
    server.sql(&format!("USE {}", shop::DATABASE)).await?;
    for i in 0..UPDATES + INSERTS + DELETES {
        if i.is_multiple_of(TRANSACTION) {
            server.sql("COMMIT").await?;
            server.sql("BEGIN").await?;
        }
        let id = maker.between(1, rows);
        let sql = if i < UPDATES {
            match i % 10 {
                0..7 => {
                    format!("UPDATE lineitem SET qty = qty + 1, updated = NOW(6) WHERE id = {id}")
                }
                7 | 8 => format!(
                    "UPDATE customer SET balance = balance + 1 WHERE id = {}",
                    id % customer.rows(scale)
                ),
                _ => {
                    let n = id % event.rows(scale);
                    format!(
                        "UPDATE event SET kind = 'buy', at = NOW(3) WHERE tenant = {} AND seq = {}",
                        n % 97,
                        n / 97
                    )
                }
            }
        } else if i < UPDATES + INSERTS {
            lineitem.insert(&mut maker, rows + i)
        } else {
            format!("DELETE FROM lineitem WHERE id = {id}")
        };
        server.sql(&sql).await?;
    }
    server.sql("COMMIT").await.map(drop)
}

/// Copies a directory, with the times of its files, by which some tools know what did not change.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fn all(from: &Path, to: &Path) -> std::io::Result<()> {
        std::fs::create_dir(to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            let (path, target) = (entry.path(), to.join(entry.file_name()));
            if entry.file_type()?.is_dir() {
                all(&path, &target)?;
            } else {
                std::fs::copy(&path, &target)?;
                std::fs::File::options()
                    .write(true)
                    .open(&target)?
                    .set_modified(entry.metadata()?.modified()?)?;
            }
        }
        Ok(())
    }
    all(from, to).map_err(|e| io_error(e, ErrorKind::Internal, "cannot copy a data directory"))
}
