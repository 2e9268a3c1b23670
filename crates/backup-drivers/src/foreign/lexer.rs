//! Cutting a stream of SQL into tokens, in memory that does not grow with lines, strings or statements.
//!
//! What counts is what the servers' clients and lexers do (`client/mysql.cc`, `sql/sql_lex.cc`): strings
//! with doubled quotes and backslashes, names in backticks, comments, code in comments for some
//! servers, `DELIMITER`.

use super::token::{Charset, Dialect, Mode, Next, Place, Token, Wide};

/// So much of a token is kept.
const KEEP: usize = 512;
/// So many bytes ahead are looked at.
const AHEAD: usize = 32;
/// A line with DELIMITER is not longer.
const DELIMITER_LINE: usize = 256;

/// See [`Lexer::by_lines`].
const LINE_END: &[u8] = b";\n";

/// Of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What lines begin with that begin a statement; a newline inside of a string is `\n` in every dump.
const STARTS: [&[u8]; 18] = [
    b"INSERT INTO ",
    b"INSERT IGNORE INTO ",
    b"REPLACE INTO ",
    b"CREATE ",
    b"DROP ",
    b"LOCK TABLES ",
    b"UNLOCK TABLES",
    b"/*!",
    b"/*M!",
    b"-- ",
    b"--\n",
    b"USE ",
    b"SET ",
    b"DELIMITER ",
    b"ALTER ",
    b"COMMIT",
    b"GRANT ",
    b"START TRANSACTION",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Word,
    Quoted(u8),
    Line,
    Block,
    /// Looking for the beginning of a line that begins a statement.
    Lost,
}

/// Kinds of tokens that are kept piece by piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Word,
    Name,
    Text,
    Comment,
}

/// The lexer.
pub(super) struct Lexer {
    state: State,
    delimiter: Vec<u8>,
    ansi_quotes: bool,
    backslashes: bool,
    /// How many `/*!` are open.
    conditional: u32,
    /// Nothing of a statement was seen yet.
    fresh: bool,
    piece: Vec<u8>,
    place: Place,
    began: Place,
    rest: Vec<u8>,
    nul: bool,
    wide: Wide,
    /// That of `SET NAMES`.
    names: Wide,
    /// Where the statement begins: at the mark of code for some servers, where it begins with one.
    opened: Option<Place>,
}

impl Default for Lexer {
    fn default() -> Self {
        let start = Place { line: 1, offset: 0 };
        Lexer {
            state: State::Between,
            delimiter: b";".to_vec(),
            ansi_quotes: false,
            backslashes: true,
            conditional: 0,
            fresh: true,
            piece: Vec::new(),
            place: start,
            began: start,
            rest: Vec::new(),
            nul: false,
            wide: Wide::No,
            names: Wide::No,
            opened: None,
        }
    }
}

impl Lexer {
    /// Statements end with a semicolon at the end of a line, and with no other: so mydumper writes code.
    pub(super) fn by_lines() -> Self {
        Lexer { delimiter: LINE_END.to_vec(), ..Lexer::default() }
    }

    /// Where it stands.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// What was begun and not ended, and where.
    pub(super) fn open(&self) -> Option<(&'static str, Place)> {
        let what = match self.state {
            State::Quoted(b'`') => "a name in backticks",
            State::Quoted(_) => "a string",
            State::Block => "a comment",
            _ => return None,
        };
        Some((what, self.began))
    }

    /// Where a comment with code for some servers begins that is not closed, though nothing of a statement was seen.
    pub(super) fn open_code(&self) -> Option<Place> {
        let open = self.state == State::Between && self.conditional > 0 && self.fresh;
        open.then(|| self.opened.unwrap_or(self.began))
    }

    /// Takes the next bytes; `last` says that no more come. Gives each token with its place and that
    /// behind it to `each`.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        last: bool,
        each: &mut impl FnMut(Token<'_>, Place, Place) -> Next,
    ) {
        let joined;
        let data = if self.rest.is_empty() {
            bytes
        } else {
            let mut all = std::mem::take(&mut self.rest);
            all.extend_from_slice(bytes);
            joined = all;
            &joined[..]
        };
        let mut at = 0;
        while at < data.len() {
            let rest = &data[at..];
            let used = self.step(rest, last, each);
            if used == 0 {
                break;
            }
            self.place.line += memchr::memchr_iter(b'\n', &rest[..used]).count() as u64;
            self.place.offset += used as u64;
            at += used;
        }
        if last {
            self.end(each);
        } else {
            self.rest = data[at..].to_vec();
        }
    }

