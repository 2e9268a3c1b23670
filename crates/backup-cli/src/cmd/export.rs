//! `holdfast export`

use std::path::{Path, PathBuf};

use backup_core::{ClusterName, Error, ErrorKind, Event, Repository, Result, select};
use backup_drivers::exchange::{Codec, FileSet, SumKind, Sums};
use backup_drivers::files::export_stream;
use backup_drivers::logical::{
    ExportFormat, ExportOptions, Exported, Glob, TableGlob, export, export_artifacts,
};
use backup_storage::RepositoryOptions;
use serde_json::json;

use super::backup::{Names, Wanted, globs, table_globs};
use crate::answer::Answer;
use crate::app::App;
use crate::human;

/// Write a backup into files that other programs read
#[derive(clap::Args)]
pub(crate) struct Export {
    /// An id, a unique prefix of one, or `latest`
    #[arg(value_name = "BACKUP", default_value = "latest")]
    backup: String,
    /// Look only at backups of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// The file (sql, xbstream) or directory (tsv, csv, files) to make, or `-` for standard output (sql,
    /// xbstream); nothing is written over
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,
    /// sql: one file of statements; tsv, csv: definitions, and a file for the rows of each table; files:
    /// what the backup keeps, as it is, of any strategy; xbstream: data files in the one stream that xbstream
    /// and mbstream extract
    #[arg(long, value_enum, default_value = "sql")]
    format: Format,
    /// none, gzip, bzip2, xz, zstd or lz4 [default: what the name of the file says]
    #[arg(long, value_name = "CODEC", value_parser = codec)]
    compression: Option<Codec>,
    /// Write digests too, into files that `sha256sum -c` and `md5sum -c` read: sha256, md5 or both
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', value_parser = sum)]
    checksums: Vec<SumKind>,
    /// Only these databases, separated by commas; `*` and `?` are wildcards, except in backticks
    #[arg(long, value_name = "DB,…", value_parser = globs, conflicts_with = "tables")]
    databases: Vec<Names<Glob>>,
    /// Without these databases
    #[arg(long, value_name = "DB,…", value_parser = globs)]
    exclude_databases: Vec<Names<Glob>>,
    /// Only these tables
    #[arg(long, value_name = "DB.TABLE,…", value_parser = table_globs)]
    tables: Vec<Names<TableGlob>>,
    /// Without these tables
    #[arg(long, value_name = "DB.TABLE,…", value_parser = table_globs)]
    exclude_tables: Vec<Names<TableGlob>>,
    /// The longest that statements of more than one row become, such as 4MiB
    #[arg(long, value_name = "SIZE", value_parser = human::parse_bytes, default_value = "1MiB")]
    statement_size: u64,
    /// Without users, roles and grants
    #[arg(long)]
    no_users: bool,
    /// Let the file drop what is there under the same names when it is loaded
    #[arg(long)]
    add_drop: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Sql,
    Tsv,
    Csv,
    Files,
    Xbstream,
}

impl Format {
    /// Whether everything goes into one file.
    fn is_single(self) -> bool {
        matches!(self, Format::Sql | Format::Xbstream)
    }

    /// Whether it is of the files of a backup, and not of its rows.
    fn is_of_files(self) -> bool {
        matches!(self, Format::Files | Format::Xbstream)
    }

    fn as_str(self) -> &'static str {
        match self {
            Format::Sql => "sql",
            Format::Tsv => "tsv",
            Format::Csv => "csv",
            Format::Files => "files",
            Format::Xbstream => "xbstream",
        }
    }
}

fn codec(text: &str) -> Result<Codec, String> {
    text.parse().map_err(|e: Error| e.report())
}

fn sum(text: &str) -> Result<SumKind, String> {
    text.parse().map_err(|e: Error| e.report())
}

