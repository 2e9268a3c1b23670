//! README.md and the pages below docs/ do what they say: every ```` ```console ```` block is run, in
//! the order of its page, against real servers.
//!
//! | block | what happens |
//! |---|---|
//! | `console` | each line that begins with `$ ` is run by one shell; the lines below it are what it has to print |
//! | `sql`, `sql mysql`, `sql mariadb` | run as root at `db1`, where the flavor fits |
//! | `<language> /path` | written to that file; then its `ExecStart=` lines are run |
//! | `cron` | the command of each line is run |
//! | anything else | not run |
//!
//! In shown output `…` stands for anything, and a line of nothing else for any lines; figures that
//! differ from run to run are not compared (see [`compare`]). A command without shown output may
//! print anything. It has to end with exit code 0, unless `$ echo $?` follows it.
//!
//! `cargo` is not run from within its own test: such a line has to name an existing task with
//! existing flags.

#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod compare;
mod page;
mod shell;
mod stage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use backup_core::ErrorKind;
use rstest::rstest;

use page::{Page, What};
use stage::{Sample, Stage};

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// README.md and every page below docs/, by their paths.
fn pages() -> Vec<Page> {
    let mut pages = vec![Page::read(&root(), "README.md")];
    let mut directories = vec!["docs".to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(root().join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{directory}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            } else if Path::new(&path).extension().is_some_and(|e| e == "md") {
                pages.push(Page::read(&root(), &path));
            }
        }
    }
    pages
}

const MYSQL: &str = "mysql-9.7";
const GUIDE: &str = "docs/guide.md";

#[rstest]
#[case("README.md", MYSQL, Sample::Demo)]
#[case(GUIDE, MYSQL, Sample::Shop)]
#[case(GUIDE, "mariadb-11.8", Sample::Shop)]
#[case("docs/errors.md", MYSQL, Sample::Shop)]
#[case("docs/files.md", MYSQL, Sample::Shop)]
#[case("docs/retention.md", MYSQL, Sample::Shop)]
#[case("docs/resume.md", MYSQL, Sample::Shop)]
#[case("docs/resume.md", "mariadb-11.8", Sample::Shop)]
#[case("docs/binlogs.md", MYSQL, Sample::Shop)]
#[case("docs/binlogs.md", "mariadb-11.8", Sample::Shop)]
#[case("docs/replicas.md", MYSQL, Sample::Shop)]
#[case("docs/replicas.md", "mariadb-11.8", Sample::Shop)]
#[case("docs/encryption.md", MYSQL, Sample::Shop)]
#[case("docs/copies.md", MYSQL, Sample::Shop)]
#[case("docs/tiers.md", MYSQL, Sample::Shop)]
#[case("docs/clone.md", MYSQL, Sample::Shop)]
#[case("docs/export.md", MYSQL, Sample::Shop)]
#[case("docs/import.md", MYSQL, Sample::Shop)]
#[case("docs/benchmarks.md", MYSQL, Sample::Shop)]
#[tokio::test(flavor = "multi_thread")]
async fn every_command_does_what_the_page_shows(
    #[case] path: &str,
    #[case] server: &str,
    #[case] sample: Sample,
) {
    let page = Page::read(&root(), path);
    let mut stage = Stage::set(server, sample).await;
    for step in &page.steps {
        stage.play(&page, step).await;
    }
    stage.clear().await;
}

#[test]
fn no_page_is_left_out() {
    let runnable: BTreeSet<String> =
        pages().into_iter().filter(|p| !p.steps.is_empty()).map(|p| p.path).collect();
    let expected = [
        "README.md",
        GUIDE,
        "docs/errors.md",
        "docs/files.md",
        "docs/binlogs.md",
        "docs/copies.md",
        "docs/replicas.md",
        "docs/tiers.md",
        "docs/encryption.md",
        "docs/retention.md",
        "docs/clone.md",
        "docs/resume.md",
        "docs/benchmarks.md",
        "docs/export.md",
        "docs/import.md",
    ]
    .map(str::to_owned);
    assert_eq!(runnable, BTreeSet::from(expected), "give the page a case of the test above");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_account_of_the_guide_is_enough(
    #[values(MYSQL, "mariadb-10.11", "mariadb-11.8")] server: &str,
) {
    let page = Page::read(&root(), GUIDE);
    let mut stage = Stage::set(server, Sample::Shop).await;
    let create = page.steps.iter().filter(
        |step| matches!(&step.what, What::Sql { text, .. } if text.contains("CREATE USER")),
    );
    for step in create {
        stage.play(&page, step).await;
    }
    for command in [
        "export HOLDFAST_REPO=/srv/backup HOLDFAST_SOURCE_PASSWORD='choose-a-password'",
        "holdfast init --no-encryption",
        "holdfast check --source mysql://backup@db1/",
        "holdfast backup --source mysql://backup@db1/ --cluster shop",
    ] {
        assert_eq!(stage.run(command), 0, "{command}:\n{}", stage.printed());
    }
    stage.clear().await;
}

#[test]
fn every_exit_code_is_explained() {
    let text = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for kind in ErrorKind::ALL {
        let code = kind.exit_code().to_string();
        let name = serde_json::to_value(kind).unwrap();
        let name = format!("`{}`", name.as_str().unwrap());
        let row = rows.iter().find(|row| row[0] == code);
        assert_eq!(row.map(|row| row[1]), Some(name.as_str()), "exit code {code}");
    }
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let directory = root().join(&page.path).parent().unwrap().to_path_buf();
        for link in page.links() {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target =
                if file.is_empty() { root().join(&page.path) } else { directory.join(file) };
            assert!(target.exists(), "{}: {link}", page.path);
            if !anchor.is_empty() {
                let anchors = Page::read(Path::new("/"), target.to_str().unwrap()).anchors();
                assert!(anchors.iter().any(|a| a == anchor), "{}: {link}: {anchors:?}", page.path);
            }
        }
    }
}
