//! Ctrl-C, SIGTERM and a terminal that went away: the first asks for a clean end, the second ends at
//! once.

use backup_core::{Context, ErrorKind, Event, Result, io_error};
use tokio::signal::unix::{SignalKind, signal};

/// Watches for signals until the runtime ends.
pub(crate) fn watch(cx: &Context) -> Result<()> {
    let listen = |kind| {
        signal(kind).map_err(|e| io_error(e, ErrorKind::Internal, "cannot listen for signals"))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = hangup_matters().then(|| listen(SignalKind::hangup())).transpose()?;
    let cx = cx.clone();
    tokio::spawn(async move {
        let mut next = async || {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hung_up => {}
            }
        };
        next().await;
        cx.event(Event::Warning { text: "stopping; once more to stop at once".into() });
        cx.cancel();
        next().await;
        std::process::exit(ErrorKind::Interrupted.exit_code().into());
    });
    Ok(())
}

/// Whether SIGHUP is not ignored. Under `nohup` it is, and listening would undo that; where this
/// cannot be told, SIGHUP is left as it is.
fn hangup_matters() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // SIGHUP is signal 1, the lowest bit.
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 0)
}
