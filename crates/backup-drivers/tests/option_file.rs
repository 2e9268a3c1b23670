//! Option files are read as the servers' own programs read them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;

use backup_drivers::connect::ConnectOptions;
use backup_drivers::sandbox::ServerInstall;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The last `user` that the server's own `my_print_defaults` finds for its clients.
fn theirs(install: &ServerInstall, file: &str) -> String {
    let output = install
        .command("my_print_defaults")
        .unwrap()
        .arg(format!("--defaults-file={file}"))
        .args(["client", "client-server", "client-mariadb"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut values = text.split_terminator('\n').filter_map(|line| {
        line.strip_prefix("--user=").or_else(|| line.strip_prefix("--loose-user="))
    });
    values.next_back().unwrap_or_default().to_owned()
}

fn ours(file: &str) -> String {
    ConnectOptions::resolve(None, Some(file.as_ref()), None)
        .map(|options| options.user)
        .unwrap_or_default()
}

#[test]
fn values_are_what_the_real_clients_see() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.cnf");
    let file = file.to_str().unwrap();
    // No `\n`: the output has a line for each option.
    let value = "[ab #;='\"\\\\tsq\\[\\]!.-]{0,12}";
    let line = prop_oneof![
        6 => value.prop_map(|v| format!("user={v}")),
        1 => value.prop_map(|v| format!("  user \t= {v}  ")),
        1 => value.prop_map(|v| format!("loose-user={v}")),
        1 => value.prop_map(|v| format!("# user={v}")),
        1 => value.prop_map(|v| format!("other-key={v}")),
        1 => Just("[mysqld]".to_owned()),
        1 => Just(" [client] ".to_owned()),
        1 => Just("[client-mariadb]".to_owned()),
        1 => Just(String::new()),
    ];
    let lines = prop::collection::vec(line, 1..6);
    for name in ["mysql-9.7", "mariadb-11.8"] {
        let install = xtask::servers::install(name).unwrap();
        let mut runner =
            TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
        runner
            .run(&lines, |lines| {
                let text = format!("[client]\n{}\n", lines.join("\n"));
                fs::write(file, &text).unwrap();
                prop_assert_eq!(ours(file), theirs(&install, file), "{}", text);
                Ok(())
            })
            .unwrap();
    }
}
