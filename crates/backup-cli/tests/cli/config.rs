use crate::home::Home;

#[test]
fn unknown_keys_are_named_together_with_the_known_ones() {
    let home = Home::new();
    home.write("c.toml", "repo = \"r\"\nclutser = \"shop\"\n");
    let run = home.run(["list", "--config", "c.toml"]).expect(2).says("line 2").says("`clutser`");
    for known in ["repo", "cluster", "source", "defaults"] {
        assert!(run.stderr.contains(&format!("`{known}`")), "{run:?}");
    }
    home.write("c.toml", "[defaults]\nthread = 3\n");
    home.run(["list", "--config", "c.toml"]).expect(2).says("`thread`").says("`threads`");
}

#[test]
fn wrong_values_name_their_key() {
    let home = Home::with_repo();
    for (line, key) in [
        ("threads = 0", "threads"),
        ("threads = 10000", "threads"),
        ("memory = \"much\"", "memory"),
        ("progress = \"loud\"", "progress"),
    ] {
        home.write("c.toml", &format!("[defaults]\n{line}\n"));
        home.on_repo(["list", "--config", "c.toml"]).expect(2).says(key);
    }
    home.write("c.toml", "cluster = \"shop\"\n[defaults]\nthrottle = \"often\"\n");
    let backup =
        ["backup", "--config", "c.toml", "--repo", "repo", "--source", "mysql://nobody@localhost/"];
    home.run(backup).expect(2).says("`often`");
    home.write("c.toml", "cluster = \"shop\"\n[defaults]\ncompression = \"lzo\"\n");
    home.on_repo(["backup", "--config", "c.toml"]).expect(2).says("lzo");
}

#[test]
fn a_missing_file_is_an_error_and_no_line_of_a_broken_one_is_shown() {
    let home = Home::new();
    home.run(["list", "--config", "none.toml"]).expect(2).says("none.toml");
    home.write("c.toml", "source = \"mysql://u:hunter2@h/\ncluster=1");
    home.run(["list", "--config", "c.toml"]).expect(2).hides("hunter2");
}

#[test]
fn source_and_cluster_of_the_file_stand_for_the_flags() {
    let home = Home::with_repo();
    home.write("c.toml", "cluster = \"shop\"\nsource = \"mysql://u@127.0.0.1:1/\"\n");
    home.on_repo(["backup", "--config", "c.toml"]).expect(3).says("u@127.0.0.1:1");
    home.on_repo(["restore", "--config", "c.toml"]).expect(2).says("there is no backup");
}
