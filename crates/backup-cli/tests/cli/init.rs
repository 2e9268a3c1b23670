use crate::home::{Home, Run};

#[test]
fn a_new_repository_is_empty_and_is_created_once() {
    let home = Home::new();
    let run = home.run(["init", "--repo", "repo", "--json"]).expect(0);
    let document = run.json();
    assert_eq!(document["encrypted"], false);
    assert!(document["id"].is_string());
    assert!(home.path("repo/holdfast.json").is_file());

    let before = std::fs::read(home.path("repo/holdfast.json")).unwrap();
    home.run(["init", "--repo", "repo"]).expect(7).says("already");
    assert_eq!(std::fs::read(home.path("repo/holdfast.json")).unwrap(), before);
}

#[test]
fn the_user_is_told_that_nothing_is_encrypted() {
    let home = Home::new();
    let run = home.run(["init", "--repo", "a"]).expect(0);
    assert!(run.stdout.contains("not encrypted"), "{run:?}");
    let run = home.run(["init", "--repo", "b", "--no-encryption"]).expect(0);
    assert!(!run.stdout.contains("not encrypted"), "{run:?}");
    let run = home.run(["init", "--repo", "c", "-q"]).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
}

#[test]
fn encryption_is_refused_rather_than_left_out() {
    let home = Home::new();
    home.run(["init", "--repo", "repo", "--passphrase-file", "x"]).expect(2);
    home.run(["init", "--repo", "repo", "--key-file", "x"]).expect(2);
    assert!(!home.path("repo").exists());
}

#[test]
fn a_place_that_holds_something_else_is_left_alone() {
    let home = Home::new();
    home.write("file", "mine");
    home.run(["init", "--repo", "file"]).expect(7).says("file");
    assert_eq!(std::fs::read_to_string(home.path("file")).unwrap(), "mine");

    std::fs::create_dir(home.path("dir")).unwrap();
    home.write("dir/photo.jpg", "mine");
    home.run(["init", "--repo", "dir"]).expect(7).says("not empty");
    assert_eq!(home.files("dir").len(), 1);
}

#[test]
fn a_read_only_file_system_is_a_store_failure() {
    let home = Home::new();
    let run = home.run(["init", "--repo", "/proc/holdfast"]).expect(7);
    assert!(run.stderr.starts_with("holdfast: ") && run.stderr.contains("What to do:"), "{run:?}");
}

#[test]
fn the_repository_comes_from_flag_environment_or_configuration() {
    let home = Home::new();
    home.write("holdfast.toml", "repo = \"from-config\"\n");
    let init = |environment: Option<&str>, args: &[&str]| {
        let mut command = home.command(["init", "--config", "holdfast.toml"]);
        command.args(args);
        if let Some(value) = environment {
            command.env("HOLDFAST_REPO", value);
        }
        Run::of(&mut command).expect(0)
    };
    init(Some("from-environment"), &["--repo", "from-flag"]);
    init(Some("from-environment"), &[]);
    init(None, &[]);
    for place in ["from-flag", "from-environment", "from-config"] {
        assert!(home.path(place).join("holdfast.json").is_file(), "{place}");
    }
}
