//! What an earlier receiver left in the spool.

use backup_core::{Result, SegmentInfo};

use super::super::segment::{Upto, examine, sha256};
use super::super::spool::Waiting;
use super::super::tips::Leftover;
use super::Receiver;

impl Receiver<'_, '_> {
    /// Takes up what an earlier receiver left in the spool.
    pub(super) fn take_up(&mut self, left: Vec<Waiting>) -> Result<()> {
        let mut left = left.into_iter().peekable();
        while let Some(waiting) = left.next() {
            // A long transaction goes on in the next one: there is nothing to cut off.
            let upto = match left.peek() {
                Some(next) if next.continues(&waiting)? => Upto::End,
                _ => Upto::LastTransaction,
            };
            let Some(info) = self.look_through(&waiting, upto)? else { continue };
            match self.archived.leftover(&info) {
                Ok(Leftover::Next) => self.queue(waiting, info)?,
                Ok(Leftover::Archived) => {
                    let text =
                        format!("{} waited in the spool, and is archived already", info.range);
                    self.cx.note(text);
                    waiting.remove()?;
                }
                Ok(Leftover::Rest(head)) => {
                    let text = format!("others archived {} in part; the rest follows", info.range);
                    self.cx.note(text);
                    let waiting = waiting.rest(*head);
                    if let Some(info) = self.look_through(&waiting, upto)? {
                        self.queue(waiting, info)?;
                    }
                }
                Err(e) => {
                    return Err(e.with_remedy(format!(
                        "move {}.* to a safe place, then start again; where a gap was accepted, take a \
                         full backup",
                        waiting.stem().display()
                    )));
                }
            }
        }
        Ok(())
    }

    /// What can be used of a segment in the spool; the rest is removed.
    fn look_through(&self, waiting: &Waiting, upto: Upto) -> Result<Option<SegmentInfo>> {
        let content = waiting.content()?;
        let now = self.cx.now();
        let found = examine(&waiting.head, &content, upto, sha256, now)
            .map_err(|e| e.context("the spool is damaged"))?;
        match &found {
            None => waiting.remove()?,
            Some(info) if info.bytes() < content.len() as u64 => waiting.truncate(info.bytes())?,
            Some(_) => {}
        }
        Ok(found)
    }
}
