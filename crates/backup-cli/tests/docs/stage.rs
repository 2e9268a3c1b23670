//! What stands behind the names that the pages use.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use backup_core::{Context, Flavor};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::sandbox::Sandbox;
use tempfile::TempDir;

use crate::compare::difference;
use crate::page::{Page, Step, What};
use crate::root;
use crate::shell::Shell;

/// Places that the pages name; here they are below a temporary directory.
const PLACES: [&str; 5] = ["/srv/", "/etc/", "/mnt/", "/usr/local/", "/opt/"];
/// The socket that the pages name.
const SOCKET: &str = "/run/mysqld/mysqld.sock";
/// The account that the pages restore with, at both servers.
const ADMIN: [&str; 2] = [
    "CREATE USER admin@'%' IDENTIFIED BY 'the-admins-password'",
    "GRANT ALL PRIVILEGES ON *.* TO admin@'%' WITH GRANT OPTION",
];

/// What `db1` holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sample {
    /// The databases of `cargo xtask demo`.
    Demo,
    /// A handful of rows, for every flavor.
    Shop,
}

/// The servers `db1` (with a sample) and `db2` (empty), a directory, and a shell in it.
pub(crate) struct Stage {
    db1: Sandbox,
    db2: Sandbox,
    shell: Shell,
    printed: String,
    /// The exit code of the last command, until the page asks for it.
    unasked: Option<i32>,
    directory: TempDir,
}

impl Stage {
    /// Sets it.
    pub(crate) async fn set(server: &str, sample: Sample) -> Stage {
        let cx = Context::builder().build();
        let builder = xtask::servers::sandbox(server).await.unwrap().tcp(true).durable(false);
        let db1 = builder.clone().start(&cx).await.unwrap();
        let db2 = builder.option("server_id", "2").start(&cx).await.unwrap();
        for server in [&db1, &db2] {
            for sql in ADMIN {
                root_session(server).await.run(sql).await.unwrap();
            }
        }
        // A server that nobody used: its accounts are no transactions that others would ask for.
        let forget = match db2.install().flavor() {
            Flavor::MySql => "RESET BINARY LOGS AND GTIDS",
            Flavor::MariaDb => "RESET MASTER",
        };
        root_session(&db2).await.run(forget).await.unwrap();
        load(&db1, sample).await;

        let directory = tempfile::tempdir().unwrap();
        for place in PLACES {
            std::fs::create_dir_all(directory.path().join(&place[1..])).unwrap();
        }
        // The installation that the pages name.
        let installed = xtask::servers::Server::named(server).unwrap().directory();
        std::os::unix::fs::symlink(installed, directory.path().join("opt/mysql")).unwrap();
        let bin = directory.path().join("usr/local/bin");
        install(&bin);
        let shell = Shell::start(directory.path(), &bin);
        Stage { db1, db2, shell, printed: String::new(), unasked: None, directory }
    }

    /// Does what the page asks for, and compares what comes of it with what the page shows.
    pub(crate) async fn play(&mut self, page: &Page, step: &Step) {
        let at = format!("{}, line {}", page.path, step.line);
        match &step.what {
            What::File { path, text } => {
                let path = self.directory.path().join(path.trim_start_matches('/'));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, self.here(text)).unwrap();
            }
            What::Sql { flavor, text } => {
                let own = self.db1.install().flavor();
                let fits = match flavor.as_deref() {
                    None => true,
                    Some("mysql") => own == Flavor::MySql,
                    Some("mariadb") => own == Flavor::MariaDb,
                    Some(other) => panic!("{at}: there is no flavor {other}"),
                };
                let mut session = root_session(&self.db1).await;
                for sql in text.split(";\n").filter(|sql| fits && !sql.trim().is_empty()) {
                    let ran = session.run(sql).await;
                    ran.unwrap_or_else(|e| panic!("{at}: {sql}: {}", e.report()));
                }
                session.close().await.unwrap();
            }
            What::Command { command, .. } if command.starts_with("cargo ") => cargo(&at, command),
            What::Command { command, output } if command == "echo $?" => {
                let code = self.unasked.take().map(|code| code.to_string());
                assert_eq!(code.as_deref(), output.first().map(String::as_str), "{at}");
            }
            What::Command { command, output } => {
                self.all_is_well(&at);
                self.run(command);
                let printed = &self.printed;
                if let Some(difference) = difference(output, printed).filter(|_| !output.is_empty())
                {
                    panic!("{at}: `{command}`: {difference}\n--- it printed:\n{printed}");
                }
            }
        }
        if !matches!(step.what, What::Command { .. }) {
            self.all_is_well(&at);
        }
    }

    /// Runs a command and gives its exit code.
    pub(crate) fn run(&mut self, command: &str) -> i32 {
        let command = self.here(command);
        self.stays_here(&command);
        let (printed, code) = self.shell.run(&command);
        self.printed = self.there(&printed);
        self.unasked = Some(code);
        code
    }

    /// What the last command printed.
    pub(crate) fn printed(&self) -> &str {
        &self.printed
    }

    /// Fails when the last command did, and the page did not say so.
    fn all_is_well(&self, at: &str) {
        let code = self.unasked.unwrap_or_default();
        assert_eq!(code, 0, "before {at}: the last command printed:\n{}", self.printed);
    }

    /// Stops the servers.
    pub(crate) async fn clear(mut self) {
        self.all_is_well("the end");
        self.db1.stop().await.unwrap();
        self.db2.stop().await.unwrap();
    }

    fn addresses(&self) -> [(&'static str, String); 2] {
        let address = |server: &Sandbox| format!("127.0.0.1:{}", server.port().unwrap());
        [("db1", address(&self.db1)), ("db2", address(&self.db2))]
    }

    /// The text of a page with the names of this stage.
    fn here(&self, text: &str) -> String {
        let mut text = text.replace(SOCKET, self.db1.socket().to_str().unwrap());
        for (name, address) in self.addresses() {
            text = text.replace(&format!("@{name}/"), &format!("@{address}/"));
        }
        let mut here = String::new();
        for (i, c) in text.char_indices() {
            if begins_path(&text, i) && PLACES.iter().any(|place| text[i..].starts_with(place)) {
                here.push_str(self.directory.path().to_str().unwrap());
            }
            here.push(c);
        }
        here
    }

    /// What was printed here with the names of the pages.
    fn there(&self, text: &str) -> String {
        let mut text = text.replace(self.db1.socket().to_str().unwrap(), SOCKET);
        for (name, address) in self.addresses() {
            text = text.replace(&address, &format!("{name}:3306"));
        }
        text.replace(self.directory.path().to_str().unwrap(), "")
    }

    /// Fails when a command would touch the machine's own files.
    fn stays_here(&self, command: &str) {
        let devices = ["/dev/null", "/dev/urandom"].map(Path::new);
        let allowed = [self.directory.path(), devices[0], devices[1], &self.db1.socket()]
            .map(|path| path.to_str().unwrap().to_owned());
        for (i, _) in command.char_indices().filter(|&(i, _)| begins_path(command, i)) {
            let path = &command[i..];
            let inside = allowed.iter().any(|allowed| path.starts_with(allowed));
            assert!(inside, "add this place to PLACES: {path}");
        }
    }
}

