use crate::home::{Home, Run};

#[test]
fn a_new_repository_is_empty_and_is_created_once() {
    let home = Home::new();
    let run = home.run(["init", "--repo", "repo", "--no-encryption", "--json"]).expect(0);
    let document = run.json();
    assert_eq!(document["encrypted"], false);
    assert!(document["id"].is_string());
    assert!(home.path("repo/holdfast.json").is_file());

    let before = std::fs::read(home.path("repo/holdfast.json")).unwrap();
    home.run(["init", "--repo", "repo", "--no-encryption"]).expect(7).says("already");
    assert_eq!(std::fs::read(home.path("repo/holdfast.json")).unwrap(), before);
}

#[test]
fn encryption_is_chosen_and_never_assumed() {
    let home = Home::new();
    let run = home.run(["init", "--repo", "repo"]).expect(2);
    for part in ["--passphrase-file", "--key-file", "--no-encryption"] {
        assert!(run.stderr.contains(part), "{run:?}");
    }
    home.write("key", &"x".repeat(64));
    home.run(["init", "--repo", "repo", "--no-encryption", "--key-file", "key"]).expect(2);
    home.run(["init", "--repo", "repo", "--no-encryption", "--cipher", "aes-256-gcm"]).expect(2);
    home.run(["init", "--repo", "repo", "--key-file", "key", "--cipher", "rot-13"])
        .expect(2)
        .says("chacha20-poly1305");
    assert!(!home.path("repo").exists(), "nothing was made");

    let run = home.run(["init", "--repo", "a", "--no-encryption"]).expect(0);
    assert!(!run.stdout.contains("encrypted"), "{run:?}");
    let run = home.run(["init", "--repo", "b", "--key-file", "key", "--json"]).expect(0);
    let document = run.json();
    assert_eq!(
        (&document["encrypted"], &document["cipher"]),
        (&true.into(), &"aes-256-gcm".into())
    );
    let slot = document["key_slot"].as_str().unwrap();
    assert!(home.path("b/keys").join(slot).is_file());
    let run = home.run(["init", "--repo", "c", "-q", "--no-encryption"]).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
}

#[test]
fn a_place_that_holds_something_else_is_left_alone() {
    let home = Home::new();
    home.write("file", "mine");
    home.run(["init", "--repo", "file", "--no-encryption"]).expect(7).says("file");
    assert_eq!(std::fs::read_to_string(home.path("file")).unwrap(), "mine");

    std::fs::create_dir(home.path("dir")).unwrap();
    home.write("dir/photo.jpg", "mine");
    home.run(["init", "--repo", "dir", "--no-encryption"]).expect(7).says("not empty");
    assert_eq!(home.files("dir").len(), 1);
}

#[test]
fn a_read_only_file_system_is_a_store_failure() {
    let home = Home::new();
    let run = home.run(["init", "--repo", "/proc/holdfast", "--no-encryption"]).expect(7);
    assert!(run.stderr.starts_with("holdfast: ") && run.stderr.contains("What to do:"), "{run:?}");
}

#[test]
fn the_repository_comes_from_flag_environment_or_configuration() {
    let home = Home::new();
    home.write("holdfast.toml", "repo = \"from-config\"\n");
    let init = |environment: Option<&str>, args: &[&str]| {
        let mut command = home.command(["init", "--no-encryption", "--config", "holdfast.toml"]);
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
