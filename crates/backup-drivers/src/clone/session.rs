//! One clone from its beginning to its end, over as many connections as it takes.
//!
//! The main connection carries the data. The other one carries our acknowledgements, because the main
//! one cannot take a request while it streams. A donor that loses us keeps the clone for some minutes;
//! we come back and say what we have.

use std::future::Future;
use std::time::Duration;

use backup_core::{Context, Error, ErrorKind, Event, Result};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::broken;
use super::descriptor::{Block, Descriptor, FileEntry, Locator, Mark, Received, Stage, State};
use super::rpc::{Announced, Ddl, Rpc, Sent};
use crate::connect::ConnectOptions;

/// How long a donor may take to let go of a clone that is given up.
const FAREWELL: Duration = Duration::from_secs(10);
/// How often we try to come back.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];
/// What a donor does where it does not say how long it waits for us.
const PATIENCE: Duration = Duration::from_secs(300);

/// What takes the data of a clone.
///
/// What was taken is never asked for again: a donor that lost us goes on behind it.
pub(super) trait Receive: Send {
    /// A stage begins; after a lost connection possibly again.
    fn begin(&mut self, stage: Stage) -> impl Future<Output = Result<()>> + Send;
    /// A file of the stage that is under way, or, with `ddl`, what DDL of the stage before did.
    fn file(&mut self, entry: FileEntry, ddl: bool) -> impl Future<Output = Result<()>> + Send;
    /// Bytes of a file.
    fn block(&mut self, block: Block, bytes: Bytes) -> impl Future<Output = Result<()>> + Send;
    /// All of a stage was given; after a lost connection possibly again. The donor goes on when this
    /// returns.
    fn end(&mut self, stage: Stage) -> impl Future<Output = Result<()>> + Send;
}

/// The two connections.
#[derive(Debug)]
struct Lines {
    main: Rpc,
    acks: Rpc,
}

/// A clone under way.
#[derive(Debug)]
pub(super) struct Session {
    donor: ConnectOptions,
    ddl: Ddl,
    locator: Locator,
    announced: Announced,
    received: Received,
    stage: Stage,
    lines: Option<Lines>,
    restarts: u32,
    /// When the donor granted it, and with it the lock against DDL, if that was asked for.
    began: Instant,
    /// How long that was, in the end.
    held: Duration,
}

impl Session {
    /// Connects and begins a clone. From here on the donor tracks what changes: [`Session::run`] has to
    /// follow.
    ///
    /// # Errors
    /// As [`crate::wire::Connection::connect`], and what the donor refuses.
    pub(super) async fn begin(donor: &ConnectOptions, ddl: Ddl) -> Result<Session> {
        let mut main = Rpc::enter(donor).await?;
        let (locator, announced) = match main.init(ddl).await {
            Ok(begun) => begun,
            Err(e) => {
                // It keeps what it has for the clone until we leave.
                let _ = timeout(FAREWELL, main.exit()).await;
                return Err(e);
            }
        };
        let began = Instant::now();
        let acks = Rpc::enter(donor).await?;
        Ok(Session {
            donor: donor.clone(),
            ddl,
            locator,
            announced,
            received: Received::default(),
            stage: Stage::Init,
            lines: Some(Lines { main, acks }),
            restarts: 0,
            began,
            held: Duration::ZERO,
        })
    }

    /// One that has begun, with a donor that does not wait for us when we are lost.
    #[cfg(test)]
    pub(super) fn begun(locator: Locator, main: Rpc, acks: Rpc) -> Session {
        let setting = ("clone_donor_timeout_after_network_failure".to_owned(), "0".to_owned());
        Session {
            donor: ConnectOptions::socket("/nowhere", "nobody"),
            ddl: Ddl::Concurrent,
            locator,
            announced: Announced { settings: vec![setting], ..Announced::default() },
            received: Received::default(),
            stage: Stage::Init,
            lines: Some(Lines { main, acks }),
            restarts: 0,
            began: Instant::now(),
            held: Duration::ZERO,
        }
    }

    /// What the donor said of itself.
    pub(super) fn announced(&self) -> &Announced {
        &self.announced
    }

    /// Whether nobody can read along on the connection.
    pub(super) fn is_encrypted(&self) -> bool {
        self.lines.as_ref().is_some_and(|lines| lines.main.is_encrypted())
    }

    /// How often the connection was lost and had again.
    pub(super) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// How long DDL had to wait for it.
    pub(super) fn ddl_waited(&self) -> Duration {
        match self.ddl {
            Ddl::Concurrent => Duration::ZERO,
            Ddl::Blocked { .. } => self.held,
        }
    }

    /// Until when DDL may be kept waiting, and how long that is.
    fn deadline(&self) -> Option<(Instant, u32)> {
        match self.ddl {
            Ddl::Concurrent => None,
            Ddl::Blocked { limit } => Some((self.began + Duration::from_secs(limit.into()), limit)),
        }
    }

    /// Gives everything to `receiver`. However it ends, the donor is free afterwards, as far as it can
    /// be reached.
    ///
    /// # Errors
    /// What the donor or the receiver fails with; [`ErrorKind::Connect`] when the donor could not be had
    /// again in time; [`ErrorKind::Interrupted`].
    pub(super) async fn run(&mut self, cx: &Context, receiver: &mut impl Receive) -> Result<()> {
        let mut asked = false;
        loop {
            let Some(mut lines) = self.lines.take() else {
                return Err(Error::internal("a clone is run twice"));
            };
            let deadline = self.deadline();
            let stream = cx.run(self.stream(&mut lines, &mut asked, receiver));
            let outcome = match deadline {
                Some((at, limit)) => timeout_at(at, stream).await.unwrap_or_else(|_| {
                    Err(Error::new(
                        ErrorKind::Source,
                        format!("the clone kept DDL waiting for {limit} s, and was given up"),
                    )
                    .with_remedy(
                        "allow more with --clone-block-ddl, or leave that out: DDL goes on then",
                    ))
                }),
                None => stream.await,
            };
            match outcome {
                Ok(()) => {
                    lines.main.exit().await?;
                    self.held = self.began.elapsed();
                    return lines.acks.exit().await;
                }
                Err(e) if e.kind() == ErrorKind::Connect => {
                    drop(lines);
                    self.lines = Some(self.come_back(cx, e).await?);
                    asked = false;
                }
                Err(e) => {
                    self.give_up(lines).await;
                    return Err(e);
                }
            }
        }
    }

