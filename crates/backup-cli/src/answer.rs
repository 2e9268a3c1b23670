//! What a command prints on stdout when it is done: for a person or, with `--json`, for a program.

use std::fmt::Display;
use std::io::{self, Write};

use backup_core::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::Value;

use crate::failure::{self, described};

/// The result of a command.
pub(crate) struct Answer {
    json: Value,
    text: String,
    summary: bool,
    on_stderr: bool,
    ending: Option<ErrorKind>,
    error: Option<Error>,
}

impl Answer {
    /// The same answer in both forms.
    pub(crate) fn new(document: &impl Serialize, text: impl Display) -> Result<Self> {
        let json = serde_json::to_value(document)
            .map_err(|e| Error::internal("the answer cannot be written as JSON").with_source(e))?;
        Ok(Answer {
            json,
            text: text.to_string(),
            summary: false,
            on_stderr: false,
            ending: None,
            error: None,
        })
    }

    /// Adds a field to the document, and lines to the text.
    pub(crate) fn with(mut self, field: &str, value: Value, text: &str) -> Self {
        self.json[field] = value;
        self.text.push_str(text);
        self
    }

    /// Where all went well, the text only says so: `--quiet` leaves it out then.
    pub(crate) fn summary(mut self) -> Self {
        self.summary = true;
        self
    }

    /// Standard output has taken something else.
    pub(crate) fn on_stderr(mut self) -> Self {
        self.on_stderr = true;
        self
    }

    /// The command did its work, and yet ends with the exit code of `kind`.
    pub(crate) fn ending(mut self, kind: Option<ErrorKind>) -> Self {
        self.ending = kind;
        self
    }

    /// What was asked for was not done, and the answer is what is known of it: the error is in the document, and on
    /// standard error.
    pub(crate) fn failing(self, error: Error) -> Self {
        let answer = self.with("error", described(&error), "");
        Answer { ending: Some(error.kind()), error: Some(error), ..answer }
    }

    /// Prints the answer and gives the exit code.
    pub(crate) fn print(self, json: bool, quiet: bool) -> Result<u8> {
        if let Some(error) = &self.error {
            failure::print(error, false);
        }
        let said = json || !(self.summary && quiet && self.ending.is_none());
        if self.on_stderr {
            let text = if json { format!("{:#}\n", self.json) } else { self.text };
            if said {
                // Where nobody hears it, the exit code still says it.
                let _ = io::stderr().lock().write_all(text.as_bytes());
            }
        } else if json {
            print_json(&self.json)?;
        } else if said {
            print_text(&self.text)?;
        }
        Ok(self.ending.map_or(0, ErrorKind::exit_code))
    }
}

/// Prints one JSON document on stdout.
pub(crate) fn print_json(document: &Value) -> Result<()> {
    print_text(&format!("{document:#}\n"))
}

/// Prints on stdout. A reader that went away (`holdfast list | head`) is no failure.
pub(crate) fn print_text(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::internal(
            "what was asked for is done, but cannot be told on standard output",
        )
        .with_source(e)
        .with_remedy("see `holdfast list` and `holdfast show`; do not run it again for this")),
        _ => Ok(()),
    }
}
