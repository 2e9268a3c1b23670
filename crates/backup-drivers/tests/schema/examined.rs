//! Backups that were broken on purpose: each fault is found, and called by its name.

use backup_core::{Context, Result, Severity};
use backup_drivers::logical::{CATALOG, Catalog, LogicalOptions, Table, examine};
use backup_drivers::rows::{BlockEncoder, BlockReader, Kind, RowDigest};
use bytes::Bytes;
use mysql_async::prelude::Queryable;

use crate::memory::Kept;
use crate::server::Server;

const SOURCE: [&str; 11] = [
    "CREATE DATABASE d",
    "USE d",
    "CREATE TABLE digit (n INT PRIMARY KEY)",
    "INSERT INTO digit VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)",
    "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(300))",
    "INSERT INTO t SELECT a.n * 100 + b.n * 10 + c.n, REPEAT('v', 200) FROM digit a, digit b, digit c",
    "ANALYZE TABLE t",
    "CREATE TABLE child (id INT PRIMARY KEY, p INT, CONSTRAINT f FOREIGN KEY (p) REFERENCES t (id))",
    "CREATE VIEW v AS SELECT id FROM t",
    "CREATE TRIGGER tr BEFORE INSERT ON child FOR EACH ROW SET @a = 'it''s'",
    "CREATE SEQUENCE s",
];

async fn kept() -> Result<Kept> {
    let source = Server::start("mariadb-10.11").await?;
    let mut conn = source.connect().await?;
    for statement in SOURCE {
        conn.query_drop(statement).await.unwrap();
    }
    Kept::backup(&source, LogicalOptions { chunk_bytes: 16 << 10, ..Default::default() }).await
}

/// What is found, a line each.
async fn found(kept: &Kept) -> Vec<String> {
    let cx = Context::builder().build();
    let findings = examine(&cx, &kept.manifest(), &*kept.artifacts()).await.unwrap();
    findings.iter().map(|f| format!("{} {}: {}", f.severity, f.object, f.problem)).collect()
}

async fn catalog(kept: &Kept) -> Catalog {
    Catalog::read(&*kept.artifacts()).await.unwrap()
}

fn put(kept: &Kept, catalog: &Catalog) {
    let lines: Vec<Bytes> = catalog.to_lines().map(|l| Bytes::from(l.unwrap())).collect();
    kept.change(CATALOG, |pieces, _| *pieces = lines);
}

fn table<'a>(catalog: &'a mut Catalog, name: &str) -> &'a mut Table {
    catalog.tables.iter_mut().find(|t| t.name == name).unwrap()
}

