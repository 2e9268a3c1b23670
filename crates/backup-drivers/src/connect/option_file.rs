//! Option files (`my.cnf`), in the syntax of the servers' own clients.
//!
//! The rules are those of `mysys/my_default.c`, which both servers share: comments, quotes,
//! escapes, `!include`, and that the last line wins. Read are the groups that every client of the
//! two servers reads, and `[holdfast]`; other groups and unknown keys are not ours and are passed
//! over.

use std::fs;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result, Secret};

use super::SslMode;
use super::options::{Protocol, Settings, parse_bool, parse_port, parse_seconds};

const GROUPS: [&str; 5] =
    ["client", "client-server", "client-mariadb", "mariadb-client", "holdfast"];
/// As deep as the servers' clients follow includes.
const MAX_DEPTH: usize = 10;

/// Reads `path` and what it includes.
pub(super) fn read(path: &Path) -> Result<Settings> {
    let mut reader = Reader::default();
    reader.file(path, 0)?;
    Ok(reader.finish())
}

#[derive(Default)]
struct Reader {
    settings: Settings,
    // TLS can be asked for in several words; which of them counts is decided at the end.
    ssl: Option<bool>,
    verify_server_cert: Option<bool>,
}

impl Reader {
    fn file(&mut self, path: &Path, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::usage(format!(
                "option files include each other more than {MAX_DEPTH} deep, at {}",
                path.display()
            )));
        }
        let cannot = || Error::usage(format!("cannot read the option file {}", path.display()));
        let bytes = fs::read(path).map_err(|e| cannot().with_source(e))?;
        let text = String::from_utf8(bytes).map_err(|_| cannot().with_source("it is not UTF-8"))?;
        self.text(text.trim_start_matches('\u{feff}'), path, depth)
    }

    fn text(&mut self, text: &str, path: &Path, depth: usize) -> Result<()> {
        let mut ours = false;
        for (number, line) in text.lines().enumerate() {
            let wrong = |problem: &str| {
                Error::usage(format!("{}, line {}: {problem}", path.display(), number + 1))
            };
            let line = line.trim_ascii();
            match line.as_bytes().first() {
                None | Some(b'#' | b';') => {}
                Some(b'!') => self.directive(line, path, depth)?,
                Some(b'[') => {
                    let name = line[1..].split(']').next().unwrap_or_default().trim_ascii();
                    if !line.contains(']') {
                        return Err(wrong("a group's name ends with ]"));
                    }
                    ours = GROUPS.contains(&name);
                }
                Some(_) if ours => {
                    let line = without_comment(line);
                    let (key, value) = match line.split_once('=') {
                        Some((key, value)) => (key, Some(unquoted(value))),
                        None => (line, None),
                    };
                    let key = key.trim_ascii().replace('_', "-");
                    let key = key.strip_prefix("loose-").unwrap_or(&key);
                    // The cause may quote the value, so it says which line, and never the password.
                    self.set(key, value.unwrap_or_default()).map_err(|e| wrong(&e.to_string()))?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn directive(&mut self, line: &str, path: &Path, depth: usize) -> Result<()> {
        let relative_to = path.parent().unwrap_or(Path::new(""));
        // `!includedir` first: the other is a prefix of it.
        if let Some(directory) = argument(line, "!includedir") {
            let directory = relative_to.join(directory);
            let cannot = |e: std::io::Error| {
                Error::usage(format!("cannot read the directory {}", directory.display()))
                    .with_source(e)
            };
            let mut files = fs::read_dir(&directory)
                .and_then(|entries| entries.map(|e| Ok(e?.path())).collect::<Result<Vec<_>, _>>())
                .map_err(cannot)?;
            files.retain(|file| file.extension().is_some_and(|e| e == "cnf"));
            files.sort();
            files.iter().try_for_each(|file| self.file(file, depth + 1))
        } else if let Some(file) = argument(line, "!include") {
            self.file(&relative_to.join(file), depth + 1)
        } else {
            Err(Error::usage(format!(
                "{}: a line that begins with ! is !include FILE or !includedir DIRECTORY",
                path.display()
            )))
        }
    }

    /// A key with nothing after it switches an option on, or leaves a text unset.
    fn set(&mut self, key: &str, text: String) -> Result<()> {
        let s = &mut self.settings;
        let some = |text: String| (!text.is_empty()).then_some(text);
        match key {
            "host" => s.host = some(text),
            // 0 asks the real clients for the default.
            "port" if text == "0" => s.port = None,
            "port" => s.port = Some(parse_port(&text)?),
            "socket" => s.socket = some(text).map(PathBuf::from),
            "user" => s.user = some(text),
            "password" => s.password = some(text).map(Secret::new),
            "protocol" => {
                s.protocol = match text.to_ascii_lowercase().as_str() {
                    "tcp" => Some(Protocol::Tcp),
                    "socket" => Some(Protocol::Socket),
                    "" | "default" => None,
                    _ => return Err(Error::usage("protocol is tcp or socket")),
                }
            }
            "ssl-mode" => s.ssl_mode = Some(text.parse::<SslMode>()?),
            "ssl-ca" => s.ssl_ca = some(text).map(PathBuf::from),
            "ssl-cert" => s.ssl_cert = some(text).map(PathBuf::from),
            "ssl-key" => s.ssl_key = some(text).map(PathBuf::from),
            "ssl" => self.ssl = Some(parse_bool(key, &text)?),
            "skip-ssl" | "disable-ssl" => self.ssl = Some(!parse_bool(key, &text)?),
            "ssl-verify-server-cert" => self.verify_server_cert = Some(parse_bool(key, &text)?),
            "skip-ssl-verify-server-cert" | "disable-ssl-verify-server-cert" => {
                self.verify_server_cert = Some(!parse_bool(key, &text)?);
            }
            "connect-timeout" => s.connect_timeout = Some(parse_seconds(key, &text)?),
            "enable-cleartext-plugin" => {
                s.enable_cleartext_plugin = Some(parse_bool(key, &text)?);
            }
            _ => {}
        }
        Ok(())
    }

    /// `ssl-mode` (MySQL) says it all; otherwise the words of MariaDB's clients, and of old ones.
    fn finish(self) -> Settings {
        let Reader { mut settings, ssl, verify_server_cert } = self;
        if settings.ssl_mode.is_none() {
            settings.ssl_mode = match (ssl, verify_server_cert) {
                (Some(false), _) => Some(SslMode::Disabled),
                (_, Some(true)) => Some(SslMode::VerifyIdentity),
                (Some(true), _) => Some(SslMode::Required),
                (None, Some(false)) => Some(SslMode::Preferred),
                (None, None) => None,
            };
        }
        settings
    }
}

/// What follows `word` and at least one blank.
fn argument<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(word)?;
    let argument = rest.trim_ascii();
    (rest.len() > argument.len() && !argument.is_empty()).then_some(argument)
}

/// Cuts a `#` comment that is not inside quotes.
fn without_comment(line: &str) -> &str {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c && !escaped => quote = None,
            (None, '#') => return &line[..at],
            _ => {}
        }
        escaped = quote.is_some() && c == '\\' && !escaped;
    }
    line
}

