//! Ctrl-C and SIGTERM: the first asks for a clean end, the second ends at once.

use backup_core::{Context, ErrorKind, Event, Result, io_error};
use tokio::signal::unix::{SignalKind, signal};

/// Watches for signals until the runtime ends.
pub(crate) fn watch(cx: &Context) -> Result<()> {
    let listen = |kind| {
        signal(kind).map_err(|e| io_error(e, ErrorKind::Internal, "cannot listen for signals"))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let cx = cx.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
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
