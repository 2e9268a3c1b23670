//! Both clients against real servers: every TLS mode, every way to prove a password, and what is
//! refused. Statements and rows are in `connect.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use backup_core::{Context, Error, ErrorKind, Result, Secret};
use backup_drivers::connect::{ConnectOptions, Session, SslMode, open};
use backup_drivers::sandbox::{Sandbox, SandboxBuilder};
use backup_drivers::wire::Connection;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rstest::rstest;

const ALL_MODES: [SslMode; 5] = [
    SslMode::Disabled,
    SslMode::Preferred,
    SslMode::Required,
    SslMode::VerifyCa,
    SslMode::VerifyIdentity,
];

async fn start(builder: SandboxBuilder) -> Result<Sandbox> {
    builder.tcp(true).start(&Context::builder().build()).await
}

/// `root` over TCP, as `host`.
fn tcp(server: &Sandbox, host: &str, mode: SslMode) -> ConnectOptions {
    ConnectOptions::tcp(host, server.port().unwrap(), "root").with_ssl_mode(mode)
}

fn account(mut options: ConnectOptions, user: &str, password: &str) -> ConnectOptions {
    options.user = user.into();
    options.with_password(Secret::new(password))
}

async fn run(server: &Sandbox, statements: &[&str]) -> Result<()> {
    let mut session = Session::open(&ConnectOptions::socket(server.socket(), "root")).await?;
    for sql in statements {
        session.run(sql).await?;
    }
    session.close().await
}

/// Signs in with both clients; both must agree on whether it is over TLS.
async fn over_tls(options: &ConnectOptions) -> Result<bool> {
    const CIPHER: &str = "SHOW SESSION STATUS LIKE 'Ssl_cipher'";
    let mut session = Session::open(options).await?;
    let (_, cipher): (String, String) = session.query_first(CIPHER).await?.unwrap();
    session.close().await?;
    let mut wire = Connection::connect(options).await?;
    let wire_cipher = wire.query_values(CIPHER).await?.remove(0).remove(1).unwrap();
    assert_eq!(wire.is_tls(), !wire_cipher.is_empty());
    assert_eq!(cipher.is_empty(), wire_cipher.is_empty(), "{options}: {cipher} {wire_cipher:?}");
    wire.close().await;
    Ok(!cipher.is_empty())
}

/// Both clients are refused as a connection error; gives the two errors.
async fn refused(options: &ConnectOptions) -> [Error; 2] {
    let errors = [
        open(options).await.map(drop).unwrap_err(),
        Connection::connect(options).await.map(drop).unwrap_err(),
    ];
    for e in &errors {
        assert_eq!(e.kind(), ErrorKind::Connect, "{e:?}");
        assert!(e.to_string().contains(&options.to_string()), "{e:?}");
    }
    errors
}

/// An authority, and what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, dir }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Certificate and key for `names`, in two files.
    fn issue(&self, names: &[&str]) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0].as_str());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let at = |suffix: &str| self.dir.path().join(format!("{}.{suffix}", names[0]));
        fs::write(at("crt"), certificate.pem()).unwrap();
        fs::write(at("key"), key.serialize_pem()).unwrap();
        (at("crt"), at("key"))
    }
}

fn with_certificate(
    builder: SandboxBuilder,
    authority: &Authority,
    names: &[&str],
) -> SandboxBuilder {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (certificate, key) = authority.issue(names);
    builder
        .option("ssl-ca", text(&authority.ca()))
        .option("ssl-cert", text(&certificate))
        .option("ssl-key", text(&key))
}

