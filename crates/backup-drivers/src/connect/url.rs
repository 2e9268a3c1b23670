//! `mysql://user@host:port/?name=value`.

use std::path::PathBuf;

use backup_core::{Error, Result, Secret};
use percent_encoding::percent_decode_str;

use super::options::{Settings, parse_bool, parse_port, parse_seconds};

const FORM: &str = "write it as mysql://USER@HOST:PORT/ or mysql://USER@localhost/?socket=/PATH; \
                    special characters percent-encoded (@ is %40, / is %2F, # is %23)";
const PARAMETERS: &str = "the parameters are socket, ssl-mode, ssl-ca, ssl-cert, ssl-key, \
                          connect-timeout, read-timeout, compression and enable-cleartext-plugin";

/// The URL as it may be shown.
#[must_use]
pub fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("mysql", url));
    // As it is read: up to the last @ it is user and password.
    match rest.rsplit_once('@') {
        Some((account, rest)) => {
            let user = account.split_once(':').map_or(account, |(user, _)| user);
            format!("{scheme}://{user}@{rest}")
        }
        None => url.to_owned(),
    }
}

/// Reads a URL. No error quotes the URL as a whole, because a password may be in it.
pub(super) fn parse(text: &str) -> Result<Settings> {
    let rest = text
        .strip_prefix("mysql://")
        .or_else(|| text.strip_prefix("mariadb://"))
        .ok_or_else(|| Error::usage("a server's URL begins with mysql://").with_remedy(FORM))?;
    if rest.contains('#') {
        return Err(Error::usage("a server's URL has no # part").with_remedy(FORM));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if query.contains('@') {
        // A bare ? in a password: what follows must not show up as a parameter in an error.
        return Err(Error::usage("a server's URL has an @ after its ?")
            .with_remedy("percent-encode both where they are part of a name: ? is %3F, @ is %40"));
    }
    // Everything up to the last @ is user and password, so that a bare @ in a password works.
    let (account, address) = match rest.rsplit_once('@') {
        Some((account, address)) => (Some(account), address),
        None => (None, rest),
    };
    let (address, path) = address.split_once('/').unwrap_or((address, ""));
    if !path.is_empty() {
        return Err(Error::usage("a server's URL names no database")
            .with_remedy("leave the path empty and choose with --databases or --tables"));
    }

    let mut settings = Settings::default();
    if let Some(account) = account {
        let (user, password) = match account.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (account, None),
        };
        settings.user = Some(decode("user", user)?);
        settings.password = password.map(|p| decode("password", p)).transpose()?.map(Secret::new);
    }
    (settings.host, settings.port) = host_and_port(address)?;

    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode("parameter", name)?.replace('_', "-");
        if seen.contains(&name) {
            return Err(Error::usage(format!("the URL has the parameter `{name}` twice")));
        }
        set(&mut settings, &name, decode(&name, value)?)?;
        seen.push(name);
    }
    if settings.socket.is_some() && settings.host.as_deref().is_some_and(|h| h != "localhost") {
        return Err(Error::usage("a socket is on this machine, and the URL names another host")
            .with_remedy("use the host localhost together with socket="));
    }
    Ok(settings)
}

fn set(settings: &mut Settings, name: &str, value: String) -> Result<()> {
    let path = |value: String| {
        if value.is_empty() {
            return Err(Error::usage(format!("the URL parameter `{name}` is empty")));
        }
        Ok(Some(PathBuf::from(value)))
    };
    match name {
        "socket" => settings.socket = path(value)?,
        "ssl-mode" => settings.ssl_mode = Some(value.parse()?),
        "ssl-ca" => settings.ssl_ca = path(value)?,
        "ssl-cert" => settings.ssl_cert = path(value)?,
        "ssl-key" => settings.ssl_key = path(value)?,
        "connect-timeout" => settings.connect_timeout = Some(parse_seconds(name, &value)?),
        "read-timeout" => settings.read_timeout = Some(parse_seconds(name, &value)?),
        "compression" => settings.compression = Some(value.parse()?),
        "enable-cleartext-plugin" => {
            settings.enable_cleartext_plugin = Some(parse_bool(name, &value)?);
        }
        _ => {
            return Err(Error::usage(format!("unknown parameter `{name}` in a server's URL"))
                .with_remedy(PARAMETERS));
        }
    }
    Ok(())
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, `:port` or nothing.
fn host_and_port(address: &str) -> Result<(Option<String>, Option<u16>)> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(|| {
            Error::usage("an IPv6 address in a URL ends with ]").with_remedy(FORM)
        })?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(Error::usage(format!("`{host}` is no IPv6 address")));
        }
        let port = match port {
            "" => None,
            _ => Some(port.strip_prefix(':').ok_or_else(|| {
                Error::usage("after the ] of an IPv6 address comes :PORT or nothing")
                    .with_remedy(FORM)
            })?),
        };
        (host.to_owned(), port)
    } else {
        let (host, port) = match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        };
        (decode("host", host)?, port)
    };
    if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Error::usage("the host in the URL has a space or control character"));
    }
    Ok(((!host.is_empty()).then_some(host), port.map(parse_port).transpose()?))
}