/// Whether an absolute path begins at this byte.
fn begins_path(text: &str, at: usize) -> bool {
    let inside = |c: char| c.is_alphanumeric() || "/.:-_*$@}>,".contains(c);
    text[at..].starts_with('/')
        && !text[..at].chars().next_back().is_some_and(inside)
        && text[at + 1..].starts_with(|c: char| c.is_alphanumeric())
}

async fn root_session(server: &Sandbox) -> Session {
    Session::open(&ConnectOptions::socket(server.socket(), "root")).await.unwrap()
}

async fn load(server: &Sandbox, sample: Sample) {
    let script = match sample {
        Sample::Demo => {
            std::fs::read_to_string(root().join("xtask/src/tasks/demo/sample.sql")).unwrap()
        }
        Sample::Shop => include_str!("shop.sql").to_owned(),
    };
    let mut session = root_session(server).await;
    for statement in script.split(";;\n") {
        let lines = statement.lines().filter(|line| !line.starts_with("-- "));
        let sql = lines.collect::<Vec<_>>().join("\n");
        if !sql.trim().is_empty() {
            session.run(&sql).await.unwrap_or_else(|e| panic!("{}\n{sql}", e.report()));
        }
    }
    session.close().await.unwrap();
}

/// Puts `holdfast` into a directory. At a terminal the bar leaves nothing behind, so here there is
/// none, unless the page asks for another kind of progress.
fn install(bin: &Path) {
    std::fs::create_dir_all(bin).unwrap();
    let program = assert_cmd::cargo::cargo_bin!("holdfast").display();
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in\n*' --progress '*) exec '{program}' \"$@\" ;;\n\
         *) exec '{program}' --progress none \"$@\" ;;\nesac\n"
    );
    let path = bin.join("holdfast");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Checks that a line names a task, or a program to install, that exists.
fn cargo(at: &str, command: &str) {
    let command = command.split(" #").next().unwrap_or_default();
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[1..] {
        ["xtask", ref arguments @ ..] => help(at, command, "xtask", arguments),
        ["run", "--release", "-p", program, "--", ref arguments @ ..] => {
            help(at, command, program, arguments);
        }
        ["install", ref arguments @ ..] => {
            let path = arguments.iter().skip_while(|word| **word != "--path").nth(1);
            let path = path.unwrap_or_else(|| panic!("{at}: no --path"));
            assert_eq!(root().join(path), Path::new(env!("CARGO_MANIFEST_DIR")), "{at}");
        }
        _ => panic!("{at}: this test does not know what `{command}` does"),
    }
}

/// Runs a program of the workspace with `--help` after its arguments, which is an error after wrong
/// ones.
fn help(at: &str, command: &str, program: &str, arguments: &[&str]) {
    let directory = programs();
    let output = Command::new(directory.join(program)).args(arguments).arg("--help").output();
    let output = output.unwrap_or_else(|e| panic!("{at}: `{command}`: {program}: {e}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{at}: `{command}`: {stderr}");
}

/// Where the programs of the workspace are, as they are now. All targets in one call: that is what
/// `cargo test --workspace` has built already, while a single package has other features, and would
/// be built anew.
fn programs() -> &'static Path {
    static BUILT: std::sync::Once = std::sync::Once::new();
    BUILT.call_once(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--workspace", "--all-targets"])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    assert_cmd::cargo::cargo_bin!("holdfast").parent().unwrap()
}