/// A value without the blanks and quotes around it, with its escapes resolved.
fn unquoted(value: &str) -> String {
    let value = value.trim_ascii();
    let inner = ['"', '\'']
        .iter()
        .find_map(|&quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value);
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('b') => text.push('\u{8}'),
            Some('s') => text.push(' '),
            Some(c @ ('"' | '\'' | '\\')) => text.push(c),
            // Any other pair stands for itself, as in the clients.
            Some(c) => text.extend(['\\', c]),
            None => text.push('\\'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use backup_core::ErrorKind;
    use proptest::prelude::*;

    use super::*;
    use crate::connect::{ConnectOptions, Endpoint};

    fn parse(text: &str) -> Result<Settings> {
        let mut reader = Reader::default();
        reader.text(text, Path::new("/etc/my.cnf"), 0)?;
        Ok(reader.finish())
    }

    fn password(line: &str) -> String {
        let text = format!("[client]\n{line}\n");
        parse(&text).unwrap().password.map(|p| p.expose().to_owned()).unwrap_or_default()
    }

    #[test]
    fn values_are_read_as_the_real_clients_read_them() {
        // tests/option_file.rs compares with the real thing; these are the cases to know.
        for (line, expected) in [
            ("password=simple", "simple"),
            ("password = spaced out  ", "spaced out"),
            ("password=a#b", "a"),
            ("password='a#b'", "a#b"),
            ("password=\"a#b\" # comment", "a#b"),
            ("password='it''s'", "it''s"),
            (r"password=a\sb\tc\nd\\e", "a b\tc\nd\\e"),
            (r"password='a\'b'", "a'b"),
            (r"password=a\qb", r"a\qb"),
            ("password='open", "'open"),
            ("password=a=b", "a=b"),
            ("password=a;b", "a;b"),
            ("password=", ""),
            ("password", ""),
            ("pass_word=x", ""),
            ("loose-password=x", "x"),
        ] {
            assert_eq!(password(line), expected, "{line}");
        }
    }

    #[test]
    fn groups_comments_and_the_last_line_win() {
        let s = parse(
            "user=nobody\n# c\n; c\n[mysqld]\nuser=mysql\nsocket=/srv\n[client]\nuser=a\n\
             no-such-key=1\nport=3307\n  [holdfast]  \n user = b \nssl_ca=/ca\n[mysql]\nuser=c\n",
        )
        .unwrap();
        assert_eq!(s.user.as_deref(), Some("b"));
        assert_eq!((s.port, s.socket), (Some(3307), None));
        assert_eq!(s.ssl_ca, Some("/ca".into()));
    }

    #[test]
    fn tls_in_the_words_of_both_servers() {
        for (lines, mode) in [
            ("ssl-mode=VERIFY_IDENTITY", Some(SslMode::VerifyIdentity)),
            ("skip-ssl", Some(SslMode::Disabled)),
            ("ssl=0", Some(SslMode::Disabled)),
            ("ssl", Some(SslMode::Required)),
            ("ssl-verify-server-cert", Some(SslMode::VerifyIdentity)),
            ("ssl-verify-server-cert=off", Some(SslMode::Preferred)),
            ("ssl-mode=required\nskip-ssl", Some(SslMode::Required)),
            ("", None),
        ] {
            assert_eq!(parse(&format!("[client]\n{lines}")).unwrap().ssl_mode, mode, "{lines}");
        }
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, part) in [
            ("[client\n", "line 1"),
            ("[client]\nport=x\n", "line 2"),
            ("[client]\n\nssl-mode=maybe", "line 3: ssl-mode cannot be `maybe`"),
            ("!include\n", "!include FILE"),
            ("!include /no/such/file", "/no/such/file"),
            ("!includedir /no/such/dir", "/no/such/dir"),
        ] {
            let e = parse(text).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage);
            assert!(e.to_string().contains(part), "{e}");
        }
        assert!(read(Path::new("/no/such/file")).is_err());
    }

    #[test]
    fn includes_are_followed_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("conf.d")).unwrap();
        fs::write(at("conf.d/2.cnf"), "[client]\nuser=two\n").unwrap();
        fs::write(at("conf.d/1.cnf"), "[client]\nuser=one\nhost=h1\n").unwrap();
        fs::write(at("conf.d/3.bak"), "[client]\nuser=three\n").unwrap();
        fs::write(at("extra.cnf"), "\u{feff}[client]\nport=3310\n").unwrap();
        let main = format!(
            "[client]\nconnect_timeout=7\n!includedir {}/\n!include extra.cnf\nuser=\n",
            at("conf.d").display()
        );
        fs::write(at("my.cnf"), main).unwrap();
        let s = read(&at("my.cnf")).unwrap();
        assert_eq!((s.host.as_deref(), s.port, s.user), (Some("h1"), Some(3310), None));
        assert_eq!(s.connect_timeout, Some(Duration::from_secs(7)));

        fs::write(at("loop.cnf"), "!include loop.cnf\n").unwrap();
        assert!(read(&at("loop.cnf")).unwrap_err().to_string().contains("include each other"));
    }

    #[test]
    fn url_wins_over_file_and_a_password_given_over_both() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my.cnf");
        fs::write(
            &file,
            "[client]\nuser=f\npassword=fp\nsocket=/f.sock\nport=3399\nssl-mode=required\n",
        )
        .unwrap();
        let with = |url| ConnectOptions::resolve(url, Some(&file), None).unwrap();

        let o = with(None);
        assert_eq!(o.endpoint, Endpoint::Socket("/f.sock".into()));
        assert_eq!((o.user.as_str(), o.password.as_ref().unwrap().expose()), ("f", "fp"));
        assert!(!o.password_in_url);

        let o = with(Some("mysql://u:up@db1/"));
        assert_eq!(o.endpoint, Endpoint::Tcp { host: "db1".into(), port: 3399 });
        assert_eq!((o.user.as_str(), o.password.as_ref().unwrap().expose()), ("u", "up"));
        assert!(o.password_in_url);
        assert_eq!(o.tls.mode, SslMode::Required);

        assert_eq!(with(Some("mysql://localhost/")).endpoint, Endpoint::Socket("/f.sock".into()));
        assert_eq!(
            with(Some("mysql://localhost:3310/")).endpoint,
            Endpoint::Tcp { host: "localhost".into(), port: 3310 }
        );
        assert_eq!(
            with(Some("mysql://localhost/?socket=/u.sock")).endpoint,
            Endpoint::Socket("/u.sock".into())
        );
        assert_eq!(
            with(Some("mysql://127.0.0.1/")).endpoint,
            Endpoint::Tcp { host: "127.0.0.1".into(), port: 3399 }
        );
        let given = Some(Secret::new("given"));
        let o = ConnectOptions::resolve(Some("mysql://u:up@db1/"), Some(&file), given).unwrap();
        assert_eq!(o.password.unwrap().expose(), "given");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(\\PC|\n|\\[client\\]\n|password=)*") {
            let _ = parse(&text);
        }

        #[test]
        fn a_quoted_and_escaped_password_survives(value in "[^\n\r]*") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(password(&format!("password=\"{escaped}\"")), value);
        }
    }
}