impl Export {
    /// Exports.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let wanted = Wanted {
            databases: &self.databases,
            exclude_databases: &self.exclude_databases,
            tables: &self.tables,
            exclude_tables: &self.exclude_tables,
        };
        let selection = wanted.selection();
        if self.format.is_of_files() && !selection.is_all() {
            let name = self.format.as_str();
            return Err(Error::usage(format!("--format {name} writes the whole backup"))
                .with_remedy("choose databases and tables with --format sql, tsv or csv"));
        }
        let files = self.files()?;
        let repo = app.repo_or_copies(RepositoryOptions::default()).await?;
        let cluster = self.cluster.as_ref().or(app.config.cluster.as_ref());
        let manifest = select(cx.run(repo.backups(cx, cluster)).await?, &self.backup)?;
        let artifacts = cx.run(repo.artifacts(cx, &manifest)).await?;
        cx.phase("export");
        let started = cx.now();
        let mut data_files = 0;
        let work = async {
            match self.format {
                Format::Files => export_artifacts(cx, &*artifacts, &files).await,
                Format::Xbstream => {
                    data_files = export_stream(cx, &manifest, &*artifacts, &files).await?;
                    Ok(Exported::default())
                }
                format => {
                    let options = ExportOptions {
                        format: match format {
                            Format::Tsv => ExportFormat::Tsv,
                            Format::Csv => ExportFormat::Csv,
                            _ => ExportFormat::Sql,
                        },
                        selection,
                        statement_bytes: self.statement_size.try_into().unwrap_or(usize::MAX),
                        no_accounts: self.no_users,
                        add_drop: self.add_drop,
                    };
                    export(cx, &manifest, &*artifacts, &options, &files).await
                }
            }
        };
        let exported = cx.run(work).await?;
        let written = files.finish().await?;
        for text in &exported.warnings {
            cx.event(Event::Warning { text: text.clone() });
        }
        let bytes: u64 = written.iter().map(|f| f.bytes).sum();
        let made = match self.format {
            Format::Xbstream => data_files,
            _ => written.len() as u64,
        };
        let document = json!({
            "backup": manifest.backup,
            "output": self.output,
            "format": self.format.as_str(),
            "tables": exported.tables,
            "rows": exported.rows,
            "files": made,
            "bytes": bytes,
            "longest_statement": exported.longest_statement,
            "duration_seconds": cx.now().duration_since(started).as_secs_f64(),
            "warnings": exported.warnings,
        });
        let text = self.text(manifest.backup.as_str(), &exported, made, bytes);
        let ending = (!exported.warnings.is_empty()).then_some(ErrorKind::Warnings);
        let answer = Answer::new(&document, human::plain(&text))?.summary().ending(ending);
        Ok(if self.is_stdout() { answer.on_stderr() } else { answer })
    }

    fn is_stdout(&self) -> bool {
        self.output == Path::new("-")
    }

    fn files(&self) -> Result<FileSet> {
        let sums: Sums = self.checksums.iter().copied().collect();
        let codec = self.compression;
        if self.is_stdout() {
            if !self.format.is_single() || sums != Sums::default() {
                return Err(Error::usage(
                    "only one file, of --format sql or xbstream, goes to standard output, without --checksums",
                )
                .with_remedy("name a directory with --output"));
            }
            return Ok(FileSet::stdout(codec.unwrap_or_default()));
        }
        match self.format {
            format if format.is_single() => {
                let codec = codec.unwrap_or_else(|| Codec::of_name(&self.output));
                FileSet::file(&self.output, codec, sums)
            }
            _ => FileSet::directory(&self.output, codec.unwrap_or_default(), sums),
        }
    }

    fn text(&self, backup: &str, exported: &Exported, files: u64, bytes: u64) -> String {
        let what = match self.format {
            format if format.is_of_files() => String::new(),
            _ => format!(
                "{} tables, {} rows, ",
                human::count(exported.tables),
                human::count(exported.rows)
            ),
        };
        let packet = match exported.longest_statement {
            // What servers and clients take as they come.
            longest if longest > 16 << 20 => format!(
                "Its longest statement is of {}: client and server need a larger max_allowed_packet.\n",
                human::bytes(longest as u64)
            ),
            _ => String::new(),
        };
        let files = match files {
            1 => "1 file".to_owned(),
            n => format!("{} files", human::count(n)),
        };
        format!(
            "Exported {backup} to {}: {what}{files}, {}.\n{packet}",
            self.output.display(),
            human::bytes(bytes)
        )
    }
}