#[rstest]
#[tokio::test]
async fn tls_modes(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let authority = Authority::new("ours");
    let builder = xtask::servers::sandbox(name).await?;
    let server = start(with_certificate(builder, &authority, &["localhost", "127.0.0.1"])).await?;
    run(&server, &["CREATE USER x509 IDENTIFIED BY 'p' REQUIRE X509"]).await?;

    for host in ["localhost", "127.0.0.1"] {
        for mode in ALL_MODES {
            let mut options = tcp(&server, host, mode);
            options.tls.ca = Some(authority.ca());
            assert_eq!(over_tls(&options).await?, mode != SslMode::Disabled, "{host} {mode:?}");
        }
    }

    // Another authority: only verification minds.
    let other = Authority::new("another");
    for mode in ALL_MODES {
        let mut options = tcp(&server, "localhost", mode);
        options.tls.ca = Some(other.ca());
        if mode < SslMode::VerifyCa {
            over_tls(&options).await?;
            continue;
        }
        for e in refused(&options).await {
            assert!(e.remedy().contains("ssl-ca"), "{e:?}");
        }
        // The public authorities have not signed it either.
        options.tls.ca = None;
        refused(&options).await;
    }

    // Our own certificate.
    let mut options = account(tcp(&server, "localhost", SslMode::VerifyIdentity), "x509", "p");
    options.tls.ca = Some(authority.ca());
    for e in refused(&options).await {
        assert_eq!(e.server().map(|s| s.code), Some(1045), "{e:?}");
    }
    let (certificate, key) = authority.issue(&["client"]);
    (options.tls.cert, options.tls.key) = (Some(certificate.clone()), Some(key.clone()));
    assert!(over_tls(&options).await?);

    // Files that are not there, or are something else, are named.
    for (cert, key) in
        [(&PathBuf::from("/no/such.pem"), &key), (&certificate, &certificate), (&key, &key)]
    {
        (options.tls.cert, options.tls.key) = (Some(cert.clone()), Some(key.clone()));
        for e in [
            open(&options).await.map(drop).unwrap_err(),
            Connection::connect(&options).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(e.kind(), ErrorKind::Usage, "{e:?}");
            assert!(e.to_string().contains("ssl-"), "{e:?}");
        }
    }

    // A socket never leaves the machine, so TLS is not asked for there, whatever the mode.
    for mode in ALL_MODES {
        let options = ConnectOptions::socket(server.socket(), "root").with_ssl_mode(mode);
        assert!(!over_tls(&options).await?);
    }
    Ok(())
}

#[rstest]
#[tokio::test]
async fn a_certificate_for_another_name(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let authority = Authority::new("ours");
    let builder = xtask::servers::sandbox(name).await?;
    let server = start(with_certificate(builder, &authority, &["db.example"])).await?;
    for host in ["localhost", "127.0.0.1"] {
        let mut options = tcp(&server, host, SslMode::VerifyCa);
        options.tls.ca = Some(authority.ca());
        assert!(over_tls(&options).await?);
        options.tls.mode = SslMode::VerifyIdentity;
        for e in refused(&options).await {
            assert!(e.chain().contains("not valid for name"), "{e:?}");
            assert!(e.remedy().contains("verify-ca"), "{e:?}");
        }
    }
    Ok(())
}

/// What MySQL makes for itself on its first start carries no name at all.
#[tokio::test]
async fn the_certificates_that_mysql_makes() -> Result<()> {
    let server = start(xtask::servers::sandbox("mysql-9.7").await?).await?;
    let mut options = tcp(&server, "127.0.0.1", SslMode::VerifyCa);
    options.tls.ca = Some(server.datadir().join("ca.pem"));
    assert!(over_tls(&options).await?);
    options.tls.mode = SslMode::VerifyIdentity;
    for e in refused(&options).await {
        assert!(e.remedy().contains("verify-ca"), "{e:?}");
    }
    Ok(())
}

#[rstest]
#[case("mysql-9.7", "tls-version", "")]
#[case("mariadb-10.11", "ssl", "0")]
#[tokio::test]
async fn a_server_without_tls(
    #[case] name: &str,
    #[case] option: &str,
    #[case] value: &str,
) -> Result<()> {
    let server = start(xtask::servers::sandbox(name).await?.option(option, value)).await?;
    for mode in ALL_MODES {
        let options = tcp(&server, "127.0.0.1", mode);
        if mode <= SslMode::Preferred {
            assert!(!over_tls(&options).await?);
        } else {
            for e in refused(&options).await {
                assert!(e.chain().contains("offers no TLS"), "{e:?}");
                assert!(e.remedy().contains("preferred"), "{e:?}");
            }
        }
    }
    Ok(())
}

const PASSWORD: &str = "pässwörd with ' and \\ and enough of it to need a second SHA block …";

