//! Encrypted repositories.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, Server};

const KEY: [&str; 2] = ["--key-file", "key"];

/// A home with an encrypted repository `repo`, which opens with the file `key`.
fn encrypted() -> Home {
    let home = Home::new();
    secret(&home, "key", &"k".repeat(64));
    home.on_repo(["init"].into_iter().chain(KEY)).expect(0);
    home
}

/// A file that nobody else can read.
fn secret(home: &Home, name: &str, text: &str) {
    let path = home.write(name, text);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn with(home: &Home, args: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = home.command(args);
    command.env("HOLDFAST_REPO", "repo").envs(variables.iter().copied());
    Run::of(&mut command)
}

/// Every file below a directory that holds one of the words.
fn findings(home: &Home, directory: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, _) in home.files(directory) {
        let bytes = std::fs::read(&path).unwrap();
        for word in words {
            let inside = bytes.windows(word.len()).any(|w| w == word.as_bytes());
            let named = path.strip_prefix(home.path(directory)).unwrap();
            if inside || named.to_string_lossy().contains(word) {
                found.push(format!("{word} in {}", named.display()));
            }
        }
    }
    found
}

#[rstest]
#[tokio::test]
async fn what_is_backed_up_is_restored_and_not_seen_from_outside(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values("aes-256-gcm", "chacha20-poly1305")] cipher: &str,
) {
    let source = Server::with_shop(name).await;
    let statements = [
        "CREATE DATABASE zanzibar_ledger",
        "CREATE TABLE zanzibar_ledger.quokka_invoices (wombat_total INT PRIMARY KEY, note TEXT)",
        "INSERT INTO zanzibar_ledger.quokka_invoices VALUES (1, 'a platypus paid in cash')",
        "CREATE VIEW zanzibar_ledger.numbat_summary AS SELECT COUNT(*) AS c FROM zanzibar_ledger.quokka_invoices",
    ];
    server::run(&mut source.session().await, &statements).await;
    let version = source.value("SELECT VERSION()").await.unwrap();
    let words = [
        "zanzibar_ledger",
        "quokka_invoices",
        "wombat_total",
        "platypus",
        "numbat_summary",
        "customers",
        "orders",
        "logical",
        "CREATE TABLE",
        "gtid",
        "binlog.0",
        "\"hostname\"",
        &version,
    ];

    let home = Home::new();
    secret(&home, "key", &"k".repeat(64));
    let key = |args: &[&str]| with(&home, &[args, &KEY[..]].concat(), &[]).expect(0);
    key(&["init", "--cipher", cipher]);
    let url = source.url();
    let backup =
        key(&["backup", "--source", &url, "--cluster", "c1", "--json", "--compression", "none"])
            .json();
    assert_eq!(backup["status"], "ok");
    let verified = key(&["verify", "--level", "content", "--json"]).json();
    assert_eq!(verified["ok"], true, "{verified:#}");
    let listed = key(&["list", "--json"]).json();
    assert_eq!(
        (&listed[0]["backup"], &listed[0]["proof"]["ok"]),
        (&backup["backup"], &true.into())
    );
    assert!(key(&["show", "latest"]).stdout.contains("zanzibar_ledger"));
    assert_eq!(findings(&home, "repo", &words), Vec::<String>::new());

    let target = Server::start(name).await;
    let url = target.url();
    let restored = key(&["restore", "--cluster", "c1", "--target", &url, "--json"]).json();
    assert_eq!(restored["rows"], backup["rows"]);
    assert_eq!(source.content("shop").await, target.content("shop").await);
    let note = target.value("SELECT note FROM zanzibar_ledger.quokka_invoices").await;
    assert_eq!(note.as_deref(), Some("a platypus paid in cash"));

    // The search finds what is there to be found.
    with(&home, &["init", "--repo", "open", "--no-encryption"], &[]).expect(0);
    let url = source.url();
    let args =
        ["backup", "--repo", "open", "--source", &url, "--cluster", "c1", "--compression", "none"];
    with(&home, &args, &[]).expect(0);
    let found = findings(&home, "open", &words);
    for word in ["quokka_invoices", "wombat_total", "logical", &version] {
        assert!(found.iter().any(|f| f.starts_with(word)), "{word}: {found:?}");
    }
}