/// The rows of an artifact written anew.
fn rewrite(kept: &Kept, artifact: &str, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> RowDigest {
    let mut digest = RowDigest::default();
    kept.change(artifact, |pieces, _| {
        let mut reader = BlockReader::default();
        let (mut rows, mut kinds) = (Vec::new(), Vec::<Kind>::new());
        for piece in pieces.drain(..) {
            reader.push(piece);
            while let Some(block) = reader.next_block().unwrap() {
                kinds = block.kinds().collect();
                block
                    .packets(|row| {
                        rows.push(row.to_vec());
                        Ok(())
                    })
                    .unwrap();
            }
        }
        change(&mut rows);
        let mut encoder = BlockEncoder::new(&kinds, BlockEncoder::DEFAULT_TARGET).unwrap();
        for row in &rows {
            encoder.push(row).unwrap();
        }
        let block = encoder.finish();
        digest = block.digest;
        pieces.push(block.bytes);
    });
    digest
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_called_by_its_name() -> Result<()> {
    let whole = kept().await?;
    assert_eq!(found(&whole).await, Vec::<String>::new());
    let good = catalog(&whole).await;
    let chunks = good.tables.iter().find(|t| t.name == "t").unwrap().chunks.clone();
    assert!(chunks.len() >= 4, "{chunks:#?}");

    // What can be done to the catalogue alone, and what has to be said of it.
    type Break = fn(&mut Catalog);
    let faults: [(&str, Break); 17] = [
        ("error d.t: between its ranges 1 and 2 is a hole from", |c| {
            table(c, "t").chunks.remove(1);
        }),
        ("error d.t: there is a hole before its first range", |c| {
            table(c, "t").chunks.remove(0);
        }),
        ("error d.t: there is a hole behind its last range", |c| {
            table(c, "t").chunks.pop();
        }),
        ("error d.t: between its ranges 2 and 3 is an overlap", |c| {
            let chunks = &mut table(c, "t").chunks;
            chunks[2].from = chunks[1].from.clone();
        }),
        ("was written for another range than the catalogue says", |c| {
            let chunks = &mut table(c, "t").chunks;
            chunks[1].to = Some("1".into());
            chunks[2].from = Some("1".into());
        }),
        ("error d.t: its chunks have 1000 rows", |c| table(c, "t").digest.rows += 1),
        ("and the manifest counts 1010", |c| table(c, "t").digest.rows += 1),
        ("and the catalogue says", |c| table(c, "t").chunks[0].digest.sum ^= 1),
        ("is the artifact of another chunk too", |c| {
            let chunks = &mut table(c, "t").chunks;
            chunks[1].artifact = chunks[0].artifact.clone();
        }),
        ("no table of the catalogue names this artifact", |c| {
            c.tables.retain(|t| t.name != "digit");
        }),
        ("error d.t: its definition has no column w", |c| {
            table(c, "t").columns[1].name = "w".into();
        }),
        ("column v is bigint, and its values are Bytes", |c| {
            let column = &mut table(c, "t").columns[1];
            (column.data_type, column.column_type) = ("bigint".into(), "bigint".into());
        }),
        ("error d.t: its definition is of another name than t", |c| {
            let create = &mut table(c, "t").create;
            *create = create.replace("TABLE `t`", "TABLE `u`");
        }),
        ("the parentheses of its definition do not match", |c| {
            let create = &mut table(c, "child").create;
            create.truncate(create.rfind(')').unwrap());
        }),
        ("has a quote that is never closed", |c| {
            let trigger = c.stored.iter_mut().find(|o| o.name == "tr").unwrap();
            trigger.create.pop();
        }),
        ("error d.t: it is in the catalogue twice", |c| {
            let t = table(c, "t").clone();
            c.tables.push(t);
        }),
        ("the sequence stands at no number", |c| {
            let sequence = c.stored.iter_mut().find(|o| o.name == "s").unwrap();
            sequence.sequence.as_mut().unwrap().next = "x".into();
        }),
    ];
    for (expected, fault) in faults {
        let broken = whole.copy();
        let mut catalog = good.clone();
        fault(&mut catalog);
        put(&broken, &catalog);
        let found = found(&broken).await;
        assert!(found.iter().any(|f| f.contains(expected)), "{expected}: {found:#?}");
    }

    // What is missing that others refer to.
    let broken = whole.copy();
    let mut catalog = good.clone();
    catalog.tables.retain(|t| t.name != "t" && t.name != "child");
    put(&broken, &catalog);
    let found_now = found(&broken).await;
    for expected in
        ["error trigger d.tr: its table d.child is not", "warning view d.v: it reads from d.t"]
    {
        assert!(found_now.iter().any(|f| f.contains(expected)), "{expected}: {found_now:#?}");
    }
    let mut catalog = good.clone();
    catalog.tables.retain(|t| t.name != "t");
    put(&broken, &catalog);
    let found_now = found(&broken).await;
    let expected = "warning d.child: a foreign key refers to d.t";
    assert!(found_now.iter().any(|f| f.contains(expected)), "{found_now:#?}");

    // Rows in another order have the same digest, and are found all the same.
    let name = chunks[1].artifact.as_str();
    let broken = whole.copy();
    let digest = rewrite(&broken, name, |rows| rows.swap(3, 4));
    assert_eq!(digest, chunks[1].digest);
    let found_now = found(&broken).await;
    assert_eq!(found_now, [format!("error d.t: {name}: its keys are not in order")]);
    // One that is there twice, in place of another.
    let broken = whole.copy();
    rewrite(&broken, name, |rows| rows[5] = rows[4].clone());
    let found_now = found(&broken).await;
    assert!(found_now.iter().any(|f| f.ends_with("a key is there twice")), "{found_now:#?}");
    // One that is of another chunk.
    let broken = whole.copy();
    let mut moved = Vec::new();
    rewrite(&broken, chunks[2].artifact.as_str(), |rows| moved = rows.remove(0));
    rewrite(&broken, name, |rows| rows.push(moved));
    let found_now = found(&broken).await;
    assert!(
        found_now.iter().any(|f| f.contains("outside of the range of its chunk")),
        "{found_now:#?}"
    );
    // A block whose digest says otherwise, an artifact that is gone, bytes that are no block, a
    // catalogue that is none.
    let broken = whole.copy();
    broken.lose(name);
    let found_now = found(&broken).await;
    assert!(found_now.iter().any(|f| f.contains("the backup has no artifact")), "{found_now:#?}");
    let broken = whole.copy();
    broken.change(name, |pieces, _| pieces[0] = pieces[0].slice(..pieces[0].len() - 1));
    let found_now = found(&broken).await;
    assert!(found_now.iter().any(|f| f.contains("cannot be read")), "{found_now:#?}");
    let broken = whole.copy();
    broken.change(name, |_, attributes| attributes["digest"]["rows"] = 1.into());
    let found_now = found(&broken).await;
    assert!(found_now.iter().any(|f| f.contains("was written with other rows")), "{found_now:#?}");
    let broken = whole.copy();
    broken.change(CATALOG, |pieces, _| pieces.truncate(1));
    assert!(found(&broken).await.iter().any(|f| f.contains("no table of the catalogue")));
    broken.change(CATALOG, |pieces, _| pieces[0] = Bytes::from_static(b"{}\n"));
    assert!(found(&broken).await[0].contains("the catalogue cannot be read"));
    let cx = Context::builder().build();
    let findings = examine(&cx, &broken.manifest(), &*broken.artifacts()).await?;
    assert!(findings.iter().all(|f| f.severity == Severity::Error));
    Ok(())
}
