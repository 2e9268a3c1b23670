//! Words of a command line that is printed to be pasted into a shell.

use std::borrow::Cow;

/// The text as one word of a shell: as it is where no shell sees anything in it, else in quotes.
///
/// ```
/// use backup_core::shell_word;
/// assert_eq!(shell_word("/srv/backup"), "/srv/backup");
/// assert_eq!(shell_word("it's here"), r"'it'\''s here'");
/// assert_eq!(shell_word(""), "''");
/// ```
#[must_use]
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "@%+=:,./_-".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.into(),
        false => format!("'{}'", text.replace('\'', r"'\''")).into(),
    }
}
