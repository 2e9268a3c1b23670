//! Both clients against real servers: statements, rows and loads. How they sign in is in
//! `connect_security.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashSet;
use std::time::Duration;

use backup_core::{Context, Error, ErrorKind, Result};
use backup_drivers::connect::{ConnectOptions, Session, open};
use backup_drivers::sandbox::Sandbox;
use backup_drivers::wire::{Connection, Param, RowStream};
use bytes::Bytes;
use mysql_async::prelude::Queryable;
use rstest::rstest;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// The longest payload of a packet that is not continued.
const PART: usize = 0xff_ffff;

/// A server, by its name and maybe a compression: `mysql-9.7 zstd`.
async fn start(how: &str) -> Result<Sandbox> {
    xtask::servers::sandbox(name_of(how))
        .await?
        .tcp(true)
        .option("max-allowed-packet", "128M")
        .option("local-infile", "1")
        .start(&Context::builder().build())
        .await
}

fn name_of(how: &str) -> &str {
    how.split(' ').next().unwrap()
}

fn compressed(options: ConnectOptions, how: &str) -> ConnectOptions {
    let compression = how.split_once(' ').map(|(_, compression)| compression.parse().unwrap());
    ConnectOptions { compression, ..options }
}

fn socket(server: &Sandbox) -> ConnectOptions {
    ConnectOptions::socket(server.socket(), "root")
}

fn tcp(server: &Sandbox) -> ConnectOptions {
    ConnectOptions::tcp("127.0.0.1", server.port().unwrap(), "root")
}

/// A table of the numbers from 1 to `count`, in its column `i`.
async fn numbers(wire: &mut Connection, count: u32) -> Result<String> {
    if wire.is_mariadb() {
        return Ok(format!("(SELECT seq AS i FROM mysql.seq_1_to_{count}) AS n"));
    }
    wire.query("SET SESSION cte_max_recursion_depth = 4294967295").await?;
    Ok(format!(
        "(WITH RECURSIVE r (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < {count}) \
         SELECT i FROM r) AS n"
    ))
}

#[rstest]
#[tokio::test]
async fn statements(
    #[values(
        "mysql-9.7",
        "mysql-9.7 zlib",
        "mysql-9.7 zstd:1",
        "mariadb-10.11",
        "mariadb-11.8",
        "mariadb-11.8 zlib"
    )]
    name: &str,
) -> Result<()> {
    let server = start(name).await?;
    for options in [socket(&server), tcp(&server)] {
        let options = compressed(options, name);
        let mut session = Session::open(&options).await?;
        assert_eq!(session.query_first::<u32>("SELECT 1 + 1").await?, Some(2));
        assert_eq!(
            session.exec_rows::<String>("SELECT CONCAT(?, 'b')", ("a",)).await?,
            ["ab".to_string()]
        );
        let e = session.run("SELEC").await.unwrap_err();
        assert_eq!(
            (e.to_string().as_str(), e.server().unwrap().code),
            ("cannot run `SELEC`", 1064)
        );
        assert!(session.id() > 0);

        let mut wire = Connection::connect(&options).await?;
        assert_eq!(wire.is_mariadb(), name.starts_with("mariadb"));
        let id = wire.query_values("SELECT CONNECTION_ID()").await?;
        assert_eq!(id[0][0].as_deref(), Some(wire.id().to_string().as_bytes()));
        wire.query("CREATE DATABASE d").await?;
        wire.query("CREATE TABLE d.t (a INT PRIMARY KEY, b VARCHAR(100))").await?;
        let ok = wire.query("INSERT INTO d.t VALUES (1, 'one'), (2, NULL), (3, '')").await?;
        assert_eq!(
            (ok.affected_rows, ok.info.as_str()),
            (3, "Records: 3  Duplicates: 0  Warnings: 0")
        );
        let values = wire.query_values("SELECT b, a FROM d.t ORDER BY a").await?;
        assert_eq!(values[0], [Some(Bytes::from("one")), Some(Bytes::from("1"))]);
        assert_eq!((values[1][0].clone(), values[2][0].clone()), (None, Some(Bytes::new())));

        let e = wire.query("INSERT INTO d.t VALUES (1, 'again')").await.unwrap_err();
        assert_eq!(e.server().map(|s| (s.code, s.state.as_str())), Some((1062, "23000")));
        let statement = wire.prepare("SELECT a FROM d.t WHERE a >= ? ORDER BY a").await?;
        assert_eq!((statement.params(), statement.columns()[0].name_str().as_ref()), (1, "a"));
        let mut rows = wire.execute(&statement, &[Param::Int(2)]).await?;
        assert_eq!(all(&mut rows).await?, [&[0u8, 0, 2, 0, 0, 0][..], &[0, 0, 3, 0, 0, 0]]);
        let mut rows = wire.execute(&statement, &[Param::Uint(9)]).await?;
        assert_eq!(rows.next().await?, None);
        let e = wire.execute(&statement, &[]).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Internal);
        wire.close_statement(statement).await?;

        // Every kind of parameter comes back as it went.
        let statement = wire
            .prepare("SELECT ? <=> NULL, ? = -5, ? = 18446744073709551615, ? = 0.5, HEX(?)")
            .await?;
        let blob = [0u8, 1, 255, b'\''];
        let params = [
            Param::Null,
            Param::Int(-5),
            Param::Uint(u64::MAX),
            Param::Double(0.5),
            Param::Bytes(&blob),
        ];
        let row = wire.execute(&statement, &params).await?.next().await?.unwrap();
        assert!(row.ends_with(b"\x080001FF27"), "{row:?}");
        assert!(row[2..].iter().filter(|&&b| b == 1).count() >= 4, "{row:?}");
        wire.query("DROP DATABASE d").await.unwrap_err(); // the row's stream was dropped
        Session::open(&options).await?.run("DROP DATABASE d").await?;
    }
    Ok(())
}

