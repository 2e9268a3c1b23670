//! Asking a person at a terminal for a secret.

use std::io::IsTerminal;

use backup_core::{Context, Error, ErrorKind, Result, Secret, io_error};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// Whether there is somebody to ask.
pub(crate) fn is_possible() -> bool {
    std::io::stdin().is_terminal()
}

/// Asks, without an echo.
pub(crate) async fn ask(cx: &Context, question: String) -> Result<Secret> {
    let terminal = tcgetattr(std::io::stdin());
    let answer = cx.run(async {
        let prompt = tokio::task::spawn_blocking(|| rpassword::prompt_password(question));
        prompt.await.map_err(|e| Error::internal("the prompt ended early").with_source(e))?.map_err(
            |e| match e.kind() {
                std::io::ErrorKind::Interrupted => Error::interrupted(),
                _ => io_error(e, ErrorKind::Usage, "cannot ask for the password"),
            },
        )
    });
    let answer = answer.await;
    if let (Err(_), Ok(before)) = (&answer, terminal) {
        // A prompt that is left in the middle would leave a terminal that echoes nothing.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
    answer.map(Secret::new)
}

/// Asks for a new passphrase, twice.
pub(crate) async fn ask_new(cx: &Context, what: &str) -> Result<Secret> {
    let first = ask(cx, format!("New passphrase of {what}: ")).await?;
    if first.expose().is_empty() {
        return Err(
            Error::usage("the passphrase is empty").with_remedy("type one that nobody guesses")
        );
    }
    let second = ask(cx, "The same again: ".to_owned()).await?;
    if first.expose() == second.expose() {
        Ok(first)
    } else {
        Err(Error::usage("the two passphrases are not the same")
            .with_remedy("run the command again"))
    }
}