/// How an account of `caching_sha2_password` proves its password the first time (the server has to
/// see it, encrypted by TLS, by RSA, or over the socket) and from then on (by its hash).
#[tokio::test]
async fn caching_sha2_password() -> Result<()> {
    let server = start(xtask::servers::sandbox("mysql-9.7").await?).await?;
    let mut root = Connection::connect(&ConnectOptions::socket(server.socket(), "root")).await?;
    let quoted = PASSWORD.replace('\\', "\\\\").replace('\'', "''");
    root.query(&format!("CREATE USER u IDENTIFIED WITH caching_sha2_password BY '{quoted}'"))
        .await?;
    root.query("CREATE USER nopassword IDENTIFIED WITH caching_sha2_password").await?;
    for options in [
        tcp(&server, "127.0.0.1", SslMode::Disabled),
        tcp(&server, "127.0.0.1", SslMode::Required),
        ConnectOptions::socket(server.socket(), "root"),
    ] {
        let options = account(options, "u", PASSWORD);
        // FLUSH PRIVILEGES empties the cache of the hashes.
        root.query("FLUSH PRIVILEGES").await?;
        open(&options).await?;
        open(&options).await?;
        root.query("FLUSH PRIVILEGES").await?;
        Connection::connect(&options).await?;
        Connection::connect(&options).await?;
        for wrong in ["", "wrong", &PASSWORD[1..]] {
            let options = account(options.clone(), "u", wrong);
            for e in refused(&options).await {
                assert_eq!(e.server().map(|s| s.code), Some(1045), "{e:?}");
                assert!(!e.report().contains("wrong\""), "{e:?}");
            }
            root.query("FLUSH PRIVILEGES").await?;
            refused(&options).await;
        }
        over_tls(&account(options.clone(), "nopassword", "")).await?;
        refused(&account(options.clone(), "nopassword", "some")).await;
        refused(&account(options, "no such user", "some")).await;
    }
    Ok(())
}

#[rstest]
#[case("mariadb-10.11", "mysql_native_password", None)]
#[case("mariadb-10.11", "ed25519", Some("auth_ed25519"))]
#[case("mariadb-11.8", "parsec", Some("auth_parsec"))]
#[tokio::test]
async fn plugins_of_mariadb(
    #[case] name: &str,
    #[case] plugin: &str,
    #[case] library: Option<&str>,
) -> Result<()> {
    let authority = Authority::new("ours");
    let builder = xtask::servers::sandbox(name).await?;
    let server = start(with_certificate(builder, &authority, &["localhost"])).await?;
    if let Some(library) = library {
        run(&server, &[&format!("INSTALL SONAME '{library}'")]).await?;
    }
    let quoted = PASSWORD.replace('\\', "\\\\").replace('\'', "''");
    let create = format!("CREATE USER u IDENTIFIED VIA {plugin} USING PASSWORD('{quoted}')");
    run(&server, &["DELETE FROM mysql.global_priv WHERE user = ''", "FLUSH PRIVILEGES", &create])
        .await?;
    for options in [
        tcp(&server, "127.0.0.1", SslMode::Disabled),
        tcp(&server, "127.0.0.1", SslMode::Required),
        ConnectOptions::socket(server.socket(), "root"),
    ] {
        over_tls(&account(options.clone(), "u", PASSWORD)).await?;
        for e in refused(&account(options.clone(), "u", "wrong")).await {
            assert_eq!(e.server().map(|s| s.code), Some(1045), "{e:?}");
        }
        refused(&account(options, "u", "")).await;
    }
    Ok(())
}

