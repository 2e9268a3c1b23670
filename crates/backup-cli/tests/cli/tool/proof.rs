//! Streams that are whole, of backups that are not: what the tool's own files say must fit, and every page be sound.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::stream::program;
use super::{backup, faulty, fill, install, number, on};
use crate::home::{Home, Run};
use crate::server;

const NAME: &str = "mariadb-10.11";

/// A tool whose files are changed by a script before they come as a stream.
fn changed(home: &Home, change: &str) -> PathBuf {
    let mbstream = program(NAME, "mbstream");
    let words = std::iter::once(mbstream.get_program()).chain(mbstream.get_args());
    let mbstream = words.map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    // What an increment is of comes before it, as from the tool itself.
    let script = format!(
        "d=$(mktemp -d -p {})\n$REAL \"$@\" | {mbstream} -x -C $d\ncd $d\n{change}\n\
         {mbstream} -c $(find . -type f | sort -r | sed 's,^\\./,,')",
        home.path("").display()
    );
    faulty(home, NAME, &script)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_the_tool_must_say_what_it_should() {
    let home = Home::with_repo();
    let mut server = on(NAME, &home.path("data")).await;
    fill(&mut server.session().await).await;
    // So that every page is in its file.
    server.0.stop().await.unwrap();
    let server = on(NAME, &home.path("data")).await;
    for (change, says) in [
        ("rm xtrabackup_checkpoints", "its checkpoints are not in the stream"),
        ("rm xtrabackup_info", "its info file is not in the stream"),
        ("rm xtrabackup_binlog_info", "its position in the binary log is not in the stream"),
        ("rm ib_logfile0", "no redo log is in the stream"),
        (
            "sed -i 's/^last_lsn = .*/last_lsn = 1/' xtrabackup_checkpoints",
            "its redo log ends at 1",
        ),
        ("sed -i 's/^from_lsn = 0/from_lsn = 5/' xtrabackup_checkpoints", "from LSN 5"),
        ("sed -i '/^to_lsn/d' xtrabackup_checkpoints", "no valid to_lsn"),
        (
            "sed -i 's/full-backuped/incremental/' xtrabackup_checkpoints",
            "is incremental from LSN 0",
        ),
        ("sed -i 's/^partial = N/partial = Y/' xtrabackup_info", "its backup is partial"),
        (
            "sed -i 's/^server_version = .*/server_version = 10.11.1-MariaDB/' xtrabackup_info",
            "it read a server 10.11.1-MariaDB",
        ),
        (
            "printf holdfast | dd of=bank/packed.ibd bs=1 seek=40000 conv=notrunc status=none",
            "the source has damaged pages: bank.packed, page 4",
        ),
        (
            "printf holdfast | dd of=bank/accounts.ibd bs=1 seek=38 conv=notrunc status=none",
            "the source has damaged pages: bank.accounts, page 0: it is no header of a tablespace",
        ),
    ] {
        let run = backup(&home, &server, &changed(&home, change));
        assert!(run.code == Some(6) && run.stderr.contains(says), "{change}: {run:#?}");
        let listed = home.on_repo(["list", "--json"]).expect(0).json();
        assert_eq!(listed.as_array().unwrap().len(), 0, "{change}");
    }
    // Not for being taken apart and put together again.
    backup(&home, &server, &changed(&home, "true")).expect(0);

    // The same of an increment, whose pages are checked, too.
    let sql = ["UPDATE bank.accounts SET v = v + 1", "UPDATE bank.packed SET t = 'x' WHERE id = 5"];
    let mut server = server;
    server::run(&mut server.session().await, &sql).await;
    server.0.stop().await.unwrap();
    let server = on(NAME, &home.path("data")).await;
    let url = server.url();
    let increment = |change: &str| {
        let tool = changed(&home, change);
        let args =
            ["backup", "--strategy", "physical", "--type", "incremental", "--cluster", "bank"];
        let more = ["--source", &url, "--tool", tool.to_str().unwrap()];
        home.on_repo([&args[..], &more].concat())
    };
    for (change, says) in [
        ("sed -i 's/^from_lsn = .*/from_lsn = 5/' xtrabackup_checkpoints", "from LSN 5"),
        (
            "sed -i 's/^backup_type = .*/backup_type = full-backuped/' xtrabackup_checkpoints",
            "full-backuped",
        ),
        (
            "printf holdfast | dd of=bank/accounts.ibd.delta bs=1 seek=$((16384 + 500)) conv=notrunc status=none",
            "the source has damaged pages: bank.accounts, page",
        ),
        (
            "printf holdfast | dd of=bank/packed.ibd.delta bs=1 seek=$((8192 + 500)) conv=notrunc status=none",
            "the source has damaged pages: bank.packed, page",
        ),
        ("truncate -s -16384 ibdata1.delta", "the increment is none that a tool writes"),
    ] {
        let run = increment(change);
        assert!(run.code == Some(6) && run.stderr.contains(says), "{change}: {run:#?}");
        let page = run.stderr.contains(": its checksum ");
        assert_eq!(page, change.contains("printf"), "{change}: {run:#?}");
    }
    increment("true").expect(0);
    let verified = home.on_repo(["verify", "--level", "content", "--json"]).expect(0).json();
    let said = verified.to_string();
    assert!(said.contains("tablespaces are sound") && !said.contains(" 0 pages of"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_of_the_server_is_named_and_taken_along_only_where_that_is_asked_for() {
    let home = Home::with_repo();
    let mut server = on(NAME, &home.path("data")).await;
    fill(&mut server.session().await).await;
    server.0.stop().await.unwrap();
    let path = home.path("data/bank/words.ibd");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(b"not what was there", 4 * 16_384 + 900).unwrap();
    let server = on(NAME, &home.path("data")).await;
    let (url, tool) = (server.url(), install(NAME));
    let take = |more: &[&str]| -> Run {
        let args = ["backup", "--strategy", "physical", "--cluster", "bank", "--source", &url];
        home.on_repo([&args[..], &["--tool", tool.to_str().unwrap()], more].concat())
    };
    take(&[]).expect(6).says("a data file of the server is damaged").says("CHECK TABLE");
    let run = take(&["--allow-bad-pages", "--json"]).expect(14);
    let run = run.says("the source has damaged pages: bank.words, page 4");
    let backup = run.json()["backup"].as_str().unwrap().to_owned();
    let shown = home.on_repo(["show", &backup]).expect(0);
    assert!(shown.stdout.contains("bank.words, page 4"), "{shown:?}");
    let verified = home.on_repo(["verify", "--level", "content"]).expect(11);
    assert!(verified.stdout.contains("bank.words"), "{verified:?}");
    let to = home.path("target");
    let args = ["restore", "--cluster", "bank", "--tool", tool.to_str().unwrap(), "--target-dir"];
    // The tool does not prepare such files; those of other tables it does.
    let run = home.on_repo([&args[..], &[to.to_str().unwrap()]].concat()).expect(8);
    run.says("cannot prepare").says("page 4 of tablespace bank/words").says("--tables");
    server::run(&mut server.session().await, &["DROP TABLE bank.packed"]).await;
    let (tool, target) = (tool.to_str().unwrap(), ["--target", &url, "--tables", "bank.packed"]);
    let args = ["restore", "--cluster", "bank", "--server-dir", tool];
    home.on_repo([&args[..], &target].concat()).expect(0);
    assert_eq!(number(&server, "SELECT COUNT(*) FROM bank.packed").await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_table_is_named() {
    let home = Home::with_repo();
    let mut server = on(NAME, &home.path("data")).await;
    let mut session = server.session().await;
    fill(&mut session).await;
    let sql = [
        "CREATE TABLE bank.half (a INT PRIMARY KEY) ENGINE = Aria",
        "CREATE TABLE bank.isam (a INT PRIMARY KEY) ENGINE = MyISAM",
    ];
    server::run(&mut session, &sql).await;
    for (change, says) in [
        ("rm bank/half.MAI", "left out bank/half.MAI: "),
        ("rm bank/half.MAD bank/isam.MYI", "left out bank/half.MAD and 1 more: "),
    ] {
        backup(&home, &server, &changed(&home, change)).expect(14).says(says);
    }
    server.0.stop().await.unwrap();
}

/// Whoever verifies the newest every night would never hear of the full backup else.
#[tokio::test(flavor = "multi_thread")]
async fn an_increment_is_no_better_than_what_it_follows_on() {
    let home = Home::with_repo();
    let mut server = on(NAME, &home.path("data")).await;
    fill(&mut server.session().await).await;
    let (url, tool) = (server.url(), install(NAME));
    let mut taken = Vec::new();
    for kind in ["full", "incremental", "incremental"] {
        let args =
            ["backup", "--strategy", "physical", "--type", kind, "--cluster", "bank", "--json"];
        let more = ["--source", &url, "--tool", tool.to_str().unwrap()];
        let run = home.on_repo([&args[..], &more].concat());
        taken.push(run.expect(0).json()["backup"].as_str().unwrap().to_owned());
    }
    server.0.stop().await.unwrap();
    home.on_repo(["verify", "latest", "--cluster", "bank"]).expect(0);
    home.on_repo(["verify", "--all"]).expect(0);

    let of_full = |(path, _): &(PathBuf, u64)| {
        let name = path.to_str().unwrap();
        name.contains(&taken[0]) && name.contains("pack")
    };
    let (pack, _) = home.files("repo").into_iter().rfind(of_full).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&pack).unwrap();
    let (middle, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();

    let run = home.on_repo(["verify", "latest", "--cluster", "bank", "--json"]).expect(11);
    let document = run.json();
    assert_eq!(document["backup"], *taken[2]);
    assert!(document["findings"].to_string().contains(&taken[0]), "{document}");
    let whole = home.path("restored");
    let to = ["--cluster", "bank", "--target-dir", whole.to_str().unwrap(), "--tool"];
    home.on_repo([&["restore", "latest"][..], &to, &[tool.to_str().unwrap()]].concat()).expect(8);
    // The one that is damaged is known for it, and the one between is judged by itself.
    let listed = home.on_repo(["list", "--cluster", "bank"]).expect(0).stdout;
    let failed =
        |n: usize| listed.lines().any(|line| line.contains(&taken[n]) && line.contains("FAILED"));
    assert_eq!([failed(0), failed(1), failed(2)], [true, false, true], "{listed}");
    home.on_repo(["verify", &taken[1], "--cluster", "bank"]).expect(11);

    // To see that it is gone nothing has to be read.
    std::fs::remove_file(&pack).unwrap();
    let objects = ["verify", &taken[1], "--cluster", "bank", "--level", "objects"];
    let run = home.on_repo(objects).expect(11);
    assert!(run.stdout.contains(&taken[0]), "{run:?}");
}
