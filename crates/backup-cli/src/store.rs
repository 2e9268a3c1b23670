//! What the environment says about object stores: credentials, region, endpoint, proxy.
//!
//! | of | variables, the first that is set |
//! |---|---|
//! | key | `HOLDFAST_S3_ACCESS_KEY_ID` (`…_SECRET_ACCESS_KEY`, `…_SESSION_TOKEN`), then the `AWS_…` of the same names |
//! | OSS | `OSS_ACCESS_KEY_ID`, `OSS_ACCESS_KEY_SECRET`, `OSS_SESSION_TOKEN` |
//! | pods, tasks | `AWS_WEB_IDENTITY_TOKEN_FILE` with `AWS_ROLE_ARN`, `AWS_CONTAINER_CREDENTIALS_…` |
//! | file | `AWS_SHARED_CREDENTIALS_FILE`, else `~/.aws/credentials`; profile `AWS_PROFILE`, else `default` |
//! | region | `AWS_REGION`, `AWS_DEFAULT_REGION`, `region` of the profile |
//! | endpoint | `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` |
//! | proxy | `HTTPS_PROXY`, `ALL_PROXY`, but for what `NO_PROXY` lists |

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result, Secret, io_error};
use backup_storage::{Credentials, Proxy, RepoUrl, StoreOptions};

/// The options for the store at `url`. `get` looks up a variable.
pub(crate) fn options(
    url: &RepoUrl,
    upload_limit: Option<u64>,
    get: impl Fn(&str) -> Option<String>,
) -> Result<StoreOptions> {
    let variables = Variables(&get);
    let upload_limit = upload_limit.and_then(NonZeroU64::new);
    let options = StoreOptions { upload_limit, ..StoreOptions::default() };
    match url {
        RepoUrl::S3(_) => variables.s3(&options),
        RepoUrl::Oss(_) => Ok(variables.oss(options)),
        _ => Ok(options),
    }
}

/// Variables that are empty count as not set.
struct Variables<'a, F>(&'a F);

impl<F: Fn(&str) -> Option<String>> Variables<'_, F> {
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.get(name))
    }

    /// A key pair and its token, in variables of the same kind: a key of one and a secret of another
    /// do not belong together.
    fn key(&self, id: &str, secret: &str, token: &str) -> Option<Credentials> {
        Some(Credentials::Key {
            id: self.get(id)?,
            secret: Secret::new(self.get(secret)?),
            token: self.get(token).map(Secret::new),
        })
    }

    fn oss(&self, options: StoreOptions) -> StoreOptions {
        let key = self.key("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN");
        StoreOptions { credentials: key, proxy: self.proxy(), ..options }
    }

    fn s3(&self, options: &StoreOptions) -> Result<StoreOptions> {
        let in_variables = ["HOLDFAST_S3_", "AWS_"].iter().find_map(|prefix| {
            self.key(
                &format!("{prefix}ACCESS_KEY_ID"),
                &format!("{prefix}SECRET_ACCESS_KEY"),
                &format!("{prefix}SESSION_TOKEN"),
            )
        });
        let profile = self.profile(in_variables.is_some())?;
        let region = self
            .first(&["AWS_REGION", "AWS_DEFAULT_REGION"])
            .or_else(|| profile.get("region").cloned());
        // A profile that was asked for wins over what the machine around us offers.
        let named = self.get("AWS_PROFILE").is_some();
        let of_profile = profile_key(&profile);
        let credentials = match (in_variables, named) {
            (Some(key), _) => Some(key),
            (None, true) => of_profile.or_else(|| self.workload()),
            (None, false) => self.workload().or(of_profile),
        };
        let endpoint = self.first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
        Ok(StoreOptions { credentials, endpoint, region, proxy: self.proxy(), ..options.clone() })
    }

    /// What schedulers of containers give to what they run.
    fn workload(&self) -> Option<Credentials> {
        let web = || {
            let token_file = self.get("AWS_WEB_IDENTITY_TOKEN_FILE")?.into();
            Some(Credentials::WebIdentity { token_file, role: self.get("AWS_ROLE_ARN")? })
        };
        let container = || {
            let relative_uri = self.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")?;
            Some(Credentials::Container { relative_uri })
        };
        let pod = || {
            let token_file = self.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")?.into();
            let uri = self.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")?;
            Some(Credentials::Pod { uri, token_file })
        };
        web().or_else(container).or_else(pod)
    }

    fn proxy(&self) -> Option<Proxy> {
        let url = self.first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])?;
        let except = self.first(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
        Some(Proxy { url: Secret::new(url), except })
    }

    /// The profile in the shared file of credentials. It may be missing, unless it was asked for and is
    /// needed.
    fn profile(&self, optional: bool) -> Result<HashMap<String, String>> {
        let file = self.get("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let named_file = file.is_some();
        let home = || Some(Path::new(&self.get("HOME")?).join(".aws/credentials"));
        let Some(path) = file.or_else(home) else { return Ok(HashMap::new()) };
        let named = self.get("AWS_PROFILE");
        let profile = named.as_deref().unwrap_or("default");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(_) if optional => return Ok(HashMap::new()),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !named_file && named.is_none() => {
                return Ok(HashMap::new());
            }
            Err(e) => {
                let message = format!("cannot read the credentials in {}", path.display());
                return Err(io_error(e, ErrorKind::Usage, message));
            }
        };
        match section(&text, profile) {
            Some(found) => Ok(found),
            None if optional || named.is_none() => Ok(HashMap::new()),
            None => Err(Error::usage(format!("{} has no profile {profile}", path.display()))
                .with_remedy("correct AWS_PROFILE, or add the profile")),
        }
    }
}

