use backup_storage::format::Config;
use serde_json::json;

use crate::home::{Home, Run};

#[test]
fn an_empty_repository_has_an_empty_list() {
    let home = Home::with_repo();
    let run = home.on_repo(["list", "--json"]).expect(0);
    assert_eq!(run.json(), json!([]));
    let run = home.on_repo(["list"]).expect(0);
    assert_eq!(run.stdout, "There are no backups here yet.\n");
    home.on_repo(["list", "--cluster", "shop"]).expect(2).says("no clusters yet");
}

#[test]
fn no_repository_is_named_with_what_to_do() {
    let home = Home::new();
    home.run(["list"]).expect(2).says("--repo");
    home.on_repo(["list"]).expect(7).says("holdfast init");
    let error = home.on_repo(["list", "--json"]).expect(7).json()["error"].clone();
    assert_eq!(error["kind"], "store");
    assert_eq!(error["exit_code"], 7);
    assert_eq!(error["server"], json!(null));
    assert!(error["message"].as_str().unwrap().contains("no repository"));
    assert!(error["remedy"].as_str().unwrap().contains("holdfast init"));
}

#[test]
fn a_file_is_no_repository() {
    let home = Home::new();
    home.write("repo", "mine");
    home.on_repo(["list"]).expect(7).says("repo");
}

#[test]
fn a_newer_format_is_refused() {
    let home = Home::with_repo();
    let path = home.path("repo/holdfast.json");
    let mut config = Config::parse(&std::fs::read(&path).unwrap()).unwrap();
    config.format = 99;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, config.encode()).unwrap();
    home.on_repo(["list"]).expect(7).says("99");
    home.on_repo(["verify", "--all"]).expect(7);
}

#[test]
fn unknown_schemes_are_usage_errors_that_hide_secrets() {
    let home = Home::new();
    home.run(["list", "--repo", "ftp://u:hunter2@host/x"]).expect(2).says("s3").hides("hunter2");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = Home::with_repo();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = Run::of(home.command(["list", "--repo", "repo"]).stdout(writer)).expect(0);
    assert_eq!(run.stderr, "");
}

#[test]
fn a_full_disk_under_standard_output_is_an_error() {
    let home = Home::with_repo();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    Run::of(home.command(["list", "--repo", "repo"]).stdout(full))
        .expect(1)
        // What was asked for is done: a job that tries again must not be told to.
        .says("is done, but cannot be told on standard output")
        .hides("free space");
}
