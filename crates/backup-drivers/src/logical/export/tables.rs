//! A directory: definitions in SQL, and each table's rows in a file that `LOAD DATA` reads.

use backup_core::{ArtifactName, Result};

use super::super::catalog::{Column, Table};
use super::super::ddl::quote_text;
use super::super::load::{column_list, text_formats};
use super::super::select::quote_name;
use super::script::Script;
use super::{ExportFormat, Exported, Job, rows, sql};
use crate::exchange::FileSet;
use crate::rows::{CsvFormat, put_field};

/// Bytes that are collected before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// Writes the directory: `schema.sql`, `rows.sql` and `code.sql`, to be run in this order, and the
/// files that `rows.sql` names.
pub(super) async fn run(job: &Job<'_>, files: &FileSet) -> Result<Exported> {
    let flavor = job.catalog.header.flavor;
    let mut longest = 0;
    let mut warnings = Vec::new();
    for part in ["schema.sql", "rows.sql", "code.sql"] {
        let mut script = Script::new(files.create_plain(part)?, flavor);
        sql::begin(job, &mut script);
        match part {
            "schema.sql" => {
                sql::before_rows(job, &mut script).await?;
                for table in &job.catalog.tables {
                    sql::create_table(job, &mut script, table);
                    script.flush().await?;
                }
            }
            "rows.sql" => {
                script
                    .comment("Run it in this directory, with --local-infile=1; decompress what it");
                script.comment("names first, where it is compressed.");
                for table in job.catalog.tables.iter().filter(|t| t.digest.rows > 0) {
                    script.run(load(job.options.format, table)?);
                    script.flush().await?;
                }
            }
            _ => sql::after_rows(job, &mut script).await?,
        }
        sql::end(job, &mut script);
        let (file, length, more) = script.end().await?;
        file.finish(files).await?;
        longest = longest.max(length);
        warnings.extend(more);
    }
    for table in job.catalog.tables.iter().filter(|t| t.digest.rows > 0) {
        write(job, table, files).await?;
    }
    Ok(job.exported(longest, warnings))
}

/// Where the rows of a table are, relative to the directory.
fn path(format: ExportFormat, table: &Table) -> Result<String> {
    let name = ArtifactName::from_parts(["data", &table.database, &table.name])?;
    Ok(format!("{name}.{format}"))
}

fn load(format: ExportFormat, table: &Table) -> Result<String> {
    let how = match format {
        ExportFormat::Csv => {
            "FIELDS TERMINATED BY ',' ENCLOSED BY '\"' ESCAPED BY '' LINES TERMINATED BY '\\n' IGNORE 1 LINES"
        }
        _ => "FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n'",
    };
    Ok(format!(
        "LOAD DATA LOCAL INFILE {} INTO TABLE {}.{} CHARACTER SET binary {how} {}",
        quote_text(&path(format, table)?),
        quote_name(&table.database),
        quote_name(&table.name),
        column_list(table)
    ))
}

async fn write(job: &Job<'_>, table: &Table, files: &FileSet) -> Result<()> {
    let format = job.options.format;
    let mut file = files.create(&path(format, table)?)?;
    let mut text = Vec::with_capacity(2 * WRITE_BYTES);
    if format == ExportFormat::Csv {
        text.extend_from_slice(&heading(table));
    }
    let tsv = text_formats(&table.columns);
    let csv = csv_formats(&table.columns);
    rows::each_block(job, table, async |block| {
        match format {
            ExportFormat::Csv => block.write_csv(&mut text, &csv)?,
            _ => block.write_tsv(&mut text, &tsv)?,
        }
        if text.len() >= WRITE_BYTES {
            file.write(std::mem::take(&mut text)).await?;
        }
        Ok(())
    })
    .await?;
    if !text.is_empty() {
        file.write(text).await?;
    }
    file.finish(files).await.map(drop)
}

/// The names of the columns, on one line whatever they are.
fn heading(table: &Table) -> Vec<u8> {
    let mut line = Vec::new();
    for column in &table.columns {
        put_field(column.name.replace(['\n', '\r'], " ").as_bytes(), false, &mut line);
        line.push(b',');
    }
    line.pop();
    line.push(b'\n');
    line
}

fn csv_formats(columns: &[Column]) -> Vec<CsvFormat> {
    const NUMBERS: [&str; 8] =
        ["tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double"];
    if columns.is_empty() {
        return vec![CsvFormat::default()];
    }
    columns
        .iter()
        .map(|column| CsvFormat {
            decimals: column.fraction_digits.unwrap_or(0),
            plain: NUMBERS.contains(&column.data_type.as_str()),
        })
        .collect()
}
