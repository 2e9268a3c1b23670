//! Object stores: S3, what is compatible with it, and Alibaba Cloud OSS.

mod answer;
mod archive;
mod place;
mod transport;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{Error, ErrorKind, Result, io_error};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RetryConfig,
};
use reqwest::Certificate;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::OnceCell;

pub(super) use answer::Answer;
pub(super) use archive::Archive;
use place::Place;
use transport::Connector;

use super::failure;
use super::options::{Credentials, StoreOptions};
use super::throttle::Throttle;
use crate::url::{BucketUrl, CreateOnly};

/// Which make of store a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    S3,
    Oss,
}

/// A bucket as `Store` wants it: create-only puts whatever way the store has them, and errors of
/// `object_store` that tell a missing object from a missing bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    inner: AmazonS3,
    create_only: CreateOnly,
}

impl Bucket {
    /// Prepares to talk to a bucket; no request is made.
    pub(super) fn open(
        make: Make,
        url: &BucketUrl,
        options: &StoreOptions,
        throttle: Option<Arc<Throttle>>,
    ) -> Result<(Self, Archive)> {
        let place = Place::choose(make, url, options)?;
        let create_only = url.create_only.unwrap_or(match make {
            Make::S3 => CreateOnly::IfNoneMatch,
            Make::Oss => CreateOnly::ForbidOverwrite,
        });
        let connector = Connector {
            authorities: authorities(url)?,
            proxy: options.proxy.clone(),
            throttle,
            idle: options.request_timeout,
        };
        let mut client = ClientOptions::new().with_allow_http(place.plain);
        if create_only == CreateOnly::ForbidOverwrite {
            // On every request, which does no harm: there it is part of the signature.
            let name = HeaderName::from_static("x-oss-forbid-overwrite");
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static("true"))]);
            client = client.with_default_headers(headers);
        }
        let unusable = |e: object_store::Error| {
            Error::usage(format!("cannot use the bucket {}", url.bucket)).with_source(e)
        };
        let builder = AmazonS3Builder::new()
            .with_bucket_name(&url.bucket)
            .with_region(&place.region)
            .with_endpoint(&place.endpoint)
            .with_virtual_hosted_style_request(place.virtual_host)
            .with_checksum_algorithm(Checksum::SHA256)
            // Every store has DELETE of one object; not every one has the bulk request.
            .with_disable_bulk_delete(true)
            .with_client_options(client.clone())
            .with_http_connector(connector.clone())
            // Retries are ours.
            .with_retry(RetryConfig {
                max_retries: 0,
                retry_timeout: options.patience,
                backoff: BackoffConfig::default(),
            });
        let given = options.credentials.as_ref().filter(|_| !url.instance_credentials);
        let instance = url.instance_credentials.then_some(&Credentials::Instance);
        let credentials = given.or(instance).ok_or_else(|| no_credentials(make, url))?;
        let inner = sign_in(builder, credentials).build().map_err(unusable)?;
        let archive = Archive {
            connector,
            options: client,
            client: OnceCell::new(),
            credentials: Arc::clone(inner.credentials()),
            bucket: if place.virtual_host {
                place.endpoint
            } else {
                format!("{}/{}", place.endpoint, url.bucket)
            },
            region: place.region,
            prefix: url.prefix.clone(),
        };
        Ok((Bucket { inner, create_only }, archive))
    }
}

fn sign_in(builder: AmazonS3Builder, credentials: &Credentials) -> AmazonS3Builder {
    use AmazonS3ConfigKey as Name;
    match credentials {
        Credentials::Key { id, secret, token } => {
            let builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose());
            match token {
                Some(token) => builder.with_token(token.expose()),
                None => builder,
            }
        }
        // What is left when nothing else is set.
        Credentials::Instance => builder,
        Credentials::WebIdentity { token_file, role } => builder
            .with_config(Name::WebIdentityTokenFile, token_file.to_string_lossy())
            .with_config(Name::RoleArn, role),
        Credentials::Container { relative_uri } => {
            builder.with_config(Name::ContainerCredentialsRelativeUri, relative_uri)
        }
        Credentials::Pod { uri, token_file } => builder
            .with_config(Name::ContainerCredentialsFullUri, uri)
            .with_config(Name::ContainerAuthorizationTokenFile, token_file.to_string_lossy()),
    }
}

fn no_credentials(make: Make, url: &BucketUrl) -> Error {
    let remedy = match make {
        Make::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write a profile into \
             ~/.aws/credentials; on a virtual machine with a role add credentials=instance to the URL"
        }
        Make::Oss => "set OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET",
    };
    Error::usage(format!("there are no credentials for the bucket {}", url.bucket))
        .with_remedy(remedy)
}

fn authorities(url: &BucketUrl) -> Result<Vec<Certificate>> {
    let Some(path) = &url.ca else { return Ok(Vec::new()) };
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|e| {
        io_error(e, ErrorKind::Usage, format!("cannot read the certificates {shown}"))
    })?;
    let none = || {
        Error::usage(format!("{shown} holds no certificate"))
            .with_remedy("name a file of PEM certificates: -----BEGIN CERTIFICATE-----")
    };
    let found = Certificate::from_pem_bundle(&pem).map_err(|e| none().with_source(e))?;
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

/// The answers that say something of an object, as `object_store` has them; others as they are.
fn sort(error: object_store::Error, path: &Path) -> object_store::Error {
    let Some(answer) = failure::answer(&error) else { return error };
    let (path, missing, taken) = (path.to_string(), answer.is_missing(), answer.is_taken());
    let source = Box::new(answer.clone());
    if missing {
        object_store::Error::NotFound { path, source }
    } else if taken {
        object_store::Error::AlreadyExists { path, source }
    } else {
        error
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let put = match (&options.mode, self.create_only) {
            (PutMode::Create, CreateOnly::LookFirst) => {
                match self.head(at).await {
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(e) => return Err(e),
                    Ok(_) => {
                        let source = "an object of this name was found".into();
                        return Err(object_store::Error::AlreadyExists {
                            path: at.to_string(),
                            source,
                        });
                    }
                }
                PutOptions { mode: PutMode::Overwrite, ..options }
            }
            // The header that goes with every request says it.
            (PutMode::Create, CreateOnly::ForbidOverwrite) => {
                PutOptions { mode: PutMode::Overwrite, ..options }
            }
            _ => options,
        };
        self.inner.put_opts(at, payload, put).await.map_err(|e| sort(e, at))
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        _: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Err(object_store::Error::NotSupported {
            source: format!("{at} could be overwritten: multipart has no create-only mode").into(),
        })
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(at, options).await.map_err(|e| sort(e, at))
    }

    async fn get_ranges(
        &self,
        at: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(at, ranges).await.map_err(|e| sort(e, at))
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, to: &Path, _: CopyOptions) -> object_store::Result<()> {
        Err(object_store::Error::NotSupported {
            source: format!("{to} could be overwritten by a copy").into(),
        })
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
