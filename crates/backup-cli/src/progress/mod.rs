//! Progress on stderr: a bar on a terminal, lines in a log, NDJSON for programs.
//!
//! The libraries' events go through a channel to one thread, which alone writes to stderr while a
//! command runs, and which samples the counters of the [`Context`] in between. So an event costs
//! the data path no more than a send.

mod bar;
mod json;
mod lines;
mod rate;

use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use backup_core::{Context, Event, Monitor};
use clap::ValueEnum;

use rate::{Rates, Sample};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// A bar on a terminal, lines elsewhere
    Auto,
    /// A bar
    Bar,
    /// A line every ten seconds and for each phase
    Lines,
    /// One JSON document a line
    Json,
    /// Nothing but warnings
    None,
}

impl FromStr for Mode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        <Mode as ValueEnum>::from_str(text, false)
            .map_err(|_| format!("progress cannot be `{text}`; use auto, bar, lines, json or none"))
    }
}

/// How much is said besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Warnings only.
    Quiet,
    /// Phases and warnings.
    Normal,
    /// Notes too.
    Verbose,
    /// Every finished object too.
    Chatty,
}

impl Verbosity {
    /// Whether people want to read the event.
    fn shows(self, event: &Event) -> bool {
        self >= match event {
            Event::Warning { .. } => Verbosity::Quiet,
            Event::Phase { .. } => Verbosity::Normal,
            Event::Done { .. } => Verbosity::Chatty,
            _ => Verbosity::Verbose,
        }
    }
}

/// One way to show events and samples.
trait Face: Send {
    /// How often a sample is wanted.
    fn interval(&self) -> Duration;
    /// Something happened.
    fn event(&mut self, event: &Event, sample: &Sample);
    /// Time went by.
    fn sample(&mut self, sample: &Sample);
    /// The command is done: leave the terminal as it was.
    fn finish(&mut self, sample: &Sample);
}

enum Message {
    Event(Event),
    Watch(Context),
    Finish,
}

/// The thread that shows progress.
pub(crate) struct Reporter {
    messages: Sender<Message>,
    thread: JoinHandle<()>,
}

impl Reporter {
    /// Starts it.
    pub(crate) fn start(mode: Mode, verbosity: Verbosity) -> Self {
        let (messages, inbox) = channel();
        let thread = std::thread::spawn(move || show(&inbox, face(mode, verbosity)));
        Reporter { messages, thread }
    }

    /// The monitor to give to a [`Context`].
    pub(crate) fn monitor(&self) -> Arc<dyn Monitor> {
        Arc::new(Messenger(self.messages.clone()))
    }

    /// Says whose counters to sample.
    pub(crate) fn watch(&self, cx: &Context) {
        // Fails only after the thread ended, and then there is nobody to show anything.
        let _ = self.messages.send(Message::Watch(cx.clone()));
    }

    /// Shows what is left and gives stderr back.
    pub(crate) fn finish(self) {
        let _ = self.messages.send(Message::Finish);
        let _ = self.thread.join();
    }
}

struct Messenger(Sender<Message>);

impl Monitor for Messenger {
    fn event(&self, event: Event) {
        let _ = self.0.send(Message::Event(event));
    }
}

fn face(mode: Mode, verbosity: Verbosity) -> Box<dyn Face> {
    let terminal = std::io::stderr().is_terminal();
    let quiet = verbosity == Verbosity::Quiet;
    match mode {
        Mode::Auto if terminal && !quiet => Box::new(bar::Bar::new(verbosity)),
        Mode::Auto => Box::new(lines::Lines::new(verbosity, !quiet)),
        Mode::Bar => Box::new(bar::Bar::new(verbosity)),
        Mode::Lines => Box::new(lines::Lines::new(verbosity, true)),
        Mode::Json => Box::new(json::Json),
        Mode::None => Box::new(lines::Lines::new(Verbosity::Quiet, false)),
    }
}

fn show(inbox: &Receiver<Message>, mut face: Box<dyn Face>) {
    let mut watched: Option<Context> = None;
    // Before the first phase the terminal may be in use, by the prompt for a password.
    let mut working = false;
    let mut rates = Rates::new(Instant::now());
    let mut next = Instant::now() + face.interval();
    loop {
        let message = inbox.recv_timeout(next.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        let counts = watched.as_ref().map(|cx| cx.progress().snapshot()).unwrap_or_default();
        let sample = rates.sample(now, counts);
        match message {
            Ok(Message::Event(event)) => {
                if matches!(event, Event::Phase { .. }) {
                    working = true;
                    rates = Rates::new(now);
                }
                face.event(&event, &sample);
            }
            Ok(Message::Watch(cx)) => watched = Some(cx),
            Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => {
                return face.finish(&sample);
            }
            Err(RecvTimeoutError::Timeout) => {
                if working {
                    face.sample(&sample);
                }
                next = now + face.interval();
            }
        }
    }
}