async fn all(rows: &mut RowStream<'_>) -> Result<Vec<Bytes>> {
    let mut all = Vec::new();
    while let Some(row) = rows.next().await? {
        all.push(row);
    }
    Ok(all)
}

#[rstest]
#[tokio::test]
async fn long_rows(
    #[values(
        "mysql-9.7",
        "mysql-9.7 zlib",
        "mysql-9.7 zstd",
        "mariadb-10.11",
        "mariadb-10.11 zlib"
    )]
    name: &str,
) -> Result<()> {
    let server = start(name).await?;
    let mut wire = Connection::connect(&compressed(socket(&server), name)).await?;
    // A text row holds the value behind a length of 4 bytes (below 16 MiB); a binary row has a
    // header and a bitmap of one byte each before that. So the first lengths end right before, at
    // and behind the end of a packet, which the last continues.
    let lengths =
        [PART - 7, PART - 6, PART - 5, PART - 4, PART - 3, PART, PART + 1, 20 << 20, 40 << 20];
    for len in lengths {
        let sql = format!("SELECT REPEAT('x', {len}) UNION ALL SELECT 'y'");
        let head = if len < 1 << 24 { 4 } else { 9 };
        let mut rows = wire.query_rows(&sql).await?;
        let text = all(&mut rows).await?;
        assert_eq!((text.len(), text[0].len()), (2, head + len), "{len}");
        assert!(text[0][head..].iter().all(|&b| b == b'x') && text[1] == b"\x01y"[..]);

        let statement = wire.prepare(&sql).await?;
        let mut rows = wire.execute(&statement, &[]).await?;
        let binary = all(&mut rows).await?;
        assert_eq!((binary.len(), binary[0].len()), (2, 2 + head + len), "{len}");
        assert!(binary[0][2 + head..].iter().all(|&b| b == b'x') && binary[1] == b"\0\0\x01y"[..]);
        wire.close_statement(statement).await?;
    }
    let mut conn = open(&socket(&server)).await?;
    let value: Vec<String> =
        conn.query("SELECT REPEAT('x', 41943040) UNION ALL SELECT 'y'").await.unwrap();
    assert_eq!((value[0].len(), value[1].as_str()), (40 << 20, "y"));
    // And the other way: a statement that is longer than a packet.
    let long = format!("SELECT LENGTH('{}')", "z".repeat(20 << 20));
    assert_eq!(wire.query_values(&long).await?[0][0].as_deref(), Some(&b"20971520"[..]));
    Ok(())
}