#[test]
fn a_wrong_key_ends_every_command_at_once() {
    let home = encrypted();
    secret(&home, "wrong", &"w".repeat(64));
    let before = home.files("repo");
    let source = "mysql://nobody@127.0.0.1:1/";
    for args in [
        &["list"][..],
        &["show", "latest"],
        &["verify"],
        &["restore", "--cluster", "c", "--target", source],
        &["backup", "--cluster", "c", "--source", source],
        &["key", "list"],
        &["key", "remove", "00000000"],
    ] {
        let wrong = with(&home, &[args, &["--key-file", "wrong"][..]].concat(), &[]).expect(2);
        wrong.says("wrong passphrase or key file for repository").says("1 key slot: ");
        let wrong = with(&home, args, &[("HOLDFAST_PASSPHRASE", "hunter2")]).expect(2);
        wrong.says("wrong passphrase or key file").hides("hunter2");
        let none = with(&home, args, &[]).expect(2);
        none.says("is encrypted")
            .says("--passphrase-file")
            .says("--key-file")
            .says("HOLDFAST_PASSPHRASE");
    }
    let run = with(&home, &["list", "--json", "--key-file", "wrong"], &[]).expect(2);
    assert_eq!(run.json()["error"]["kind"], "usage");
    assert_eq!(home.files("repo"), before);
}

#[test]
fn keys_are_listed_added_and_removed() {
    let home = encrypted();
    secret(&home, "pass", "correct horse\n");
    let list = |key: &[&str]| {
        with(&home, &[&["key", "list", "--json"], key].concat(), &[]).expect(0).json()
    };
    let first = list(&KEY)[0]["slot"].as_str().unwrap().to_owned();
    let run = with(&home, &["key", "remove", &first, KEY[0], KEY[1]], &[]).expect(2);
    run.says("last key slot").says("holdfast key add");

    let add =
        ["key", "add", KEY[0], KEY[1], "--new-passphrase-file", "pass", "--label", "night shift"];
    let added = with(&home, &[&add[..], &["--json"]].concat(), &[]).expect(0).json();
    let second = added["slot"].as_str().unwrap();
    assert_eq!((&added["kind"], &added["label"]), (&"passphrase".into(), &"night shift".into()));
    let slots = list(&["--passphrase-file", "pass"]);
    assert_eq!(slots.as_array().unwrap().len(), 2);
    let opened = slots.as_array().unwrap().iter().find(|slot| slot["opened"] == true).unwrap();
    assert_eq!(opened["slot"], second);
    let run = with(&home, &["key", "list", KEY[0], KEY[1]], &[]).expect(0);
    assert!(run.stdout.contains("night shift") && run.stdout.contains("used now"), "{run:?}");

    let run = with(&home, &["key", "remove", &first, KEY[0], KEY[1]], &[]).expect(0);
    for said in ["It was the one", "Nothing was encrypted anew", "can still read the backups"] {
        assert!(run.stdout.contains(said), "{run:?}");
    }
    with(&home, &["list", KEY[0], KEY[1]], &[]).expect(2).says("night shift");
    with(&home, &["list", "--passphrase-file", "pass"], &[]).expect(0);
    let pass = ["--passphrase-file", "pass"];
    with(&home, &["key", "remove", &first, pass[0], pass[1]], &[]).expect(2).says(second);
    with(&home, &["key", "remove", "x", pass[0], pass[1]], &[]).expect(2).says("8 digits");
    with(&home, &["key", "add", pass[0], pass[1]], &[]).expect(2).says("--new-passphrase-file");
    secret(&home, "short", "31 bytes are not enough for it!");
    with(&home, &["key", "add", pass[0], pass[1], "--new-key-file", "short"], &[])
        .expect(2)
        .says("31 bytes")
        .says("/dev/urandom");
}

#[test]
fn the_key_comes_from_flag_environment_or_configuration() {
    let home = Home::new();
    secret(&home, "pass", "correct horse\r\nthe second line does not count\n");
    secret(&home, "bare", "correct horse");
    secret(&home, "other", "another\n");
    secret(&home, "key", &"k".repeat(64));
    home.on_repo(["init", "--passphrase-file", "pass"]).expect(0);
    let pass = ["--passphrase-file", "pass"];
    with(&home, &["key", "add", pass[0], pass[1], "--new-key-file", "key"], &[]).expect(0);
    home.write("pass.toml", "passphrase-file = \"pass\"\n");
    home.write("key.toml", "key-file = \"key\"\n");
    home.write("both.toml", "key-file = \"key\"\npassphrase-file = \"pass\"\n");
    home.write("wrong.toml", "passphrase-file = \"other\"\n");

    for (args, variables) in [
        (&["--passphrase-file", "bare"][..], &[][..]),
        (&["--key-file", "key"], &[]),
        (&[], &[("HOLDFAST_PASSPHRASE", "correct horse")]),
        (&[], &[("HOLDFAST_PASSPHRASE_FILE", "pass")]),
        (&[], &[("HOLDFAST_KEY_FILE", "key")]),
        (&["--config", "pass.toml"], &[]),
        (&["--config", "key.toml"], &[]),
        // The flag wins over the environment, and that over the configuration.
        (
            &["--key-file", "key"],
            &[("HOLDFAST_PASSPHRASE", "wrong"), ("HOLDFAST_KEY_FILE", "none")],
        ),
        (&["--config", "wrong.toml"], &[("HOLDFAST_PASSPHRASE", "correct horse")]),
        (&["--config", "both.toml", "--key-file", "key"], &[("HOLDFAST_PASSPHRASE", "")]),
    ] {
        let run = with(&home, &[&["list"], args].concat(), variables).expect(0);
        assert_eq!(run.stderr, "", "{args:?} {variables:?}");
    }
    for (args, variables, said) in [
        (&["--passphrase-file", "pass", "--key-file", "key"][..], &[][..], "cannot be used with"),
        (&["--config", "both.toml"], &[], "the configuration names more than one"),
        (&[], &[("HOLDFAST_PASSPHRASE", "x"), ("HOLDFAST_KEY_FILE", "key")], "names more than one"),
        (&["--config", "wrong.toml"], &[], "wrong passphrase"),
        (&["--key-file", "none"], &[], "cannot read the key in none"),
        (&["--key-file", "."], &[], "cannot read the key in ."),
        (&["--passphrase-file", "/dev/null"], &[], "is empty"),
        (&["--key-file", "/dev/null"], &[], "0 bytes"),
        (&["--key-file", "/dev/zero"], &[], "1 MiB at most"),
        (&["--passphrase-file", "/dev/zero"], &[], "is no passphrase"),
        (&["--passphrase-file", "/dev/urandom"], &[], "passphrase"),
    ] {
        with(&home, &[&["list"], args].concat(), variables)
            .expect(2)
            .says(said)
            .hides("correct horse");
    }
}

