//! Scheduled events that are created and switched on while statements are applied over a client connection: the server
//! would run them at once, in the middle of it.

use backup_core::{Error, Result};

use super::super::events::{self, Name, Status};
use super::super::held;
use super::Direct;
use super::context::Statement;
use crate::connect::Session;

/// A session of its own: what it does is in no binlog, and under no settings of others.
#[derive(Default)]
pub(super) enum Aside {
    #[default]
    Unasked,
    /// The account may not keep statements out of the binlog.
    MayNot,
    Open(Box<Session>),
}

impl Direct<'_> {
    /// Looks at a statement before it is run. Gives the event that it makes the server run, which the server is not to
    /// do before everything is applied: that is written down first.
    pub(super) async fn event_comes(&mut self, statement: &Statement) -> Result<Option<Name>> {
        let place = (self.file, self.current.start);
        let (gtid, database) = (self.current.gtid.as_ref(), &statement.database);
        let said = events::lock(&self.heard).hear(place, gtid, database, &statement.sql);
        let Some((name, status, unless_there)) = said else { return Ok(None) };
        let Some(session) = self.aside().await? else { return Ok(None) };
        if unless_there && events::is_there(session, &name).await? {
            return Ok(None);
        }
        let enabled = status == Status::Enabled;
        match held::write(session, &[(name.clone(), status)]).await {
            Ok(()) => Ok(enabled.then_some(name)),
            Err(e) if e.server().is_some() => {
                self.give_up(&e);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Switches an event off until everything is applied.
    pub(super) async fn do_not_run(&mut self, event: &Name) -> Result<()> {
        let Some(session) = self.aside().await? else { return Ok(()) };
        for warning in events::switch_off(session, event).await? {
            self.cx.event(backup_core::Event::Warning { text: warning });
        }
        Ok(())
    }

    async fn aside(&mut self) -> Result<Option<&mut Session>> {
        if let Aside::Unasked = self.aside {
            let mut session = Session::open(&self.target.options).await?;
            match session.run("SET SESSION sql_log_bin = 0").await {
                Ok(_) => self.aside = Aside::Open(Box::new(session)),
                Err(e) if e.server().is_some() => self.give_up(&e),
                Err(e) => return Err(e),
            }
        }
        Ok(match &mut self.aside {
            Aside::Open(session) => Some(session),
            Aside::Unasked | Aside::MayNot => None,
        })
    }

    /// They are as the statements make them then, and only `event_scheduler` keeps them from running.
    fn give_up(&mut self, why: &Error) {
        self.aside = Aside::MayNot;
        self.cx.note(format!(
            "scheduled events are switched on as soon as they are created: {}",
            why.chain()
        ));
    }
}