#[rstest]
#[tokio::test]
async fn many_rows(
    #[values(
        "mysql-9.7",
        "mysql-9.7 zlib",
        "mysql-9.7 zstd",
        "mariadb-10.11",
        "mariadb-10.11 zlib"
    )]
    name: &str,
) -> Result<()> {
    let server = start(name).await?;
    let mut wire = Connection::connect(&compressed(tcp(&server), name)).await?;
    let numbers = numbers(&mut wire, 500_000).await?;
    wire.widen().await?;
    let sql = format!("SELECT CAST(i AS SIGNED), REPEAT('v', i % 50) FROM {numbers}");
    let statement = wire.prepare(&sql).await?;
    let mut rows = wire.execute(&statement, &[]).await?;
    let (mut count, mut sum, mut batches, mut allocations) = (0u64, 0u64, 0u64, HashSet::new());
    while let Some(batch) = rows.next_batch().await? {
        batches += 1;
        allocations.insert(batch.row(0).as_ptr() as usize >> 12);
        for row in &batch {
            let i = u64::from_le_bytes(row[2..10].try_into().unwrap());
            assert_eq!((row.len() as u64, u64::from(row[10])), (11 + i % 50, i % 50));
            sum += i;
            count += 1;
        }
    }
    assert_eq!((count, sum), (500_000, 500_000 * 500_001 / 2));
    assert_eq!(rows.info().map(|info| info.warnings), Some(0));
    assert!(batches < count / 20, "{batches} batches for {count} rows");
    // The batches were dropped one by one, so their memory was used again.
    assert!(allocations.len() < 1000, "{} places in memory", allocations.len());
    Ok(())
}

/// A server that takes only short packets ends the connection when it gets a longer one.
#[rstest]
#[tokio::test]
async fn widening_respects_the_limits_of_the_server(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let builder = xtask::servers::sandbox(name).await?.option("max-allowed-packet", "32K");
    let server = builder.start(&Context::builder().build()).await?;
    let mut wire = Connection::connect(&socket(&server)).await?;
    wire.widen().await?;
    assert_eq!(wire.query_values("SELECT 1").await?.len(), 1);
    Ok(())
}

#[rstest]
#[tokio::test]
async fn errors_in_mid_stream(
    #[values(
        "mysql-9.7",
        "mysql-9.7 zlib",
        "mysql-9.7 zstd",
        "mariadb-10.11",
        "mariadb-10.11 zlib"
    )]
    name: &str,
) -> Result<()> {
    let server = start(name).await?;
    let mut wire = Connection::connect(&compressed(socket(&server), name)).await?;
    let kill = wire.kill_handle();
    let numbers = numbers(&mut wire, 1_000_000).await?;
    // As long as nobody reads, the server waits with its buffers full: KILL always meets it.
    let sql = format!("SELECT REPEAT('v', 200) FROM {numbers}");
    let mut rows = wire.query_rows(&sql).await?;
    assert!(rows.next().await?.is_some());
    kill.kill_query().await?;
    let e = drained(&mut rows).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source, "{e:?}");
    assert_eq!(e.server().map(|s| s.code), Some(1317), "{e:?}");
    // The error ended the statement, not the session.
    assert_eq!(wire.query_values("SELECT 1").await?.len(), 1);

    let mut rows = wire.query_rows(&sql).await?;
    assert!(rows.next().await?.is_some());
    kill.kill_connection().await?;
    let e = drained(&mut rows).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Connect || e.server().is_some_and(|s| s.code == 1317), "{e:?}");
    Ok(())
}

async fn drained(rows: &mut RowStream<'_>) -> Result<()> {
    while rows.next_batch().await?.is_some() {}
    Ok(())
}

const LOAD: &str = "LOAD DATA LOCAL INFILE 'stream' INTO TABLE d.t CHARACTER SET binary \
                    FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n'";

