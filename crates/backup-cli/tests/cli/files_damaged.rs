//! Pages that are damaged at the source already are found on their way into a copy.

use std::os::unix::fs::FileExt;
use std::path::Path;

use backup_core::Context;
use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server};

async fn on(name: &str, directory: &Path) -> Server {
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().datadir(directory).durable(false);
    Server(builder.start(&cx).await.unwrap())
}

/// Flips one bit of a page.
fn flip(path: &Path, page: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let (at, mut byte) = (page * 16_384 + 900, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_page_is_named_and_taken_along_only_where_that_is_asked_for(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on(name, &data).await;
    server::shop(&mut server.session().await).await;
    server.0.stop().await.unwrap();
    let file = format!("file://{}", data.display());
    let take = |more: &[&str]| {
        let args = ["backup", "--strategy", "physical", "--cluster", "shop"];
        tokio::task::block_in_place(|| home.on_repo([&args[..], more].concat()))
    };
    take(&["--source", &file]).expect(0);
    let table = data.join("shop/orders.ibd");
    flip(&table, 4);
    let says = "the source has damaged pages: shop.orders, page 4: its checksum";
    take(&["--source", &file]).expect(6).says(says).says("--allow-bad-pages");
    let known = |run: crate::home::Run| {
        let id = run.says(says).json()["backup"].as_str().unwrap().to_owned();
        let shown = home.on_repo(["show", &id, "--json"]).expect(0).stdout;
        assert!(shown.contains("bad_pages") && shown.contains("shop.orders, page 4"), "{shown}");
    };
    known(take(&["--source", &file, "--allow-bad-pages", "--json"]).expect(14));
    // What is damaged there is that backup, and what to do is not what a source would need.
    let other = Server::start(name).await;
    let (target, install) = (other.url(), server::install(name));
    let restore = |table: &str| {
        let args = ["restore", "--cluster", "shop", "--target", &target, "--tables", table];
        let more = ["--server-dir", install.to_str().unwrap()];
        tokio::task::block_in_place(|| home.on_repo([&args[..], &more].concat()))
    };
    let run = restore("shop.orders").expect(8).says("shop.orders");
    assert!(!run.stderr.contains("--on-corrupt") && !run.stderr.contains("the source"), "{run:?}");
    restore("shop.customers").expect(0);
    drop(other);

    let mut server = on(name, &data).await;
    let url = server.url();
    let locked = ["--lock-and-copy", "--lock-timeout", "120", "--source", &url];
    take(&locked).expect(6).says(says);
    known(take(&[&locked[..], &["--allow-bad-pages", "--json"]].concat()).expect(14));

    // A page may be half written where the server was killed, and the copy goes on.
    server.0.kill();
    let run = take(&["--source", &file, "--allow-unclean", "--json"]).expect(14);
    known(run.says("prove this backup by a drill"));

    // Without its first page nothing can be said of the others.
    flip(&table, 4);
    let mut server = on(name, &data).await;
    server.0.stop().await.unwrap();
    take(&["--source", &file]).expect(0);
    let whole = std::fs::File::options().write(true).open(&table).unwrap();
    whole.write_all_at(b"holdfast", 38).unwrap();
    take(&["--source", &file]).expect(6).says("shop.orders, page 0");
}

/// The list of the routines is what fails: that is of the backup too, and of nothing else.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_drill_fails_where_the_servers_own_tables_cannot_be_read(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
    #[values("MAI", "MAD")] of: &str,
) {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on(name, &data).await;
    let mut session = server.session().await;
    server::shop(&mut session).await;
    server::run(&mut session, &["CREATE PROCEDURE shop.p() SELECT 1"]).await;
    server.0.stop().await.unwrap();
    let file = data.join(format!("mysql/proc.{of}"));
    let bytes = file.metadata().unwrap().len();
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(&vec![0x5a; (bytes - 8192) as usize], 8192).unwrap();
    let source = format!("file://{}", data.display());
    let args = ["backup", "--strategy", "physical", "--cluster", "shop", "--source", &source];
    home.on_repo(args).expect(0);
    let tool = server::install(name);
    let drill = ["verify", "--cluster", "shop", "--level", "drill", "--server-dir"];
    let run = home.on_repo([&drill[..], &[tool.to_str().unwrap()]].concat()).expect(11);
    assert!(run.stdout.contains("proc"), "{run:?}");
}

/// What is done to the bytes of a file.
type Harm<'a> = &'a dyn Fn(&mut Vec<u8>);

/// Damage that no checksum of a page tells.
#[rstest]
#[tokio::test]
async fn a_file_that_is_not_the_whole_of_its_tablespace_or_of_another_is_named(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on(name, &data).await;
    server::shop(&mut server.session().await).await;
    server.0.stop().await.unwrap();
    let source = format!("file://{}", data.display());
    let take = |more: &[&str]| {
        let args = ["backup", "--strategy", "physical", "--cluster", "shop", "--source", &source];
        home.on_repo([&args[..], more].concat())
    };
    take(&[]).expect(0);
    let zeros = |bytes: &mut Vec<u8>| bytes[..16_384].fill(0);
    let number = |bytes: &mut Vec<u8>| bytes[38..42].fill(0x11);
    let other = std::fs::read(data.join("shop/customers.ibd")).unwrap();
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 3 * 16_384);
    let empty = |bytes: &mut Vec<u8>| bytes.clear();
    let exchange = |bytes: &mut Vec<u8>| bytes.clone_from(&other);
    let (orders, undo) = ("shop/orders.ibd", "undo_001");
    let mut harms: Vec<(&str, Harm<'_>, &str)> = vec![
        (orders, &zeros, "shop.orders, page 0: it is no header"),
        (orders, &cut, "the file ends before it"),
        (orders, &empty, "shop.orders, page 0: it is no header"),
        (orders, &exchange, "shop.orders: the file is that of tablespace"),
    ];
    if name.starts_with("mysql") {
        harms.push((undo, &number, "undo_001, page 0: it is no header"));
        harms.push((undo, &zeros, "undo_001, page 0: it is no header"));
    }
    for (file, harm, says) in harms {
        let whole = std::fs::read(data.join(file)).unwrap();
        let mut bytes = whole.clone();
        harm(&mut bytes);
        std::fs::write(data.join(file), bytes).unwrap();
        take(&[]).expect(6).says(says).says("--allow-bad-pages");
        take(&["--allow-bad-pages"]).expect(14).says(says);
        std::fs::write(data.join(file), whole).unwrap();
    }
    // Their numbers are the same, and one of them is of a table that the dictionary does not know.
    std::fs::write(data.join("shop/again.ibd"), &other).unwrap();
    take(&[]).expect(6).says("shop/again.ibd, shop/customers.ibd are all of the tablespace");
    std::fs::remove_file(data.join("shop/again.ibd")).unwrap();

    let system = data.join("ibdata1");
    flip(&system, 5);
    let run = take(&[]).expect(6).says("ibdata1, page 5");
    assert!(!run.stderr.contains("undo tablespace"), "{run:?}");
    flip(&system, 5);
    take(&[]).expect(0);
    let mut bytes = std::fs::read(&system).unwrap();
    zeros(&mut bytes);
    std::fs::write(&system, bytes).unwrap();
    take(&[]).expect(6).says("ibdata1 does not begin as a system tablespace does");
}