    fn end(&mut self, each: &mut impl FnMut(Token<'_>, Place, Place) -> Next) {
        match self.state {
            State::Word => self.emit_piece(0, Piece::Word, each),
            State::Line => self.comment(each),
            State::Block => self.nul_in_comment(each),
            _ => {}
        }
    }

    /// Consumes some bytes of `rest`, or none where it has to see more first.
    fn step(
        &mut self,
        rest: &[u8],
        last: bool,
        each: &mut impl FnMut(Token<'_>, Place, Place) -> Next,
    ) -> usize {
        match self.state {
            State::Between => self.between(rest, last, each),
            State::Word => {
                let mut used = 0;
                for &byte in rest {
                    if !self.goes_on(byte) {
                        break;
                    }
                    used += 1;
                    self.keep(&[byte]);
                }
                if used < rest.len() {
                    self.emit_piece(used, Piece::Word, each);
                }
                // A word ends without any byte of its own.
                if used == 0 { self.step(rest, last, each) } else { used }
            }
            State::Quoted(quote) => self.quoted(quote, rest, last, each),
            State::Line => {
                let end = memchr::memchr(b'\n', rest);
                let text = &rest[..end.unwrap_or(rest.len())];
                self.nul |= memchr::memchr(0, text).is_some();
                self.keep(text);
                // The newline is left: what is lost is found behind one.
                match end {
                    Some(0) => {
                        self.comment(each);
                        match self.state {
                            State::Lost => self.lost(rest, last, each),
                            _ => 1,
                        }
                    }
                    _ => text.len(),
                }
            }
            State::Block => {
                let (end, used) = match memchr::memmem::find(rest, b"*/") {
                    Some(end) => (true, end + 2),
                    None if last => (false, rest.len()),
                    None => (false, rest.len() - 1),
                };
                self.nul |= memchr::memchr(0, &rest[..used]).is_some();
                if end {
                    self.state = State::Between;
                    self.nul_in_comment(each);
                }
                used
            }
            State::Lost => self.lost(rest, last, each),
        }
    }

    /// Whether a byte belongs to the word that was begun.
    fn goes_on(&self, byte: u8) -> bool {
        let number = self.piece.first().is_some_and(|b| b.is_ascii_digit() || *b == b'.');
        let hex = self.piece.starts_with(b"0x");
        match byte {
            b'.' => number,
            b'+' | b'-' => number && !hex && matches!(self.piece.last(), Some(b'e' | b'E')),
            byte => is_word(byte),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = KEEP - self.piece.len().min(KEEP);
        self.piece.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Gives the comment of a line.
    fn comment(&mut self, each: &mut impl FnMut(Token<'_>, Place, Place) -> Next) {
        let state = std::mem::replace(&mut self.state, State::Between);
        self.nul_in_comment(each);
        match self.state {
            State::Lost => self.piece.clear(),
            _ => {
                self.state = state;
                self.emit_piece(0, Piece::Comment, each);
            }
        }
    }

    /// Tells of NULs in a comment: clients refuse them there, too.
    fn nul_in_comment(&mut self, each: &mut impl FnMut(Token<'_>, Place, Place) -> Next) {
        if std::mem::take(&mut self.nul) {
            let next = each(Token::Nul, self.began, self.place);
            self.obey(next);
        }
    }

    /// Gives the piece that was kept; it ends `used` bytes on.
    fn emit_piece(
        &mut self,
        used: usize,
        kind: Piece,
        each: &mut impl FnMut(Token<'_>, Place, Place) -> Next,
    ) {
        self.state = State::Between;
        let piece = std::mem::take(&mut self.piece);
        let token = match kind {
            Piece::Word => Token::Word(&piece),
            Piece::Name => Token::Name(&piece),
            Piece::Text => Token::Text(&piece),
            Piece::Comment => Token::Comment(&piece),
        };
        let mut began = self.began;
        if kind != Piece::Comment {
            began = self.opened.take().filter(|_| self.fresh).unwrap_or(began);
            self.fresh = false;
        }
        let behind = Place { offset: self.place.offset + used as u64, ..self.place };
        let next = each(token, began, behind);
        self.obey(next);
        self.piece = piece;
        self.piece.clear();
    }

    fn emit(
        &mut self,
        used: usize,
        token: Token<'_>,
        each: &mut impl FnMut(Token<'_>, Place, Place) -> Next,
    ) {
        let opened = self.opened.take().filter(|_| self.fresh && token != Token::End);
        self.fresh = token == Token::End;
        let behind = Place { offset: self.place.offset + used as u64, ..self.place };
        let next = each(token, opened.unwrap_or(self.place), behind);
        self.obey(next);
    }

    fn obey(&mut self, next: Next) {
        match next {
            Next::Go => {}
            Next::Lost => self.state = State::Lost,
            Next::Set(Dialect { mode, charset }) => {
                if let Some(Mode { ansi_quotes, backslashes }) = mode {
                    (self.ansi_quotes, self.backslashes) = (ansi_quotes, backslashes);
                }
                match charset {
                    None => {}
                    Some(Charset::Names(wide)) => (self.names, self.wide) = (wide, wide),
                    Some(Charset::Client(wide)) => self.wide = wide,
                    Some(Charset::Kept) => self.wide = self.names,
                }
            }
        }
    }

    fn between(
        &mut self,
        rest: &[u8],
        last: bool,
        each: &mut impl FnMut(Token<'_>, Place, Place) -> Next,
    ) -> usize {
        let first = rest[0];
        if first.is_ascii_whitespace() || first == 0x0b {
            return rest.iter().take_while(|b| b.is_ascii_whitespace() || **b == 0x0b).count();
        }
        if rest.len() < AHEAD && !last {
            return 0;
        }
        // Clients pass over what some editors put before the first line.
        if self.place.offset == 0 && rest.starts_with(BYTE_ORDER_MARK) {
            return BYTE_ORDER_MARK.len();
        }
        if self.fresh
            && let Some(line) = delimiter_command(rest)
        {
            // A longer one ends there, wherever the stream was cut.
            let head = &rest[..rest.len().min(DELIMITER_LINE)];
            let end = match memchr::memchr(b'\n', head) {
                Some(end) => end,
                None if last || head.len() == DELIMITER_LINE => head.len(),
                None => return 0,
            };
            let text = rest[line..end].trim_ascii();
            if !text.is_empty() && text.len() < AHEAD {
                self.delimiter = text.to_vec();
            }
            return end;
        }
        let is_last = last && rest == b";" && self.delimiter == LINE_END;
        if rest.starts_with(&self.delimiter) || is_last {
            let used = self.delimiter.len().min(rest.len());
            self.conditional = 0;
            self.emit(used, Token::End, each);
            return used;
        }
        self.began = self.place;
        self.nul = false;
        match first {
            b'\'' | b'"' | b'`' => {
                self.state = State::Quoted(first);
                1
            }
            b'#' => {
                self.state = State::Line;
                1
            }
            b'-' if rest.starts_with(b"--") && rest.get(2).is_none_or(u8::is_ascii_whitespace) => {
                self.state = State::Line;
                2
            }
            b'/' if rest.starts_with(b"/*!") || rest.starts_with(b"/*M!") => {
                let mark = if rest[2] == b'!' { 3 } else { 4 };
                let digits = rest[mark..].iter().take(6).take_while(|b| b.is_ascii_digit()).count();
                if &rest[mark..mark + digits] == b"999999" {
                    // For no server at all: `/*M!999999\\- enable the sandbox mode */`.
                    self.state = State::Block;
                    return mark + digits;
                }
                self.conditional += 1;
                if self.fresh {
                    self.opened.get_or_insert(self.place);
                }
                mark + digits
            }
            b'/' if rest.starts_with(b"/*") => {
                self.state = State::Block;
                2
            }
            b'*' if self.conditional > 0 && rest.starts_with(b"*/") => {
                self.conditional -= 1;
                2
            }
            0 => {
                self.emit(1, Token::Nul, each);
                1
            }
            byte if is_word(byte) => {
                self.state = State::Word;
                self.keep(&[byte]);
                1
            }
            byte => {
                self.emit(1, Token::Sign(byte), each);
                1
            }
        }
    }

    fn quoted(
        &mut self,
        quote: u8,
        rest: &[u8],
        last: bool,
        each: &mut impl FnMut(Token<'_>, Place, Place) -> Next,
    ) -> usize {
        let is_name = quote == b'`' || (quote == b'"' && self.ansi_quotes);
        let escapes = self.backslashes && !is_name;
        let found = match (self.wide, escapes) {
            (Wide::No, true) => memchr::memchr2(quote, b'\\', rest),
            (Wide::No, false) => memchr::memchr(quote, rest),
            (wide, _) => {
                let mut at = 0;
                loop {
                    match rest.get(at) {
                        None => break None,
                        Some(&byte) if byte == quote || (escapes && byte == b'\\') => {
                            break Some(at);
                        }
                        // Its second byte has to be seen with it.
                        Some(&byte) if wide.leads(byte) && at + 1 >= rest.len() && !last => {
                            if at == 0 {
                                return 0;
                            }
                            break Some(at);
                        }
                        Some(&byte) => at += if wide.leads(byte) { 2 } else { 1 },
                    }
                }
            }
        };
        let plain = found.unwrap_or(rest.len()).min(rest.len());
        if plain > 0 {
            self.nul |= memchr::memchr(0, &rest[..plain]).is_some();
            self.keep(&rest[..plain]);
            return plain;
        }
        let Some(&second) = rest.get(1) else {
            if !last {
                return 0;
            }
            if rest[0] == quote {
                self.close(is_name, each);
            }
            return 1;
        };
        if rest[0] == b'\\' && escapes || second == quote {
            self.keep(&[rest[0], second]);
            return 2;
        }
        self.close(is_name, each);
        1
    }

    fn close(&mut self, is_name: bool, each: &mut impl FnMut(Token<'_>, Place, Place) -> Next) {
        if self.nul {
            self.emit(1, Token::Nul, each);
            if self.state == State::Lost {
                self.piece.clear();
                return;
            }
        }
        self.emit_piece(1, if is_name { Piece::Name } else { Piece::Text }, each);
    }

    /// Skips to a line that begins a statement.
    fn lost(
        &mut self,
        rest: &[u8],
        last: bool,
        each: &mut impl FnMut(Token<'_>, Place, Place) -> Next,
    ) -> usize {
        let Some(end) = memchr::memchr(b'\n', rest) else { return rest.len() };
        let next = &rest[end + 1..];
        if next.len() < AHEAD && !last {
            // Where it is the first byte there is nothing to be skipped before more comes.
            return end;
        }
        if STARTS.iter().any(|start| next.starts_with(start)) {
            self.state = State::Between;
            self.fresh = true;
            self.conditional = 0;
            self.opened = None;
            self.piece.clear();
            let place =
                Place { line: self.place.line + 1, offset: self.place.offset + end as u64 + 1 };
            let next = each(Token::Found, place, place);
            self.obey(next);
        }
        end + 1
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'@') || byte >= 0x80
}

/// Where the argument of `DELIMITER` begins.
fn delimiter_command(rest: &[u8]) -> Option<usize> {
    let word = b"DELIMITER";
    let fits = rest.len() > word.len()
        && rest[..word.len()].eq_ignore_ascii_case(word)
        && matches!(rest[word.len()], b' ' | b'\t');
    fits.then_some(word.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(sql: &[u8], pieces: usize) -> Vec<String> {
        let mut lexer = Lexer::default();
        let mut found = Vec::new();
        let mut each = |token: Token<'_>, place: Place, _: Place| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let shown = match token {
                Token::Word(w) => text(w),
                Token::Name(n) => format!("`{}`", text(n)),
                Token::Text(t) => format!("'{}'", text(t)),
                Token::Sign(s) => char::from(s).to_string(),
                Token::Nul => "NUL".into(),
                Token::Comment(c) => format!("--{}", text(c)),
                Token::End => "END".into(),
                Token::Found => "FOUND".into(),
            };
            found.push(format!("{}:{shown}", place.line));
            Next::Go
        };
        for piece in sql.chunks(pieces) {
            lexer.feed(piece, false, &mut each);
        }
        lexer.feed(b"", true, &mut each);
        found
    }

    const SQL: &[u8] = b"-- x\nINSERT INTO `a``b` VALUES (1,-1.5e-7,'it''s \\' ;','\n',0xAB);\n/*!50003 SET a */;\n\
                         DELIMITER ;;\nCREATE x; y /* ' */ # '\nEND ;;\nDELIMITER ;\nU";

    #[test]
    fn tokens_and_their_lines() {
        assert_eq!(
            shown(SQL, 1000),
            [
                "1:-- x",
                "2:INSERT",
                "2:INTO",
                "2:`a``b`",
                "2:VALUES",
                "2:(",
                "2:1",
                "2:,",
                "2:-",
                "2:1.5e-7",
                "2:,",
                "2:'it''s \\' ;'",
                "2:,",
                "2:'\n'",
                "3:,",
                "3:0xAB",
                "3:)",
                "3:END",
                "4:SET",
                "4:a",
                "4:END",
                "6:CREATE",
                "6:x",
                "6:;",
                "6:y",
                "6:-- '",
                "7:END",
                "7:END",
                "9:U",
            ]
        );
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_stream_is_cut(
            sql in prop::collection::vec(prop::sample::select(b"aI1'\"`\\;-/*!#\n 0x,()\0.eE+".to_vec()), 0..200),
            pieces in 1_usize..50,
        ) {
            prop_assert_eq!(shown(&sql, 1000), shown(&sql, pieces));
        }

        #[test]
        fn nor_where_the_first_cut_is(at in 1_usize..170) {
            prop_assert_eq!(shown(SQL, 1000), shown(SQL, at));
        }
    }
}