#[rstest]
#[tokio::test]
async fn loads(
    #[values(
        "mysql-9.7",
        "mysql-9.7 zlib",
        "mysql-9.7 zstd",
        "mariadb-10.11",
        "mariadb-11.8",
        "mariadb-11.8 zlib"
    )]
    name: &str,
) -> Result<()> {
    let server = start(name).await?;
    let mut wire = Connection::connect(&compressed(tcp(&server), name)).await?;
    wire.query("CREATE DATABASE d").await?;
    wire.query("CREATE TABLE d.t (a INT PRIMARY KEY, b LONGBLOB)").await?;

    // Small pieces, cut anywhere; then one that is longer than a packet may be.
    let mut load = wire.start_load(LOAD).await?;
    let small: String = (0..50_000).map(|i| format!("{i}\tvalue {i}\n")).collect();
    for piece in Bytes::from(small).chunks(777) {
        load.write(Bytes::copy_from_slice(piece)).await?;
    }
    let mut long = b"50000\t".to_vec();
    long.resize(long.len() + (20 << 20), b'L');
    long.push(b'\n');
    load.write(long.into()).await?;
    load.write(Bytes::from_static(b"50001\t\\N\n")).await?;
    let ok = load.finish().await?;
    assert_eq!((ok.affected_rows, ok.warnings), (50_002, 0));
    assert_eq!(ok.info, "Records: 50002  Deleted: 0  Skipped: 0  Warnings: 0");
    let check = "SELECT COUNT(*), SUM(a), SUM(LENGTH(b)), SUM(b IS NULL), \
                 SUM(b = CONCAT('value ', a)) FROM d.t";
    let lengths: usize = (0..50_000).map(|i| format!("value {i}").len()).sum();
    let expected = [50_002, 50_001 * 50_002 / 2, lengths + (20 << 20), 1, 50_000];
    let values = wire.query_values(check).await?.remove(0);
    let values: Vec<usize> = values
        .iter()
        .map(|v| std::str::from_utf8(v.as_ref().unwrap()).unwrap().parse().unwrap())
        .collect();
    assert_eq!(values, expected);

    // Nothing at all is a load, too.
    assert_eq!(wire.start_load(LOAD).await?.finish().await?.affected_rows, 0);

    // LOCAL turns errors into warnings, so a duplicate key is one; REPLACE of nothing is fine.
    let mut load = wire.start_load(LOAD).await?;
    load.write(Bytes::from_static(b"1\tagain\n60000\tnew\n")).await?;
    let ok = load.finish().await?;
    assert_eq!((ok.affected_rows, ok.warnings), (1, 1));

    // Errors leave the connection usable.
    let e = wire.start_load(&LOAD.replace("d.t", "d.missing")).await.map(drop).unwrap_err();
    assert_eq!(e.server().map(|s| s.code), Some(1146));
    let e = wire.start_load("SET @a = 1").await.map(drop).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Internal);
    wire.query("ALTER TABLE d.t ADD CONSTRAINT c CHECK (a < 70000)").await?;
    wire.query("SET SESSION sql_mode = 'STRICT_ALL_TABLES'").await?;

    // A load that is given up leaves no rows, and no use for the connection.
    let mut load = wire.start_load(LOAD).await?;
    load.write(Bytes::from(b"61000\tlost\n".repeat(20_000))).await?;
    drop(load);
    let e = wire.query("SELECT 1").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Connect);
    let id = wire.id();
    wire.close().await;
    let mut wire = Connection::connect(&compressed(tcp(&server), name)).await?;
    let alive = format!("SELECT 1 FROM information_schema.processlist WHERE id = {id}");
    while !wire.query_values(&alive).await?.is_empty() {}
    assert!(wire.query_values("SELECT 1 FROM d.t WHERE a = 61000").await?.is_empty());

    // Killed in mid-load: the error comes while there is still data to send.
    let mut load_wire = Connection::connect(&compressed(tcp(&server), name)).await?;
    let kill = load_wire.kill_handle();
    let mut load = load_wire.start_load(LOAD).await?;
    let piece = Bytes::from((70_000..90_000).map(|i| format!("{i}\tkilled\n")).collect::<String>());
    load.write(piece.clone()).await?;
    kill.kill_connection().await?;
    let e = loop {
        if let Err(e) = load.write(piece.clone()).await {
            break e;
        }
    };
    assert_eq!(e.kind(), ErrorKind::Connect, "{e:?}");

    wire.query("SET GLOBAL local_infile = OFF").await?;
    let e = wire.start_load(LOAD).await.map(drop).unwrap_err();
    assert!(e.remedy().contains("local_infile"), "{e:?}");
    Ok(())
}

/// The server itself says that it compresses, and with what; bytes that it sent are few.
#[rstest]
#[tokio::test]
async fn what_goes_over_the_line_is_compressed(
    #[values("mysql-9.7 zlib", "mysql-9.7 zstd:7", "mariadb-10.11 zlib")] name: &str,
) -> Result<()> {
    const STATUS: &str = "SELECT variable_value FROM WHERE.session_status WHERE variable_name = ";
    let server = start(name).await?;
    let mut wire = Connection::connect(&compressed(tcp(&server), name)).await?;
    let schema = if wire.is_mariadb() { "information_schema" } else { "performance_schema" };
    let status =
        |name: &str| format!("{}'{name}'", STATUS.replace("WHERE.", &format!("{schema}.")));
    assert_eq!(wire.query_values(&status("Compression")).await?[0][0].as_deref(), Some(&b"ON"[..]));
    if let Some(level) = name.strip_prefix("mysql-9.7 zstd:") {
        let found = wire.query_values(&status("Compression_level")).await?;
        assert_eq!(found[0][0].as_deref(), Some(level.as_bytes()));
    }
    wire.query("SELECT REPEAT('a', 4000000)").await?;
    let sent = wire.query_values(&status("Bytes_sent")).await?;
    let sent = std::str::from_utf8(sent[0][0].as_deref().unwrap()).unwrap().parse::<u64>().unwrap();
    assert!(sent < 100_000, "{sent} bytes");
    Ok(())
}

