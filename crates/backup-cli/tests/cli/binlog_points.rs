//! Which backup leads to a point, and points behind which a backup or a target is already.

use std::time::Duration;

use jiff::Timestamp;
use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, Server};

const NAMES: &str = "SELECT GROUP_CONCAT(id ORDER BY id) FROM shop.customers";

/// A moment of a server.
struct Moment {
    time: String,
    place: String,
    gtid: String,
}

async fn moment(source: &Server, name: &str) -> Moment {
    let mysql = name.starts_with("mysql");
    let mut session = source.session().await;
    let (variable, (file, end)) = match mysql {
        true => {
            let all: Vec<(String, u64, String)> =
                session.query_rows("SHOW BINARY LOGS").await.unwrap();
            ("gtid_executed", all.last().map(|(file, end, _)| (file.clone(), *end)).unwrap())
        }
        false => {
            let all: Vec<(String, u64)> = session.query_rows("SHOW BINARY LOGS").await.unwrap();
            ("gtid_binlog_pos", all.last().cloned().unwrap())
        }
    };
    let place = format!("{file}:{end}");
    let set = source.value(&format!("SELECT @@GLOBAL.{variable}")).await.unwrap();
    let gtid = match set.rsplit_once('-') {
        Some((first, last)) if mysql => format!("{}:{last}", first.rsplit_once(':').unwrap().0),
        _ => set,
    };
    // MariaDB's times are full seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let time = Timestamp::now().to_string();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    Moment { time, place, gtid }
}

#[rstest]
#[tokio::test]
async fn no_backup_behind_a_point_stands_for_it(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    let backup = || {
        let args = ["backup", "--source", &url, "--cluster", "shop", "--json"];
        home.on_repo(args).expect(0).json()["backup"].as_str().unwrap().to_owned()
    };
    let mut session = source.session().await;
    let before = moment(&source, name).await;
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (4, 'd', NULL)"]).await;
    let first = backup();
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (5, 'e', NULL)"]).await;
    let five = moment(&source, name).await;
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (6, 'f', NULL)"]).await;
    let six = moment(&source, name).await;
    let second = backup();
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (7, 'g', NULL)"]).await;
    let seven = moment(&source, name).await;
    let third = backup();
    // The place of a backup is a point before anything is archived.
    let target = Server::start(name).await;
    let to = target.url();
    let restore = |args: &[&str]| {
        let all = ["restore", "--cluster", "shop", "--target", &to];
        home.on_repo([&all, args].concat())
    };
    let chosen = |run: Run| {
        let plan = run.expect(0).json();
        (plan["backup"].as_str().unwrap().to_owned(), plan["binlog"]["last_applied"].is_null())
    };
    let plan = |point: &[&str]| restore(&[point, &["--dry-run", "--json"]].concat());
    assert_eq!(chosen(plan(&["--to-position", &six.place])), (second.clone(), true));
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);

    for (moment, expected) in
        [(&five, (&first, false)), (&six, (&second, true)), (&seven, (&third, true))]
    {
        let expected = (expected.0.clone(), expected.1);
        assert_eq!(chosen(plan(&["--to-position", &moment.place])), expected);
        assert_eq!(chosen(plan(&["--to-gtid", &moment.gtid])), expected);
    }
    // None leads there, and the nearest is told.
    for point in [["--to-position", &before.place], ["--to-gtid", &before.gtid]] {
        let run = plan(&point).expect(10).says("before what is there already").says(&first);
        run.says("earlier backup");
    }
    let tables = ["--tables", "shop.customers"];
    for more in [&[][..], &tables] {
        for point in [["--to-position", &five.place], ["--to-gtid", &five.gtid]] {
            let run = restore(&[&[third.as_str()], more, &point].concat()).expect(10);
            run.says("before what is there already").says(&third);
        }
    }
    let schemata = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'";
    assert_eq!(target.value(schemata).await.as_deref(), Some("0"));
    restore(&["--to-position", &six.place]).expect(0);
    assert_eq!(target.value(NAMES).await.as_deref(), Some("1,2,3,4,5,6"));

    // Neither does a target that goes further.
    let apply = |args: &[&str]| {
        let all = ["binlog", "apply", "--cluster", "shop", "--target", &to];
        home.on_repo([&all, args].concat())
    };
    for point in [
        ["--to-position", &five.place],
        ["--to-gtid", &five.gtid],
        ["--to-time", &five.time],
        ["--to-time", "2020-01-01T00:00:00Z"],
    ] {
        apply(&point).expect(10).says("before what is there already");
    }
    for point in [["--to-position", &six.place], ["--to-gtid", &six.gtid], ["--to-time", &six.time]]
    {
        apply(&point).expect(0);
        assert_eq!(target.value(NAMES).await.as_deref(), Some("1,2,3,4,5,6"));
    }
    apply(&["--to-position", &seven.place]).expect(0);
    assert_eq!(target.value(NAMES).await.as_deref(), Some("1,2,3,4,5,6,7"));
}
