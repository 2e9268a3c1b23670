use crate::home::Home;

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = home.run(["completions", shell]).expect(0);
        for word in ["backup", "restore", "dry-run"] {
            assert!(run.stdout.contains(word), "{shell}: {word}");
        }
    }
    home.run(["completions", "csh"]).expect(2);
}

#[test]
fn bash_accepts_its_script() {
    let home = Home::new();
    let script = home.write("script", &home.run(["completions", "bash"]).expect(0).stdout);
    let status = std::process::Command::new("bash").arg("-n").arg(script).status().unwrap();
    assert!(status.success());
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let home = Home::new();
    let run = home.run(["man"]).expect(0);
    assert!(run.stdout.contains(".TH holdfast 1"), "{}", run.stdout);
    home.run(["man", "--output", "man1"]).expect(0);
    let pages: Vec<String> = home
        .files("man1")
        .iter()
        .map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    for page in ["holdfast.1", "holdfast-backup.1", "holdfast-restore.1", "holdfast-verify.1"] {
        assert!(pages.iter().any(|p| p == page), "{pages:?}");
    }
    home.write("file", "");
    home.run(["man", "--output", "file/man1"]).expect(2);
}
