//! Snapshots by commands of the user's.

use std::path::{Path, PathBuf};

use backup_core::Context;

use super::executable;
use crate::home::{Home, Run};
use crate::server::{self, Server};

/// Copies the data directory of a server that is idle, and keeps a diary.
const CREATE: &str = "#!/bin/sh\necho \"create $1 $2 $(env | grep -c HOLDFAST)\" >> DIR/diary\n\
                      cp -a \"$2\" \"DIR/$1\" && echo \"DIR/$1\"\n";
const REMOVE: &str = "#!/bin/sh\necho \"remove $1\" >> DIR/diary\nrm -rf \"DIR/$1\"\n";

fn script(home: &Home, name: &str, text: &str) -> PathBuf {
    let text = text.replace("DIR", home.path("").to_str().unwrap().trim_end_matches('/'));
    let path = home.write(name, &text);
    executable(&path);
    path
}

fn snapshots(home: &Home) -> usize {
    let names = std::fs::read_dir(home.path("")).unwrap();
    names.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("-snap-")).count()
}

/// A backup by two commands.
fn backup(home: &Home, url: &str, create: &Path, remove: &Path) -> Run {
    let (create, remove) = (create.to_str().unwrap(), remove.to_str().unwrap());
    home.on_repo([
        "backup",
        "--cluster",
        "shop",
        "--source",
        url,
        "--strategy",
        "snapshot",
        "--snapshot-create",
        create,
        "--snapshot-remove",
        remove,
        "--snapshot-notes",
        "notes",
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_of_commands_is_called_as_the_contract_says() {
    let home = Home::with_repo();
    let data = home.path("data");
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox("mysql-9.7").await.unwrap().datadir(&data);
    let server = Server(builder.durable(false).start(&cx).await.unwrap());
    server::shop(&mut server.session().await).await;
    let (url, before) = (server.url(), server.content("shop").await);
    let run = |create: &Path, remove: &Path| {
        tokio::task::block_in_place(|| backup(&home, &url, create, remove))
    };
    let create = script(&home, "create", CREATE);
    let remove = script(&home, "remove", REMOVE);
    run(&create, &remove).expect(0);
    let diary = std::fs::read_to_string(home.path("diary")).unwrap();
    let lines: Vec<Vec<&str>> = diary.lines().map(|l| l.split(' ').collect()).collect();
    assert_eq!((lines[0][0], lines[1][0], lines.len()), ("create", "remove", 2), "{diary}");
    assert_eq!(lines[0][1], lines[1][1], "one name for both");
    assert_eq!(Path::new(lines[0][2]), data.canonicalize().unwrap());
    assert_eq!(lines[0][3], "0", "nothing of ours is in the environment");
    assert_eq!((snapshots(&home), std::fs::read_dir(home.path("notes")).unwrap().count()), (0, 0));

    // One that fails, and one that does not say where: nothing stays, and the server goes on.
    let broken = script(&home, "broken", "#!/bin/sh\necho no room in the box >&2\nexit 3\n");
    run(&broken, &remove).expect(6).says("no room in the box");
    let silent = script(&home, "silent", &CREATE.replace("&& echo", "&& : "));
    run(&silent, &remove).expect(6).says("did not say where");
    assert_eq!((snapshots(&home), std::fs::read_dir(home.path("notes")).unwrap().count()), (0, 0));
    server::run(&mut server.session().await, &["CREATE TABLE shop.goes_on (id INT)"]).await;

    // What could not be removed is told of, and removed by the next run.
    let stuck = script(&home, "stuck", "#!/bin/sh\nexit 1\n");
    run(&create, &stuck).expect(14).says("was not removed");
    assert_eq!((snapshots(&home), std::fs::read_dir(home.path("notes")).unwrap().count()), (1, 1));
    run(&create, &remove).expect(0);
    assert_eq!((snapshots(&home), std::fs::read_dir(home.path("notes")).unwrap().count()), (0, 0));

    let target = home.path("target");
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    home.on_repo(to).expect(0);
    let builder = xtask::servers::sandbox("mysql-9.7").await.unwrap().datadir(&target);
    let restored = Server(builder.durable(false).start(&cx).await.unwrap());
    assert_eq!(restored.content("shop").await, before);
}

/// A snapshot of MariaDB holds up commits, and neither waits for queries nor holds them up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_of_mariadb_does_not_wait_for_queries() {
    let home = Home::with_repo();
    let data = home.path("data");
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox("mariadb-10.11").await.unwrap().datadir(&data);
    let server = Server(builder.durable(false).start(&cx).await.unwrap());
    let mut session = server.session().await;
    server::shop(&mut session).await;
    let old = [
        "CREATE TABLE shop.old (id INT PRIMARY KEY, t TEXT) ENGINE=MyISAM",
        "INSERT INTO shop.old SELECT seq, 'old' FROM shop.seq_1_to_100",
    ];
    server::run(&mut session, &old).await;
    let before = server.content("shop").await;

    // One query that runs for as long as the test, one transaction that is open.
    let mut open = server.session().await;
    server::run(&mut open, &["BEGIN", "DELETE FROM shop.orders"]).await;
    let mut long = server.session().await;
    let id = long.id();
    let query = tokio::spawn(async move {
        let sql = "SELECT SLEEP(1000) FROM shop.customers LIMIT 1";
        let _: Result<Option<u8>, _> = long.query_first(sql).await;
    });
    let running = format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {id} AND INFO LIKE 'SELECT SLEEP%'"
    );
    while server.value(&running).await.as_deref() != Some("1") {
        tokio::task::yield_now().await;
    }
    let create = script(&home, "create", CREATE);
    let remove = script(&home, "remove", REMOVE);
    let url = server.url();
    tokio::task::block_in_place(|| backup(&home, &url, &create, &remove)).expect(0);
    assert_eq!(server.value(&running).await.as_deref(), Some("1"), "it ran all the time");
    server::run(&mut open, &["COMMIT"]).await;
    server::run(&mut session, &[&format!("KILL {id}"), "INSERT INTO shop.old VALUES (0, '')"])
        .await;
    query.await.unwrap();

    let target = home.path("target");
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    home.on_repo(to).expect(0);
    let builder = xtask::servers::sandbox("mariadb-10.11").await.unwrap().datadir(&target);
    let restored = Server(builder.durable(false).start(&cx).await.unwrap());
    assert_eq!(restored.content("shop").await, before);
    let sql = "SELECT COUNT(*) FROM shop.old";
    assert_eq!(restored.value(sql).await.as_deref(), Some("100"));
    let mut session = restored.session().await;
    let said: Vec<(String, String, String, String)> =
        session.query_rows("CHECK TABLE shop.old EXTENDED").await.unwrap();
    // Closed, as the lock leaves it: nothing to repair.
    assert!(said.iter().all(|(.., text)| text == "OK"), "{said:?}");
}
