//! Files of a server that was killed, with its binary logs: by the last of these it decides which transactions it had
//! committed. A server without it finds some that are only prepared, and does not start.

use std::fmt::Write;

use backup_core::{BinlogFile, Context, ErrorKind, Result, io_error};

use super::catalog::State;
use super::drill::OnFiles;
use crate::binlog::{BinlogEnd, binlog_end};

impl OnFiles<'_> {
    /// Has a server recover that knows the binary logs among the files, if the last of them was not closed, and shuts it
    /// down in order. It writes its own elsewhere, and finds those by a list of its own. Gives what its log says.
    pub(super) async fn recover(&self, cx: &Context) -> Result<String> {
        if self.catalog.header.state != State::Crashed {
            return Ok(String::new());
        }
        // What cannot be read, a server that recovers tells.
        let end = binlog_end(&self.data).ok().flatten();
        let Some(BinlogEnd { in_use: true, position, .. }) = end else { return Ok(String::new()) };
        let last: Option<BinlogFile> = position.file.and_then(|file| file.parse().ok());
        let Some(last) = last else { return Ok(String::new()) };
        let failed = |what: &std::path::Path| {
            let message = format!("cannot list the binary logs in {}", what.display());
            move |e| io_error(e, ErrorKind::Target, message)
        };
        let mut logs = Vec::new();
        for entry in std::fs::read_dir(&self.data).map_err(failed(&self.data))? {
            let name = entry.map_err(failed(&self.data))?.file_name();
            let log = name.to_str().and_then(|name| name.parse::<BinlogFile>().ok());
            logs.extend(log.filter(|log| log.same_series(&last)));
        }
        logs.sort_by_key(BinlogFile::number);
        let mut list = String::new();
        for log in &logs {
            let path = self.data.join(log.to_string());
            // Into a string nothing fails.
            let _ = writeln!(list, "{}", path.display());
        }
        let index = self.scratch.join("recovery.index");
        std::fs::write(&index, list).map_err(failed(&index))?;
        let (base, index) = (self.scratch.join("recovery"), index.to_string_lossy().into_owned());
        let base = base.to_string_lossy().into_owned();
        let mut sandbox = self
            .start_with(cx, |builder| {
                let builder = builder.binary_log(true).option("log_bin", base.as_str());
                builder.option("log_bin_index", index.as_str())
            })
            .await?;
        sandbox.stop().await?;
        Ok(std::fs::read_to_string(sandbox.error_log()).unwrap_or_default())
    }
}
