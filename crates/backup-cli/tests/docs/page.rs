//! What a page of documentation asks a reader to do.

use std::path::Path;

/// A page, and its steps from top to bottom.
pub(crate) struct Page {
    /// Its path from the root of the workspace.
    pub(crate) path: String,
    pub(crate) steps: Vec<Step>,
    text: String,
}

/// Something to do.
#[derive(Debug, PartialEq)]
pub(crate) struct Step {
    /// The line of the page where it stands, from 1.
    pub(crate) line: usize,
    pub(crate) what: What,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum What {
    /// Run a command; `output` is what the page shows of it.
    Command { command: String, output: Vec<String> },
    /// Run statements, at this flavor only when one is named.
    Sql { flavor: Option<String>, text: String },
    /// Write a file.
    File { path: String, text: String },
}

impl Page {
    /// Reads a page.
    pub(crate) fn read(root: &Path, path: &str) -> Page {
        let text = std::fs::read_to_string(root.join(path))
            .unwrap_or_else(|e| panic!("cannot read {path}: {e}"));
        Page { steps: steps(path, &text), path: path.to_owned(), text }
    }

    /// The targets of its links that lead to files and headings.
    pub(crate) fn links(&self) -> Vec<String> {
        let starts = self.text.split("](").skip(1);
        let targets = starts.filter_map(|rest| rest.split_once(')').map(|(link, _)| link));
        targets.filter(|link| !link.contains("://")).map(str::to_owned).collect()
    }

    /// What its headings are called in links, by GitHub's rules.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.text.lines().filter(|line| line.starts_with('#'));
        let anchor = |line: &str| {
            let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
        };
        headings.map(anchor).collect()
    }
}

fn steps(path: &str, text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, opening)) = lines.next() {
        let Some(info) = opening.trim_start().strip_prefix("```") else { continue };
        let block: Vec<(usize, &str)> =
            lines.by_ref().take_while(|(_, text)| text.trim() != "```").collect();
        let (language, argument) = info.trim().split_once(' ').unwrap_or((info.trim(), ""));
        let body = || block.iter().map(|(_, text)| format!("{text}\n")).collect::<String>();
        let mut add = |line, what| steps.push(Step { line, what });
        match (language, argument) {
            ("console", "") => steps.extend(commands(path, &block)),
            ("sql", flavor) => {
                let flavor = (!flavor.is_empty()).then(|| flavor.to_owned());
                add(line, What::Sql { flavor, text: body() });
            }
            ("cron", "") => {
                for (line, text) in &block {
                    // Five fields of time and one of the user.
                    let command = text.split_whitespace().skip(6).collect::<Vec<_>>().join(" ");
                    add(*line, What::Command { command, output: Vec::new() });
                }
            }
            (_, file) if file.starts_with('/') => {
                add(line, What::File { path: file.to_owned(), text: body() });
                for (line, text) in &block {
                    if let Some(command) = text.strip_prefix("ExecStart=") {
                        let command = command.to_owned();
                        add(*line, What::Command { command, output: Vec::new() });
                    }
                }
            }
            // What looks like a session must not escape by its name.
            _ => {
                let session = block.iter().find(|(_, text)| text.starts_with("$ "));
                assert_eq!(session, None, "{path}: a session in a block that is not `console`");
                let shell = matches!(language, "sh" | "bash" | "shell" | "zsh" | "shell-session");
                assert!(!shell, "{path}, line {line}: write commands as `console`");
            }
        }
    }
    steps
}

fn commands(path: &str, block: &[(usize, &str)]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for &(line, text) in block {
        if let Some(command) = text.strip_prefix("$ ") {
            let what = What::Command { command: command.to_owned(), output: Vec::new() };
            steps.push(Step { line, what });
            continue;
        }
        let Some(What::Command { command, output }) = steps.last_mut().map(|s| &mut s.what) else {
            panic!("{path}, line {line}: a console block begins with a command");
        };
        match command.strip_suffix('\\') {
            Some(begun) if output.is_empty() => {
                *command = format!("{}{}", begun, text.trim_start());
            }
            _ => output.push(text.to_owned()),
        }
    }
    steps
}

#[test]
fn blocks_become_steps() {
    let text = "# A\n```console\n$ a \\\n    b\nout\n…\n$ c\n```\n```sql mariadb\nX;\n```\n```text\nno\n```\n\
                ```ini /etc/a.service\nExecStart=/x y\n```\n```cron\n0 1 * * *  me  /x -q\n```\n";
    let command = |line, command: &str, output: &[&str]| Step {
        line,
        what: What::Command {
            command: command.into(),
            output: output.iter().map(ToString::to_string).collect(),
        },
    };
    let sql = What::Sql { flavor: Some("mariadb".into()), text: "X;\n".into() };
    let file = What::File { path: "/etc/a.service".into(), text: "ExecStart=/x y\n".into() };
    let expected = [
        command(3, "a b", &["out", "…"]),
        command(7, "c", &[]),
        Step { line: 9, what: sql },
        Step { line: 15, what: file },
        command(16, "/x y", &[]),
        command(19, "/x -q", &[]),
    ];
    assert_eq!(steps("a.md", text), expected);
}

#[test]
#[should_panic(expected = "a session in a block that is not `console`")]
fn a_session_cannot_hide() {
    steps("a.md", "```\n$ rm -r x\n```\n");
}