    /// Takes the stream to its end.
    async fn stream(
        &mut self,
        lines: &mut Lines,
        asked: &mut bool,
        receiver: &mut impl Receive,
    ) -> Result<()> {
        if !*asked {
            lines.main.execute().await?;
            *asked = true;
        }
        loop {
            match lines.main.next().await? {
                Sent::Descriptor(Descriptor::Task) => {}
                Sent::Descriptor(Descriptor::State(state)) => {
                    self.state(lines, &state, receiver).await?;
                }
                Sent::Descriptor(Descriptor::File(entry)) => {
                    if entry.stage != self.stage && entry.stage.number() != self.stage.number() + 1
                    {
                        return Err(broken("a file belongs to another state"));
                    }
                    let ddl = entry.stage != self.stage;
                    receiver.file(entry, ddl).await?;
                }
                Sent::Descriptor(Descriptor::Data(block)) => {
                    let Sent::Data(bytes) = lines.main.next().await? else {
                        return Err(broken("data is announced and does not follow"));
                    };
                    if bytes.len() != block.bytes as usize || block.stage != self.stage {
                        return Err(broken("data is not what was announced"));
                    }
                    if self.stage == Stage::Files {
                        self.received.all_files = true;
                    }
                    receiver.block(block, bytes).await?;
                    self.received.block(&block)?;
                }
                Sent::Data(_) => return Err(broken("data comes unannounced")),
                Sent::Complete if self.stage == Stage::Done => return Ok(()),
                Sent::Complete => return Err(broken("it ends before everything was sent")),
            }
        }
    }

    async fn state(
        &mut self,
        lines: &mut Lines,
        state: &State,
        receiver: &mut impl Receive,
    ) -> Result<()> {
        let due = self.stage.number();
        match state.mark {
            Mark::Waiting => Ok(()),
            Mark::Start => {
                let number = state.stage.number();
                if number != due && number != due + 1 {
                    return Err(broken("its states are out of order"));
                }
                self.stage = state.stage;
                self.received.begin(state);
                receiver.begin(state.stage).await
            }
            Mark::End => {
                if state.stage != self.stage {
                    return Err(broken("a state ends that had not begun"));
                }
                receiver.end(state.stage).await?;
                lines.acks.acknowledge(&self.locator, state).await
            }
        }
    }

    /// Connects again and has the donor go on.
    async fn come_back(&mut self, cx: &Context, lost: Error) -> Result<Lines> {
        let patience = self.patience();
        let until = Instant::now() + patience;
        cx.event(Event::Warning {
            text: format!(
                "the connection to the source was lost, trying again for {} s: {}",
                patience.as_secs(),
                lost.chain()
            ),
        });
        let mut pauses = PAUSES.iter();
        let mut pause = PAUSES[0];
        let mut last = lost;
        loop {
            pause = pauses.next().copied().unwrap_or(pause);
            if Instant::now() + pause > until {
                let seconds = patience.as_secs();
                return Err(
                    last.context(format!("the source could not be had again in {seconds} s"))
                );
            }
            let left = until.duration_since(Instant::now()).as_secs();
            cx.phase(format!("waiting for the source, which is given up in {left} s"));
            cx.run(async {
                sleep(pause).await;
                Ok(())
            })
            .await?;
            match cx.run(self.resume()).await {
                Ok(lines) => {
                    self.restarts += 1;
                    cx.phase("clone");
                    return Ok(lines);
                }
                Err(e) if e.kind() == ErrorKind::Connect => last = e,
                Err(e) => {
                    return Err(e.context("the source does not go on with the clone").with_remedy(
                        "it was restarted, gave the clone up, or somebody killed its sessions: take the \
                         backup again",
                    ));
                }
            }
        }
    }

    async fn resume(&self) -> Result<Lines> {
        let mut main = Rpc::enter(&self.donor).await?;
        let acks = Rpc::enter(&self.donor).await?;
        main.reinit(self.ddl, &self.locator.resume(&self.received)).await?;
        Ok(Lines { main, acks })
    }

    /// How long the donor keeps a clone whose recipient is gone.
    fn patience(&self) -> Duration {
        const SETTING: &str = "clone_donor_timeout_after_network_failure";
        let said = self.announced.settings.iter().find(|(name, _)| name == SETTING);
        let minutes = said.and_then(|(_, value)| value.parse::<u64>().ok());
        minutes.map_or(PATIENCE, |minutes| Duration::from_secs(60 * minutes.min(30)))
    }

    /// Tells the donor that there is nobody any more who wants the clone. What it does not hear it finds
    /// out by its own time-out.
    async fn give_up(&self, lines: Lines) {
        let Lines { mut main, mut acks } = lines;
        let farewell = async {
            acks.cancel(&self.locator).await?;
            // What is on its way comes first, then the error that we asked for.
            while !matches!(main.next().await, Ok(Sent::Complete) | Err(_)) {}
            main.exit().await?;
            acks.exit().await
        };
        let _: Result<Result<()>, _> = timeout(FAREWELL, farewell).await;
    }
}
