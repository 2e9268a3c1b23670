//! Rewriting of SQL definitions as text: no connection, no state.
//!
//! What the servers print in answer to `SHOW CREATE …` is cut into [tokens](lexer), and only the
//! tokens that have to change are replaced, so that everything else stays byte for byte.

mod account;
mod binary;
mod code;
mod condition;
mod demand;
mod lexer;
mod literal;
mod parts;
mod reach;
mod table;
mod touch;
mod view;

pub(super) use account::{
    account_create, account_grant, definer, hex_text, routine_grant, set_definer, single_privileges,
};
pub(super) use binary::as_binary;
pub(super) use code::{
    mentions_database, rename_database, rename_header, rename_libraries, rename_trigger,
    rename_view, switch_off,
};
pub(super) use condition::{is_of_its_row, is_whole};
pub(crate) use demand::{Code, Demand, Place};
pub(crate) use lexer::Dialect;
pub(super) use lexer::{Token, TokenKind, conditions, significant};
pub(super) use literal::{
    fix_default, fix_members, hex_literals, members, quote_text, unquote_text,
};
pub(super) use parts::Parts;
pub(crate) use reach::Reach;
pub(super) use table::{
    TableRename, drop_directories, inherit_collation, rename_table, replace_engine,
};
pub(crate) use touch::{Touch, Wanted};
pub(super) use view::{ViewReferences, has_ambiguous_names, name_view, names, view_references};

/// Changes to a text, by byte range.
#[derive(Default)]
struct Edits(Vec<(std::ops::Range<usize>, String)>);

impl Edits {
    fn replace(&mut self, range: std::ops::Range<usize>, text: impl Into<String>) {
        self.0.push((range, text.into()));
    }

    /// Carries the changes out; ranges must not overlap.
    fn apply(mut self, text: &str) -> String {
        self.0.sort_by_key(|(range, _)| range.start);
        let mut result = String::with_capacity(text.len());
        let mut at = 0;
        for (range, replacement) in self.0 {
            result.push_str(&text[at..range.start]);
            result.push_str(&replacement);
            at = range.end;
        }
        result.push_str(&text[at..]);
        result
    }
}
