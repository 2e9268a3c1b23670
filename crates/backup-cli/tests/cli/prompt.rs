use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};

use crate::home::Home;
use crate::server::{self, PASSWORD, Server};

/// `holdfast check` that asks for a password, on a terminal of its own.
struct Prompt {
    script: Child,
    output: BufReader<ChildStdout>,
    process: Pid,
}

impl Prompt {
    /// Starts it; util-linux's `script` makes the terminal. Returns once the terminal echoes no
    /// more.
    fn start(home: &Home, server: &Server) -> Prompt {
        let program = home.command::<&str>([]);
        let line = format!(
            "trap : INT; tty; sh -c 'echo $$; exec \"$0\" \"$@\"' '{}' check --source '{}'; \
             echo exit code $?; stty -a",
            program.get_program().to_str().unwrap(),
            server.tcp_url("backup")
        );
        let mut script = Command::new("script")
            .args(["--quiet", "--command", &line, "/dev/null"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("SHELL", "/bin/sh")
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
    let prompt = || Prompt::start(&home, &server);

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
