//! `holdfast binlog rescue` of what is left of a server, and of what MHA saved.

use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server};

#[rstest]
#[tokio::test]
async fn what_mha_saved_is_rescued_and_restored(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mut source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let mut session = source.session().await;
    server::run(&mut session, &["UPDATE shop.orders SET amount = amount + 1 WHERE id < 50"]).await;
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "shop", "--json"];
    let at = home.on_repo(archive).expect(0).json()["position"].clone();
    let (file, offset) = (at["file"].as_str().unwrap(), at["offset"].as_u64().unwrap() as usize);
    let work = [
        "INSERT INTO shop.customers VALUES (4, 'n', NULL)",
        "UPDATE shop.orders SET amount = amount * 2 WHERE id > 300",
    ];
    server::run(&mut session, &work).await;
    let content = source.content("shop").await;
    source.0.kill();

    // The head of the binlog, and what comes from a place in it on (MHA's save_binary_logs).
    let binlog = std::fs::read(source.0.datadir().join(file)).unwrap();
    let len = |at: usize| u32::from_le_bytes(binlog[at + 9..at + 13].try_into().unwrap()) as usize;
    let mut head = 4 + len(4);
    if name.starts_with("mysql") {
        head += len(head);
    }
    let next = offset + len(offset);
    let saved = |from: usize| [&binlog[..head], &binlog[from..]].concat();
    let workdir = home.path("masterha/app1");
    std::fs::create_dir_all(&workdir).unwrap();
    let path = workdir.join("saved_master_binlog_from_10.0.0.1_3306_20261128143000.binlog");
    let path_text = path.to_str().unwrap();
    let rescue = |what: &str| home.on_repo(["binlog", "rescue", what, "--cluster", "shop"]);
    rescue(workdir.to_str().unwrap()).expect(2).says("no binlogs");
    let directory = workdir.to_str().unwrap();
    for what in [directory, path_text] {
        std::fs::write(&path, "# Binary/Relay log file binlog.000001 started\n").unwrap();
        rescue(what).expect(2).says("handle_raw_binlog");
        std::fs::write(&path, "").unwrap();
        rescue(what).expect(2).says(&format!("{path_text} is empty")).says("copy it again");
    }
    std::fs::write(&path, saved(next)).unwrap();
    let refused = rescue(path_text).expect(6);
    refused.says(&format!("bytes {offset} to {next} of {file} are missing")).says("took over");
    std::fs::write(&path, saved(offset)).unwrap();
    // One that is empty hides nothing of the others.
    let empty = workdir.join("saved_master_binlog_from_10.0.0.1_3306_20261128150000.binlog");
    std::fs::write(&empty, "").unwrap();
    let run = rescue(directory).expect(14).says("150000.binlog is empty");
    assert!(run.stdout.contains("2 transactions"), "{run:?}");
    std::fs::remove_file(&empty).unwrap();
    let run = rescue(path_text).expect(0);
    assert!(run.stdout.contains("Nothing new"), "{run:?}");
    home.on_repo(["binlog", "check", "--cluster", "shop"]).expect(0);
    let target = Server::start(name).await;
    let to = target.url();
    home.on_repo(["restore", "--cluster", "shop", "--target", &to, "--to-latest"]).expect(0);
    assert_eq!(target.content("shop").await, content);
}

/// The checksum of an event.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, byte)
}

/// Neither a name that was mistyped nor another server's makes an archive of its own.
#[rstest]
#[tokio::test]
async fn a_dead_server_is_taken_for_no_other(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let mut source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let mut session = source.session().await;
    server::run(&mut session, &["UPDATE shop.orders SET amount = amount + 1 WHERE id < 50"]).await;
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "shop", "--json"];
    let at = home.on_repo(archive).expect(0).json()["position"].clone();
    let (file, offset) = (at["file"].as_str().unwrap(), at["offset"].as_u64().unwrap() as usize);
    let more = ["INSERT INTO shop.customers VALUES (4, 'n', NULL)"];
    server::run(&mut session, &more).await;
    source.0.kill();

    let directory = source.0.datadir().to_str().unwrap().to_owned();
    let rescue = |directory: &str, more: &[&str]| {
        home.on_repo([&["binlog", "rescue", directory][..], more].concat())
    };
    let mistyped = rescue(&directory, &["--cluster", "shp"]).expect(2);
    mistyped.says("the clusters in the repository are: shop").says("--new-cluster");
    let other = match name.starts_with("mysql") {
        true => "00000000-0000-0000-0000-000000000001",
        false => "id-77",
    };
    let wrong = ["--cluster", "shop", "--server", other];
    rescue(&directory, &wrong).expect(2).says("by their own word").says("--anyway");

    // Without auto.cnf the transactions tell; and the archive, whether these are the binlogs it has.
    let copy = home.path("copy");
    std::fs::create_dir_all(&copy).unwrap();
    let series = file.split_once('.').unwrap().0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name();
        if name.to_str().unwrap().starts_with(&format!("{series}.0")) {
            std::fs::copy(source.0.datadir().join(&name), copy.join(&name)).unwrap();
        }
    }
    let copied = copy.to_str().unwrap();
    rescue(copied, &wrong).expect(2).says("by their own word");
    let good = std::fs::read(copy.join(file)).unwrap();
    // The last event, that of a commit, with another number.
    let mut forged = good.clone();
    forged[offset - 10] ^= 1;
    let checksum = crc32(&forged[offset - 31..offset - 4]);
    forged[offset - 4..offset].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(copy.join(file), forged).unwrap();
    rescue(copied, &["--cluster", "shop"]).expect(6).says("other events");
    let servers = || {
        let list = home.on_repo(["binlog", "list", "--cluster", "shop", "--json"]).expect(0).json();
        let list = list.as_array().unwrap().clone();
        let server = |line: &serde_json::Value| line["server"].as_str().unwrap().to_owned();
        list.iter().map(server).collect::<std::collections::BTreeSet<_>>()
    };
    // What is damaged, and whole in the archive, hides nothing of what follows it.
    let mut bad = good.clone();
    bad[offset - 10] ^= 1;
    std::fs::write(copy.join(file), bad).unwrap();
    let run = rescue(copied, &["--cluster", "shop"]).expect(14).says("is damaged at byte");
    assert!(run.stdout.contains("1 transaction"), "{run:?}");
    std::fs::write(copy.join(file), good).unwrap();
    let run = rescue(copied, &["--cluster", "shop"]).expect(0);
    assert!(run.stdout.contains("Nothing new"), "{run:?}");
    assert_eq!(servers().len(), 1);
    home.on_repo(["binlog", "check", "--cluster", "shop"]).expect(0);

    // Who says so is believed.
    let new = ["--cluster", "new", "--new-cluster", "--server", other, "--anyway"];
    rescue(&directory, &new).expect(0);

    // A mistyped name may be that of another cluster.
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().tcp(true).option("server_id", "99");
    let blog = Server(builder.start(&cx).await.unwrap());
    server::run(&mut blog.session().await, &["CREATE DATABASE blog"]).await;
    home.on_repo(["backup", "--source", &blog.url(), "--cluster", "blog"]).expect(0);
    let wrong = rescue(&directory, &["--cluster", "blog"]).expect(2);
    wrong.says("neither binlogs nor backups").says("--anyway");
    rescue(&directory, &["--cluster", "blog", "--anyway"]).expect(0);
}