fn profile_key(profile: &HashMap<String, String>) -> Option<Credentials> {
    let get = |name: &str| profile.get(name).filter(|value| !value.is_empty()).cloned();
    Some(Credentials::Key {
        id: get("aws_access_key_id")?,
        secret: Secret::new(get("aws_secret_access_key")?),
        token: get("aws_session_token").map(Secret::new),
    })
}

/// The settings under `[name]`; `None` when there is no such section.
fn section(text: &str, name: &str) -> Option<HashMap<String, String>> {
    let mut found = None;
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = header.trim() == name;
            if inside {
                found.get_or_insert_with(HashMap::new);
            }
        } else if let (true, Some(settings), Some((key, value))) =
            (inside, found.as_mut(), line.split_once('='))
        {
            settings.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str, variables: &[(&str, &str)]) -> Result<StoreOptions> {
        let get = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        options(&url.parse().unwrap(), None, get)
    }

    fn key(options: &StoreOptions) -> (&str, &str, Option<&str>) {
        match options.credentials.as_ref().unwrap() {
            Credentials::Key { id, secret, token } => {
                (id, secret.expose(), token.as_ref().map(Secret::expose))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn variables_of_holdfast_win_over_those_of_aws_and_those_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(
            &file,
            "# comment\n[default]\naws_access_key_id = F\naws_secret_access_key=FS\nregion = r1\n\n\
             [ other ]\nAWS_ACCESS_KEY_ID=O\naws_secret_access_key = O=S=\naws_session_token = T\n",
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let mut variables = vec![("AWS_SHARED_CREDENTIALS_FILE", file)];
        let found = read("s3://b", &variables).unwrap();
        assert_eq!(key(&found), ("F", "FS", None));
        assert_eq!(found.region.as_deref(), Some("r1"));
        variables.push(("AWS_PROFILE", "other"));
        assert_eq!(key(&read("s3://b", &variables).unwrap()), ("O", "O=S=", Some("T")));
        variables.extend([("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "AS")]);
        assert_eq!(key(&read("s3://b", &variables).unwrap()), ("A", "AS", None));
        variables.extend([
            ("HOLDFAST_S3_ACCESS_KEY_ID", "H"),
            ("HOLDFAST_S3_SECRET_ACCESS_KEY", "HS"),
            ("HOLDFAST_S3_SESSION_TOKEN", "HT"),
            ("AWS_REGION", "r2"),
            ("AWS_ENDPOINT_URL", "http://e"),
            ("HTTPS_PROXY", "http://u:p@proxy"),
        ]);
        let found = read("s3://b", &variables).unwrap();
        assert_eq!(key(&found), ("H", "HS", Some("HT")));
        assert_eq!(found.region.as_deref(), Some("r2"));
        assert_eq!(found.endpoint.as_deref(), Some("http://e"));
        assert_eq!(found.proxy.as_ref().unwrap().url.expose(), "http://u:p@proxy");
        let shown = format!("{found:?}");
        assert!(
            !shown.contains("HS") && !shown.contains("HT") && !shown.contains("u:p"),
            "{shown}"
        );
    }

    #[test]
    fn half_a_key_is_none() {
        let found = read("s3://b", &[("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "")]);
        assert!(found.unwrap().credentials.is_none());
        let mixed = [("HOLDFAST_S3_ACCESS_KEY_ID", "H"), ("AWS_SECRET_ACCESS_KEY", "S")];
        assert!(read("s3://b", &mixed).unwrap().credentials.is_none());
    }

    #[test]
    fn pods_and_tasks_bring_their_own() {
        let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn")];
        let found = read("s3://b", &web).unwrap().credentials;
        assert!(matches!(found, Some(Credentials::WebIdentity { .. })), "{found:?}");
        let task = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x")];
        let found = read("s3://b", &task).unwrap().credentials;
        assert!(matches!(found, Some(Credentials::Container { .. })), "{found:?}");
    }

    #[test]
    fn oss_has_variables_of_its_own() {
        let variables = [
            ("AWS_ACCESS_KEY_ID", "A"),
            ("AWS_SECRET_ACCESS_KEY", "AS"),
            ("OSS_ACCESS_KEY_ID", "O"),
            ("OSS_ACCESS_KEY_SECRET", "OS"),
        ];
        assert_eq!(key(&read("oss://b", &variables).unwrap()), ("O", "OS", None));
        assert!(read("oss://b", &variables[..2]).unwrap().credentials.is_none());
        assert!(read("/srv/b", &variables).unwrap().credentials.is_none());
    }

    #[test]
    fn a_profile_that_is_asked_for_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        let path = file.to_str().unwrap();
        let variables = [("AWS_SHARED_CREDENTIALS_FILE", path), ("AWS_PROFILE", "prod")];
        let error = read("s3://b", &variables).unwrap_err();
        assert!(error.report().contains(path), "{error:?}");
        std::fs::write(&file, "[default]\naws_secret_access_key = hunter2\n").unwrap();
        let error = read("s3://b", &variables).unwrap_err();
        assert!(error.report().contains("no profile prod"), "{error:?}");
        assert!(!error.report().contains("hunter2"));
        assert!(read("s3://b", &[("HOME", "/nowhere")]).unwrap().credentials.is_none());
    }
}
