use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};

use crate::home::Home;
use crate::server::{self, PASSWORD, Server};

/// A command that asks for a secret, on a terminal of its own.
struct Prompt {
    script: Child,
    output: BufReader<ChildStdout>,
    process: Pid,
}

impl Prompt {
    /// Starts it; util-linux's `script` makes the terminal. Returns once the terminal echoes no
    /// more.
    fn start(home: &Home, arguments: &str) -> Prompt {
        let program = home.command::<&str>([]);
        let line = format!(
            "trap : INT; tty; sh -c 'echo $$; exec \"$0\" \"$@\"' '{}' {arguments}; \
             echo exit code $?; stty -a",
            program.get_program().to_str().unwrap(),
        );
        let mut script = Command::new("script")
            .args(["--quiet", "--command", &line, "/dev/null"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("SHELL", "/bin/sh")
            .current_dir(home.path("."))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(script.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            line.trim().to_owned()
        };
        let (terminal, process) = (line(), line());
        let terminal = File::open(terminal).unwrap();
        while tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ECHO) {
            sleep(Duration::from_millis(10));
        }
        let process = Pid::from_raw(process.parse().unwrap()).unwrap();
        Prompt { script, output, process }
    }

    /// Types something.
    fn answer(mut self, answer: &[u8]) -> String {
        // Kept open: `script` would make its end that of the terminal.
        let mut keyboard = self.script.stdin.take().unwrap();
        keyboard.write_all(answer).unwrap();
        keyboard.flush().unwrap();
        self.end()
    }

    /// What was shown until the end, the state of the terminal last.
    fn end(mut self) -> String {
        let mut shown = String::new();
        self.output.read_to_string(&mut shown).unwrap();
        self.script.wait().unwrap();
        assert!(shown.contains(" echo "), "the terminal was left without echo: {shown}");
        shown
    }
}

#[tokio::test]
async fn a_person_is_asked_and_the_answer_is_not_shown() {
    let server = Server::with_shop("mysql-9.7").await;
    server::backup_account(&mut server.session().await).await;
    let home = Home::new();
    let check = format!("check --source '{}'", server.tcp_url("backup"));
    let prompt = || Prompt::start(&home, &check);

    let shown = prompt().answer(format!("{PASSWORD}\n").as_bytes());
    assert!(shown.contains("Password of backup@127.0.0.1"), "{shown}");
    assert!(shown.contains("can be backed up") && shown.contains("exit code 0"), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");

    let shown = prompt().answer(b"wrong\n");
    assert!(shown.contains("1045") && shown.contains("exit code 3"), "{shown}");

    let shown = prompt().answer(b"\x03");
    assert!(shown.contains("interrupted") && shown.contains("exit code 13"), "{shown}");

    let prompt = prompt();
    kill_process(prompt.process, Signal::TERM).unwrap();
    let shown = prompt.end();
    assert!(shown.contains("interrupted") && shown.contains("exit code 13"), "{shown}");
}

#[test]
fn a_passphrase_is_asked_for_where_one_is_needed() {
    let home = Home::new();
    let ask =
        |arguments: &str, answer: &str| Prompt::start(&home, arguments).answer(answer.as_bytes());
    let shown = ask("init --repo repo", "correct horse\ncorrect horsf\n");
    assert!(shown.contains("not the same") && shown.contains("exit code 2"), "{shown}");
    let shown = ask("init --repo repo", "\n");
    assert!(shown.contains("is empty") && shown.contains("exit code 2"), "{shown}");
    assert!(!home.path("repo").exists());

    let shown = ask("init --repo repo", "correct horse\ncorrect horse\n");
    assert!(shown.contains("It is encrypted") && shown.contains("exit code 0"), "{shown}");
    let shown = ask("list --repo repo", "correct horse\n");
    assert!(shown.contains("Passphrase of repository"), "{shown}");
    assert!(shown.contains("no backups") && shown.contains("exit code 0"), "{shown}");
    let shown = ask("list --repo repo", "wrong horse\n");
    assert!(shown.contains("wrong passphrase") && shown.contains("exit code 2"), "{shown}");

    home.write("p", "correct horse\n");
    let shown = ask("key add --repo repo --passphrase-file p", "another\nanother\n");
    assert!(shown.contains("Added key slot") && shown.contains("exit code 0"), "{shown}");
    assert!(!shown.contains("another horse"), "{shown}");
    let shown = ask("list --repo repo", "another\n");
    assert!(shown.contains("exit code 0") && !shown.contains("another"), "{shown}");
}
