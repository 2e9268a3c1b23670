//! Which Debian mirror this machine uses.

use std::path::Path;

/// The URIs of a Debian mirror.
#[derive(Debug, PartialEq)]
pub(super) struct Mirror {
    /// Of the archive with the suites `sid`, `bookworm`, `bookworm-updates`.
    pub(super) archive: String,
    /// Of the archive with the suite `bookworm-security`, where it is known.
    pub(super) security: Option<String>,
}

impl Mirror {
    /// The mirror that apt of this machine uses, else the official one.
    pub(super) fn of_this_machine() -> Mirror {
        let mut texts = vec![read(Path::new("/etc/apt/sources.list"))];
        if let Ok(files) = std::fs::read_dir("/etc/apt/sources.list.d") {
            let mut files: Vec<_> = files.flatten().map(|file| file.path()).collect();
            files.sort();
            let known = |file: &&std::path::PathBuf| {
                file.extension().is_some_and(|e| e == "list" || e == "sources")
            };
            texts.extend(files.iter().filter(known).map(|file| read(file)));
        }
        Mirror::from_sources(&texts.join("\n\n"))
    }

    fn from_sources(text: &str) -> Mirror {
        let uris: Vec<String> = one_line_sources(text).chain(deb822_sources(text)).collect();
        let find = |name: &str| uris.iter().find(|uri| holds(uri, name)).cloned();
        match find("debian") {
            Some(archive) => Mirror { archive, security: find("debian-security") },
            None => Mirror {
                archive: "http://deb.debian.org/debian".into(),
                security: Some("http://deb.debian.org/debian-security".into()),
            },
        }
    }
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// Whether a URI is of the archive `name`: `http://host/debian/`, a dated snapshot
/// `…/archive/debian/20250520T000000Z`, or `mirror+file:/etc/apt/mirrors/debian.list`.
fn holds(uri: &str, name: &str) -> bool {
    uri.split('/').any(|part| part.strip_suffix(".list").unwrap_or(part) == name)
}

/// A source of Debian itself, not of somebody else for Debian: it has the component `main` and no
/// key but Debian's.
fn is_debians(components: &str, key: &str) -> bool {
    components.split_whitespace().any(|component| component == "main")
        && (key.is_empty() || key.contains("debian-archive"))
}

/// `deb [signed-by=…] http://deb.debian.org/debian bookworm main`
fn one_line_sources(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let rest = line.trim().strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (uri, suite_and_components) = rest.trim().split_once([' ', '\t'])?;
        let key = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        is_debians(suite_and_components, key.unwrap_or_default()).then(|| uri.to_owned())
    })
}

/// Stanzas with `Types:`, `URIs:`, `Suites:`, `Components:`, `Signed-By:` (sources.list(5)).
fn deb822_sources(text: &str) -> impl Iterator<Item = String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let stanzas = lines.split(|line| line.trim().is_empty()).map(|stanza| {
        let field = |name: &str| {
            stanza.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let enabled = field("Enabled").is_none_or(|value| value != "no");
        let debians = is_debians(
            &field("Components").unwrap_or_default(),
            &field("Signed-By").unwrap_or_default(),
        );
        let uris = field("URIs").filter(|_| enabled && debians).unwrap_or_default();
        uris.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    });
    stanzas.flatten().collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(archive: &str, security: Option<&str>) -> Mirror {
        Mirror { archive: archive.into(), security: security.map(str::to_owned) }
    }

    #[test]
    fn deb822_sources_are_read_and_those_of_others_passed_over() {
        let text = "\
Types: deb\nURIs: https://deb.nodesource.com/node_20.x\nSuites: nodistro\nComponents: main\n\
Signed-By: /usr/share/keyrings/nodesource.gpg\n\n\
Types: deb\n# URIs: http://old/debian\nURIs: http://mirror.example/debian\nSuites: bookworm\n\
Components: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
Types: deb\nuris: http://mirror.example/debian-security\nSuites: bookworm-security\n\
Components: main\n";
        assert_eq!(
            Mirror::from_sources(text),
            mirror("http://mirror.example/debian", Some("http://mirror.example/debian-security"))
        );
    }

    #[test]
    fn one_line_sources_are_read_and_those_of_others_passed_over() {
        let text = "\
deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.gpg] https://download.docker.com/linux/debian bookworm main\n\
# deb http://commented/debian bookworm main\n\
deb-src http://source.example/debian bookworm main\n\
deb  [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]  http://a.example/debian/ trixie main # ours\n";
        assert_eq!(Mirror::from_sources(text), mirror("http://a.example/debian/", None));
    }

    #[test]
    fn mirror_lists_and_snapshots_count_and_without_any_there_is_the_official_one() {
        let list = "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: trixie\nComponents: main\n";
        assert_eq!(
            Mirror::from_sources(list).archive,
            "mirror+file:///etc/apt/mirrors/debian.list"
        );
        let snapshot = "deb http://snapshot.debian.org/archive/debian/20250520T000000Z sid main";
        assert!(Mirror::from_sources(snapshot).archive.ends_with("20250520T000000Z"));
        let disabled = "Enabled: no\nURIs: http://off/debian\nComponents: main\n";
        assert_eq!(Mirror::from_sources(disabled).archive, "http://deb.debian.org/debian");
        assert_eq!(Mirror::from_sources("\n[[[\ndeb [x\ndeb y\n: :\n"), Mirror::from_sources(""));
    }
}