fn decode(what: &str, text: &str) -> Result<String> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => {
            Err(Error::usage(format!("the {what} in the URL is not UTF-8")).with_remedy(FORM))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use backup_core::{ErrorKind, Secret};
    use proptest::prelude::*;

    use crate::connect::{ConnectOptions, Endpoint, SslMode};

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.into(), port }
    }

    #[test]
    fn addresses() {
        for (url, endpoint) in [
            ("mysql://u@db1", tcp("db1", 3306)),
            ("mysql://u@db1/", tcp("db1", 3306)),
            ("mysql://u@db1:3307/", tcp("db1", 3307)),
            ("mariadb://u@db1:3307/", tcp("db1", 3307)),
            ("mysql://u@[::1]:3307/", tcp("::1", 3307)),
            ("mysql://u@[fe80::1]/", tcp("fe80::1", 3306)),
            ("mysql://u@/", tcp("localhost", 3306)),
            (
                "mysql://u@localhost/?socket=/run/a%20b+c.sock",
                Endpoint::Socket("/run/a b+c.sock".into()),
            ),
            ("mysql://u@/?socket=/s", Endpoint::Socket("/s".into())),
        ] {
            assert_eq!(ConnectOptions::from_url(url).unwrap().endpoint, endpoint, "{url}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("mysql://u:p@ss@h:1/?socket=/s", "mysql://u@h:1/?socket=/s"),
            ("mysql://u:a?b@h/", "mysql://u@h/"),
            ("mysql://u@h/", "mysql://u@h/"),
            ("mysql://h/", "mysql://h/"),
        ] {
            assert_eq!(super::without_password(url), shown);
        }
    }

    #[test]
    fn the_password_is_decoded_flagged_and_never_shown() {
        let o = ConnectOptions::from_url("mysql://a%40b:p%2Fw%3A%23@x@db1:3306/").unwrap();
        assert_eq!(o.user, "a@b");
        assert_eq!(o.password.as_ref().unwrap().expose(), "p/w:#@x");
        assert!(o.password_in_url);
        let shown = format!("{o} {o:?}");
        assert!(!shown.contains("p/w") && shown.contains("a@b@db1:3306"), "{shown}");
        let o = ConnectOptions::from_url("mysql://u@db1/").unwrap();
        assert!(o.password.is_none() && !o.password_in_url);
    }

    #[test]
    fn parameters() {
        let o = ConnectOptions::from_url(
            "mysql://u@h/?ssl-mode=VERIFY_CA&ssl_ca=/ca.pem&ssl-cert=/c.pem&ssl-key=/k.pem\
             &connect-timeout=3&read-timeout=60",
        )
        .unwrap();
        assert_eq!(o.tls.mode, SslMode::VerifyCa);
        assert_eq!(o.tls.ca.as_deref(), Some(Path::new("/ca.pem")));
        assert_eq!(o.tls.key.as_deref(), Some(Path::new("/k.pem")));
        assert_eq!(o.connect_timeout, Duration::from_secs(3));
        assert_eq!(o.read_timeout, Some(Duration::from_secs(60)));
        let o = ConnectOptions::from_url("mysql://u@h/?ssl-ca=/ca.pem").unwrap();
        assert_eq!(o.tls.mode, SslMode::VerifyCa, "a named authority is meant to be used");
        assert_eq!(ConnectOptions::from_url("mysql://u@h").unwrap().tls.mode, SslMode::Preferred);
    }

    #[test]
    fn wrong_urls_are_usage_errors_that_name_the_part() {
        for (url, part) in [
            ("postgres://u@h/", "mysql://"),
            ("mysql://u@h/?sslmode=required", "unknown parameter `sslmode`"),
            ("mysql://u@h/?ssl-mode=always", "always"),
            ("mysql://u@h/?socket=", "socket"),
            ("mysql://u@h/?socket=/s", "socket"),
            ("mysql://u@h/?connect-timeout=0", "connect-timeout"),
            ("mysql://u@h/?ssl-ca=/a&ssl-ca=/b", "twice"),
            ("mysql://u@h/?ssl-cert=/a", "ssl-key"),
            ("mysql://u@h/db", "database"),
            ("mysql://u@h:0/", "port"),
            ("mysql://u@h:99999/", "port"),
            ("mysql://u@[::1/", "]"),
            ("mysql://u@[zz]/", "zz"),
            ("mysql://h/", "user"),
            ("mysql://u:%ff@h/", "password"),
        ] {
            let e = ConnectOptions::from_url(url).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage, "{url}");
            assert!(e.to_string().contains(part), "{url}: {e}");
        }
        let e = ConnectOptions::from_url("mysql://u@h/?x=1").unwrap_err();
        assert!(e.remedy().contains("connect-timeout"), "{}", e.remedy());
    }

    #[test]
    fn no_error_repeats_a_password() {
        for url in [
            "mysql://u:hunter2@h:x/",
            "mysql://u:hunter2@h/?x=1",
            "mysql://u:x?hunter2@h/",
            "mysql://u:hunter2",
            "mysql://u:hunter2/3",
            "mysql://u:hunter2#3@h/",
            "mysql:/u:hunter2@h/",
            "mysql://:hunter2@h/",
        ] {
            let report = ConnectOptions::from_url(url).unwrap_err().report();
            assert!(!report.contains("hunter2"), "{report}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC*") {
            let _ = ConnectOptions::from_url(&text);
            let _ = ConnectOptions::from_url(&format!("mysql://{text}"));
        }

        #[test]
        fn any_user_and_password_survive(user in "\\PC+", password in "\\PC+") {
            use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode as enc};
            let url = format!(
                "mysql://{}:{}@h/",
                enc(&user, NON_ALPHANUMERIC),
                enc(&password, NON_ALPHANUMERIC)
            );
            let o = ConnectOptions::from_url(&url).unwrap();
            prop_assert_eq!(o.user, user);
            prop_assert_eq!(o.password.as_ref().map(Secret::expose), Some(password.as_str()));
        }
    }
}