/// Servers lock accounts after some failed sign-ins: a wrong password is one of them.
#[rstest]
#[case(
    "mysql-9.7",
    &["CREATE USER u IDENTIFIED BY 'right' FAILED_LOGIN_ATTEMPTS 2 PASSWORD_LOCK_TIME UNBOUNDED"]
)]
#[case("mariadb-10.11", &["CREATE USER u IDENTIFIED BY 'right'", "SET GLOBAL max_password_errors = 2"])]
#[case(
    "mariadb-10.11",
    &[
        "INSTALL SONAME 'auth_ed25519'",
        "CREATE USER u IDENTIFIED VIA ed25519 USING PASSWORD('right')",
        "SET GLOBAL max_password_errors = 2",
    ]
)]
#[case(
    "mariadb-11.8",
    &[
        "INSTALL SONAME 'auth_parsec'",
        "CREATE USER u IDENTIFIED VIA parsec USING PASSWORD('right')",
        "SET GLOBAL max_password_errors = 2",
    ]
)]
#[tokio::test]
async fn a_wrong_password_is_one_failed_sign_in(
    #[case] name: &str,
    #[case] setup: &[&str],
) -> Result<()> {
    let server = start(xtask::servers::sandbox(name).await?).await?;
    run(&server, setup).await?;
    let right = account(ConnectOptions::socket(server.socket(), "root"), "u", "right");
    let wrong = account(right.clone(), "u", "wrong");
    let mut root = Session::open(&ConnectOptions::socket(server.socket(), "root")).await?;
    // A MariaDB counts them.
    let mut denied = async || -> Result<Option<String>> {
        let sql = "SHOW GLOBAL STATUS LIKE 'Access_denied_errors'";
        let row: Option<(String, String)> = root.query_first(sql).await?;
        Ok(row.map(|(_, count)| count))
    };
    for n in 1..=3 {
        let e = Session::open(&wrong).await.unwrap_err();
        assert_eq!(e.server().map(|s| s.code), Some(1045), "{e:?}");
        if name.starts_with("mariadb") {
            assert_eq!(denied().await?, Some(n.to_string()));
        }
        // With two the account would be locked now; the right one makes the server forget.
        Session::open(&right).await?.close().await?;
    }
    for _ in 0..2 {
        Session::open(&wrong).await.unwrap_err();
    }
    // That is what it would be. MariaDB's parsec does not tell the server of wrong passwords.
    let locked = Session::open(&right).await.is_err();
    assert_eq!(locked, !setup.iter().any(|sql| sql.contains("parsec")));
    Ok(())
}

/// The server's nonce of 32 bytes ends in 0 once in 256 times, and `mysql_common` 0.37 loses that
/// byte. Without a second attempt hardly any of these runs passes.
#[rstest]
#[tokio::test]
async fn nonces_that_end_in_zero(
    #[values(("mariadb-10.11", "ed25519"), ("mariadb-11.8", "parsec"))] case: (&str, &str),
) -> Result<()> {
    let (name, plugin) = case;
    let server = start(xtask::servers::sandbox(name).await?).await?;
    let install = format!("INSTALL SONAME 'auth_{plugin}'");
    let create = format!("CREATE USER u IDENTIFIED VIA {plugin} USING PASSWORD('one')");
    run(&server, &[&install, &create]).await?;
    let options = account(ConnectOptions::socket(server.socket(), "root"), "u", "one");
    for _ in 0..1_000 {
        Session::open(&options).await?.close().await?;
        Connection::connect(&options).await?.close().await;
    }
    Ok(())
}

/// An account of MariaDB may have several plugins, which the server tries one after the other.
/// `mysql_async` 0.37 follows the first change of plugin only.
#[tokio::test]
async fn several_plugins_for_one_account() -> Result<()> {
    let server = start(xtask::servers::sandbox("mariadb-10.11").await?).await?;
    run(
        &server,
        &[
            "INSTALL SONAME 'auth_ed25519'",
            "CREATE USER u IDENTIFIED VIA ed25519 USING PASSWORD('one') \
             OR mysql_native_password USING PASSWORD('two')",
        ],
    )
    .await?;
    for password in ["one", "two"] {
        let options = account(tcp(&server, "127.0.0.1", SslMode::Preferred), "u", password);
        Connection::connect(&options).await?;
        if password == "one" {
            open(&options).await?;
        }
    }
    Ok(())
}

/// The account says which privilege it lacks, not that the connection failed.
#[rstest]
#[tokio::test]
async fn a_missing_privilege(#[values("mysql-9.7", "mariadb-10.11")] name: &str) -> Result<()> {
    let server = start(xtask::servers::sandbox(name).await?).await?;
    run(
        &server,
        &["CREATE DATABASE d", "CREATE TABLE d.t (a INT)", "CREATE USER u IDENTIFIED BY 'p'"],
    )
    .await?;
    let options = account(ConnectOptions::socket(server.socket(), "root"), "u", "p");
    let mut session = Session::open(&options).await?;
    let mut wire = Connection::connect(&options).await?;
    for sql in ["SELECT * FROM d.t", "FLUSH TABLES WITH READ LOCK", "CREATE DATABASE e"] {
        for e in [session.run(sql).await.unwrap_err(), wire.query(sql).await.unwrap_err()] {
            assert_eq!(e.kind(), ErrorKind::Privilege, "{e:?}");
            assert!(e.to_string().contains(sql) && e.server().is_some(), "{e:?}");
        }
    }
    Ok(())
}