/// A server that does not compress so is told apart from one that cannot be reached.
#[tokio::test]
async fn compression_that_is_not_offered_is_refused() -> Result<()> {
    let server = start("mariadb-10.11").await?;
    let e = Connection::connect(&compressed(tcp(&server), "mariadb-10.11 zstd")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Connect);
    assert!(e.chain().contains("does not compress with zstd"), "{e:?}");
    assert!(e.remedy().contains("zlib"), "{e:?}");
    Ok(())
}

/// Both clients' errors for the same options.
async fn refusals(options: &ConnectOptions) -> [Error; 2] {
    [
        open(options).await.map(drop).unwrap_err(),
        Connection::connect(options).await.map(drop).unwrap_err(),
    ]
}

#[tokio::test]
async fn what_cannot_be_reached_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let path = dir.path().join("none.sock");
    for (options, address, remedy) in [
        (
            ConnectOptions::tcp("no-such-host.invalid", 3306, "u"),
            "no-such-host.invalid:3306".into(),
            "host name",
        ),
        (ConnectOptions::tcp("127.0.0.1", port, "u"), format!("127.0.0.1:{port}"), "listens"),
        (ConnectOptions::tcp("::1", port, "u"), format!("[::1]:{port}"), ""),
        (ConnectOptions::socket(&path, "u"), path.display().to_string(), "socket"),
    ] {
        for e in refusals(&options).await {
            assert_eq!(e.kind(), ErrorKind::Connect, "{e:?}");
            assert!(e.to_string().contains(&address), "{e:?}");
            assert!(e.remedy().contains(remedy), "{e:?}");
        }
    }
}

/// Servers repeat the rest of a statement from where they do not understand it.
#[rstest]
#[tokio::test]
async fn no_error_repeats_a_password(
    #[values("mysql-9.7", "mariadb-10.11")] how: &str,
) -> Result<()> {
    let server = start(how).await?;
    let sql = "CREATE USER u IDENTIFIED 'hunter22' REQUIRE NONE";
    let mut session = Session::open(&socket(&server)).await?;
    let mut wire = Connection::connect(&socket(&server)).await?;
    for e in [session.run(sql).await.unwrap_err(), wire.query(sql).await.unwrap_err()] {
        let report = e.report().to_string();
        assert!(report.contains("near ''…' REQUIRE NONE'"), "{report}");
        assert!(!format!("{report} {e:?}").contains("hunter"), "{e:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_server_is_an_error() {
    // Panics of mysql_async are caught; here they would only clutter the output.
    for (answer, waits) in [
        (&b""[..], true),
        (b"", false),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", false),
        (b"\x01\0\0\0\x0a", false),
        // A version number that does not fit.
        (b"\x36\0\0\0\x0a99999.1.1\0\x01\0\0\0aaaaaaaa\0\xff\xf7\x2d\x02\0\xff\x81\x15\0\0\0\0\0\0\0\0\0\0bbbbbbbbbbbb\0", false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options = ConnectOptions::tcp("127.0.0.1", listener.local_addr().unwrap().port(), "u");
        options.connect_timeout = Duration::from_secs(1);
        let peer = tokio::spawn(async move {
            let mut kept = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(answer).await.unwrap();
                if waits {
                    kept.push(stream);
                }
            }
        });
        for e in refusals(&options).await {
            assert_eq!(e.kind(), ErrorKind::Connect, "{answer:?}: {e:?}");
            assert!(e.to_string().contains("127.0.0.1"), "{e:?}");
            assert_eq!(e.chain().contains("no answer within 1 s"), waits, "{e:?}");
        }
        peer.abort();
    }
}

/// Its answer waits on the connection, and would be taken for that of the next statement.
#[rstest]
#[tokio::test]
async fn a_session_whose_statement_was_not_waited_for_answers_nothing_any_more(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let server = start(name).await?;
    let mut session = Session::open(&socket(&server)).await?;
    let slow = session.query_first::<String>("SELECT CONCAT('theirs', SLEEP(1))");
    assert!(tokio::time::timeout(Duration::from_millis(100), slow).await.is_err());
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..2 {
        let error = session.query_first::<String>("SELECT 'mine'").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{}", error.report());
        assert!(error.report().contains("was not waited for"), "{}", error.report());
    }
    // A statement that fails has been answered.
    let mut session = Session::open(&socket(&server)).await?;
    assert!(session.run("SELEC").await.is_err());
    let mine: Option<String> = session.query_first("SELECT 'mine'").await?;
    assert_eq!(mine.as_deref(), Some("mine"));
    Ok(())
}