#[test]
fn a_key_that_all_can_read_is_warned_of() {
    let home = encrypted();
    let mode = |mode| {
        std::fs::set_permissions(home.path("key"), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o644);
    with(&home, &["list", KEY[0], KEY[1]], &[]).expect(0).says("every user of this machine");
    for private in [0o600, 0o640, 0o400] {
        mode(private);
        let run = with(&home, &["list", KEY[0], KEY[1]], &[]).expect(0);
        assert_eq!(run.stderr, "", "{private:o}");
    }
}

#[test]
fn a_key_where_nothing_is_encrypted_is_warned_of() {
    let home = Home::with_repo();
    secret(&home, "key", &"k".repeat(64));
    with(&home, &["list", KEY[0], KEY[1]], &[]).expect(0).says("is not encrypted");
    let run = with(&home, &["key", "list"], &[]).expect(0);
    assert!(run.stdout.contains("not encrypted"), "{run:?}");
    with(&home, &["key", "add", "--new-key-file", "key"], &[]).expect(2).says("is not encrypted");
    let run = with(&home, &["key", "list", "--json"], &[]).expect(0);
    assert_eq!(run.json(), serde_json::json!([]));
}

#[tokio::test]
async fn no_backup_is_stored_in_the_clear_when_a_key_is_given() {
    let server = Server::start("mysql-9.7").await;
    let home = Home::with_repo();
    secret(&home, "key", &"k".repeat(64));
    let before = home.files("repo");
    let url = server.url();
    let args = ["backup", "--source", &url, "--cluster", "c", KEY[0], KEY[1]];
    let refused = with(&home, &args, &[]).expect(2).says("in the clear");
    // Once is enough.
    assert_eq!(refused.stderr.matches("is not encrypted").count(), 1, "{refused:?}");
    let records = Path::new("clusters/c/records");
    let kept: Vec<_> = home
        .files("repo")
        .into_iter()
        .filter(|(path, _)| !path.starts_with(home.path("repo").join(records)))
        .collect();
    assert_eq!(kept, before);
}

#[test]
fn a_copy_is_not_stored_in_the_clear_unless_that_is_wanted() {
    let home = encrypted();
    home.run(["init", "--repo", "clear", "--no-encryption"]).expect(0);
    let copy = |flags: &[&str]| {
        let args = ["copy", "--all"].into_iter().chain(KEY);
        home.on_repo(args.chain(flags.iter().copied()))
    };
    copy(&["--to", "clear"]).expect(2).says("in the clear").says("--allow-unencrypted");
    copy(&["--to", "clear", "--to-key-file", "key", "--allow-unencrypted"]).expect(2);
    copy(&["--to", "clear", "--allow-unencrypted"]).expect(0);
}

#[test]
fn the_key_of_a_target_is_asked_for_by_the_flags_that_give_it() {
    let home = encrypted();
    secret(&home, "other-key", &"o".repeat(64));
    home.run(["init", "--repo", "other", "--key-file", "other-key"]).expect(0);
    let copy = |flags: &[&str]| {
        let args = ["copy", "--all", "--to", "other"].into_iter().chain(KEY);
        home.on_repo(args.chain(flags.iter().copied()))
    };
    copy(&[]).expect(2).says("--to-passphrase-file or --to-key-file").hides(" --key-file");
    copy(&["--to-key-file", "key"]).expect(2).says("--to-passphrase-file or --to-key-file");
    copy(&["--to-key-file", "other-key"]).expect(0);
}
