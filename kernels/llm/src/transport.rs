//! One request over the wire, one response back.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Url, redirect};

use crate::egress::Egress;
use crate::endpoint::{ApiKey, Endpoint, EndpointError};
use crate::failure::{Failure, FailureKind};
use crate::retry_after::{forbids_retry, retry_after};

/// Longest time to connect; loopback and private networks take milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections are closed before common servers close them (uvicorn, which serves vLLM, after 5 s), so that no
/// request is sent into a closing connection.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// A connection pool to one endpoint.
pub(crate) struct Transport {
    http: reqwest::Client,
    url: Url,
    models_url: Url,
    base: Url,
    api_key: Option<ApiKey>,
}

/// A complete response that is no redirect.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// The wait that the server asks for.
    pub(crate) retry_after: Option<Duration>,
    /// Whether the server says not to send the request again.
    pub(crate) forbids_retry: bool,
}

impl Transport {
    /// Longest body that is read. Answers take kilobytes; a body without end must not fill the memory.
    pub(crate) const MAX_BODY_BYTES: usize = 16 << 20;

    /// Checks where the endpoint is and holds connections to that.
    pub(crate) fn new(
        endpoint: &Endpoint,
        egress: Egress,
        timeout_seconds: f64,
    ) -> Result<Self, EndpointError> {
        let url = endpoint.request_url()?;
        let models_url = endpoint.models_url()?;
        let host = egress.check(&url)?;
        // An error says that the process has a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .resolve_to_addrs(&host.name, &host.addresses)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(Duration::from_secs_f64(timeout_seconds))
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .default_headers(endpoint.dialect.headers(endpoint.api_key.as_ref())?);
        if url.scheme() == "http" {
            // Without this a system that has no certificates could not ask a plain local server either.
            builder = builder.tls_certs_only([]);
        }
        let http = builder
            .build()
            .map_err(|error| EndpointError::Transport { reason: root_cause(&error).to_string() })?;
        let base = endpoint.base()?;
        Ok(Self { http, url, models_url, base, api_key: endpoint.api_key.clone() })
    }

    /// Posts a body of JSON and reads the whole response.
    pub(crate) async fn post(&self, body: Vec<u8>) -> Result<Response, Failure> {
        let request = self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        self.exchange(request.body(body), Self::MAX_BODY_BYTES).await
    }

    /// Gets the list of models, and reads the whole response.
    pub(crate) async fn models(&self) -> Result<Response, Failure> {
        self.exchange(self.http.get(self.models_url.clone()), Self::MAX_BODY_BYTES).await
    }

    /// Posts a body to a path under the base address, and reads the whole response.
    pub(crate) async fn post_to(&self, path: &str, kind: &str, body: Vec<u8>) -> Result<Response, Failure> {
        let request = self.http.post(self.at(path)).header(CONTENT_TYPE, kind).body(body);
        self.exchange(request, Self::MAX_BODY_BYTES).await
    }

    /// Gets what is at a path under the base address, of at most so many bytes.
    pub(crate) async fn get_at(&self, path: &str, max_bytes: usize) -> Result<Response, Failure> {
        self.exchange(self.http.get(self.at(path)), max_bytes).await
    }

    /// The address of a path, perhaps with a query, under the base address.
    fn at(&self, path: &str) -> Url {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        url.set_query(query);
        url
    }

    async fn exchange(
        &self,
        request: reqwest::RequestBuilder,
        max_bytes: usize,
    ) -> Result<Response, Failure> {
        let mut response = request.send().await.map_err(|e| broken(&e))?;
        if response.status().is_redirection() {
            return Err(redirected(&self.url, response.headers()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| broken(&e))? {
            if body.len() + chunk.len() > max_bytes {
                let message = format!("a response of more than {max_bytes} bytes, expected less");
                return Err(Failure::new(FailureKind::Malformed, message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response {
            status: response.status().as_u16(),
            body: self.without_key(body),
            retry_after: retry_after(response.headers(), SystemTime::now()),
            forbids_retry: forbids_retry(response.headers()),
        })
    }

    /// A body with `…` for the key wherever the server quotes it, as some do when they refuse it: bodies are kept
    /// and shown, the key is neither.
    fn without_key(&self, body: Vec<u8>) -> Vec<u8> {
        let Some(key) = &self.api_key else { return body };
        let quotes_key = body.windows(key.secret().len()).any(|part| part == key.secret().as_bytes());
        if !quotes_key {
            return body;
        }
        String::from_utf8_lossy(&body).replace(key.secret(), "…").into_bytes()
    }
}

/// The failure behind an error of the transport, told by its first cause, which names no address or text.
fn broken(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        let message = "no complete response in time; raise the timeout or lower `concurrency`";
        return Failure::new(FailureKind::Timeout, message);
    }
    let mut io_errors = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    if io_errors.any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused) {
        let message = "nothing listens at the endpoint's address; start the server or check `base_url`";
        return Failure::new(FailureKind::ConnectionRefused, message);
    }
    let cause = root_cause(error);
    if error.is_connect() && cause.is::<rustls::Error>() {
        let message = format!("the endpoint's TLS was not accepted ({cause}); check `base_url`");
        return Failure::new(FailureKind::Tls, message);
    }
    Failure::new(FailureKind::Network, format!("the connection to the endpoint broke ({cause})"))
}

fn redirected(url: &Url, headers: &HeaderMap) -> Failure {
    let target = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let target = target.and_then(|location| url.join(location).ok()).map_or_else(
        || "nowhere".to_owned(),
        |mut target| {
            target.set_query(None);
            target.set_fragment(None);
            // Fails only for addresses that cannot hold a user name, which is what is wanted.
            let _ = target.set_username("");
            let _ = target.set_password(None);
            target.to_string()
        },
    );
    let message =
        format!("the endpoint redirects to {target}, which is not followed; give that address as `base_url`");
    Failure::new(FailureKind::Redirect, message)
}

fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}

/// An error and what caused it. An I/O error that wraps another error counts that one as its cause, where the
/// standard library would skip it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>().map(io::Error::get_ref) {
            Some(Some(wrapped)) => Some(wrapped as &(dyn Error + 'static)),
            _ => error.source(),
        }
    })
}
