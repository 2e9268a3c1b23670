use serde_json::json;

use crate::home::{Home, Run};

#[test]
fn help_and_version_are_no_errors() {
    let home = Home::new();
    for command in [
        "init",
        "key",
        "check",
        "backup",
        "list",
        "show",
        "verify",
        "restore",
        "prune",
        "completions",
        "man",
    ] {
        let run = home.run([command, "--help"]).expect(0);
        assert!(run.stdout.contains("--repo"), "{run:?}");
    }
    let run = home.run(["--version"]).expect(0);
    assert_eq!(run.stdout, format!("holdfast {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_not_in_this_version_is_refused_by_name() {
    let home = Home::with_repo();
    let source = "mysql://nobody@127.0.0.1:1/";
    for (args, named) in [
        (vec!["backup", "--strategy", "binlog"], "binlog"),
        (vec!["backup", "--compression", "lzo"], "lzo"),
        (vec!["backup", "--compression", "zstd:99"], "99"),
    ] {
        let mut command = home.command(&args);
        if ["backup", "check"].contains(&args[0]) {
            command.args(["--source", source]);
        }
        Run::of(&mut command).expect(2).says(named);
    }
}

#[test]
fn wrong_values_are_refused_before_anything_is_touched() {
    let home = Home::new();
    for args in [
        vec!["backup", "--cluster", "a/b"],
        vec!["backup", "--tables", "orders"],
        vec!["backup", "--databases", "a", "--tables", "a.b"],
        vec!["backup", "--threads", "0"],
        vec!["backup", "--threads", "257"],
        vec!["backup", "--threads", "many"],
        vec!["backup", "--memory", "lots"],
        vec!["restore", "--rename", "a"],
        vec!["restore", "--rename", "a=b.c"],
        vec!["prune", "--keep-last", "-1"],
        vec!["prune", "--keep-within", "soon", "--repo", "none"],
        vec!["prune", "--wait", "1mo", "--repo", "none"],
        vec!["prune", "--time-zone", "Mars/Olympus", "--repo", "none"],
        vec!["list", "--progress", "loud"],
        vec!["list", "-q", "-v"],
        vec!["verify", "latest", "--all"],
        vec!["no-such-command"],
        vec![],
    ] {
        home.run(&args).expect(2);
    }
    let long = format!("a.b=a.{}", "x".repeat(65));
    for (rule, why) in [
        ("a=mysql", "the server's own"),
        ("a.b=SYS.b", "the server's own"),
        ("a=information_schema", "the server's own"),
        (long.as_str(), "64 characters"),
    ] {
        home.run(["restore", "--rename", rule]).expect(2).says(why);
    }
    // Nobody's flags are taken in silence where they do nothing.
    for flag in [&["--binlog", "off"][..], &["--no-users"], &["--retry-for", "5"]] {
        let args = [&["restore", "--target-dir", "d"], flag].concat();
        home.run(&args).expect(2).says("cannot be used with");
    }
}

#[test]
fn wrong_limits_to_throttle_by_are_told_with_the_forms() {
    let home = Home::with_repo();
    let backup = |limits: &str, more: &[&str]| {
        let args = ["backup", "--cluster", "c", "--source", "mysql://u@127.0.0.1:1/"];
        let mut command = home.command(args);
        Run::of(command.env("HOLDFAST_REPO", "repo").args(["--throttle", limits]).args(more))
    };
    for limits in ["", "30", "load=3", "threads-running=0", "replica-lag=10", "cpu-pressure=100"] {
        let run = backup(limits, &[]).expect(2);
        for form in ["threads-running=30", "replica-lag=10s", "cpu-pressure=40", "io-pressure=40"] {
            assert!(run.stderr.contains(form), "{run:?}");
        }
    }
    for strategy in ["physical", "snapshot", "clone"] {
        let run = backup("threads-running=30", &["--strategy", strategy]);
        run.expect(2).says("--strategy logical");
    }
}

#[test]
fn a_usage_error_with_json_is_one_document() {
    let home = Home::new();
    let run = home.run(["list", "--json", "--no-such-flag"]).expect(2);
    let error = &run.json()["error"];
    assert_eq!((&error["kind"], &error["exit_code"]), (&json!("usage"), &json!(2)));
    assert!(error["message"].as_str().unwrap().contains("--no-such-flag"), "{error}");
    let error = &home.run(["show", "--json"]).expect(2).json()["error"];
    assert!(error["message"].as_str().unwrap().contains("<BACKUP>"), "{error}");
}

#[test]
fn what_a_command_needs_is_asked_for_by_name() {
    let home = Home::with_repo();
    home.on_repo(["backup"]).expect(2).says("--cluster");
    home.on_repo(["backup", "--cluster", "shop"]).expect(2).says("--source");
    home.on_repo(["restore"]).expect(2).says("--cluster");
    home.on_repo(["restore", "--cluster", "shop"]).expect(2).says("no backups and no binlogs");
    home.on_repo(["show", "latest"]).expect(2).says("there is no backup");
    home.on_repo(["verify"]).expect(2).says("there is no backup");
    home.on_repo(["backup", "--cluster", "shop", "--source", "file:///var/lib/mysql"])
        .expect(2)
        .says("stopped server");
    home.on_repo(["backup", "--cluster", "shop", "--source", "http://u:hunter2@h/"])
        .expect(2)
        .hides("hunter2");
}

/// Mail of cron is for what somebody has to read.
#[test]
fn quiet_is_silent_where_all_is_well_and_loud_where_not() {
    let home = Home::with_repo();
    let dump =
        "-- MySQL dump 10.13\nCREATE TABLE `t` (`a` int);\n-- Dump completed on 2026-11-20\n";
    home.write("d.sql", dump);
    home.on_repo(["import", "d.sql", "--cluster", "shop", "-q"]);
    let keep = ["prune", "-q", "--keep-last", "1"];
    let copy = ["copy", "-q", "--all", "--to", "copy"];
    for args in [&["verify", "-q", "--all"][..], &keep, &copy] {
        let run = home.on_repo(args.iter().copied()).expect(0);
        assert_eq!((&*run.stdout, &*run.stderr), ("", ""), "{args:?}");
    }
    assert_ne!(home.on_repo(["prune", "-q", "--keep-last", "1", "--dry-run"]).expect(0).stdout, "");
    let pack = home.files("repo").into_iter().find(|(path, _)| path.ends_with("pack-0")).unwrap().0;
    std::fs::remove_file(pack).unwrap();
    let run = home.on_repo(["verify", "-q", "--all"]).expect(11);
    assert!(run.stdout.contains("pack-0"), "{run:?}");
}

#[test]
fn minutes_are_not_taken_for_months() {
    let home = Home::with_repo();
    home.on_repo(["prune", "--keep-within", "6m"]).expect(2).says("`mo` for months");
    home.on_repo(["prune", "--keep-within", "90min", "--dry-run"]).expect(0);
}

#[test]
fn a_repository_that_lost_its_first_file_is_not_called_none() {
    let home = Home::with_repo();
    home.write("d.sql", "-- MySQL dump 10.13\n-- Dump completed on 2026-11-20\n");
    home.on_repo(["import", "d.sql", "--cluster", "shop", "-q"]);
    std::fs::remove_file(home.path("repo/holdfast.json")).unwrap();
    home.on_repo(["list"]).expect(8).says("holdfast.json is missing").says("from a copy");
}

#[test]
fn a_configuration_without_end_is_refused() {
    let home = Home::new();
    home.run(["list", "--config", "/dev/zero"]).expect(2).says("longer than 1 MiB");
}

#[test]
fn errors_are_one_paragraph_with_a_remedy() {
    let home = Home::new();
    let run = home.run(["list", "--repo", "none"]).expect(7);
    assert_eq!(run.stdout, "");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    assert!(run.stderr.starts_with("holdfast: ") && run.stderr.contains("What to do: "), "{run:?}");
}

#[test]
fn what_comes_from_outside_cannot_steer_the_terminal() {
    let home = Home::new();
    let run = home.run(["list", "--repo", "no\u{1b}[31mne"]).expect(7);
    assert!(!run.stderr.contains('\u{1b}'), "{run:?}");
}
