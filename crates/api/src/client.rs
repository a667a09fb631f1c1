//! A small HTTP client for our own APIs, over TCP (the server) or a Unix socket (the agent).
//!
//! One connection for each call: the tools that use it make a handful. Plain text: addresses other than loopback and
//! the demo's underlay are refused by the server until TLS comes.

use crate::rest::Problem;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// Longest wait for an answer's head.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is read whole.
const BODY_BYTES_MAX: usize = 256 << 20;

/// Where an API listens.
#[derive(Clone, Debug)]
pub enum Place {
    /// A server.
    Tcp(SocketAddr),
    /// An agent.
    Unix(PathBuf),
}

/// Calls one API.
#[derive(Clone, Debug)]
pub struct Client {
    place: Place,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error("cannot reach {place}: {why}")]
    Unreachable {
        /// Address or path.
        place: String,
        /// What the system said.
        why: String,
    },
    /// The API said no.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// The API said something else.
    #[error("{place} answered {status} with something unexpected: {text}")]
    Unexpected {
        /// Address or path.
        place: String,
        /// HTTP status.
        status: StatusCode,
        /// Beginning of the body.
        text: String,
    },
}

impl Client {
    /// A client of the API at `place`.
    pub fn new(place: Place) -> Self {
        Self { place }
    }

    /// `GET path`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// `POST path` with a JSON body.
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// `PUT path` with a JSON body.
    pub async fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// As [`Client::put`], if the object is still at `revision`.
    pub async fn replace<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        revision: u64,
    ) -> Result<T, ClientError> {
        self.answer(self.send(Method::PUT, path, Some(body), Some(revision)).await?).await
    }

    /// `DELETE path`.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::DELETE, path, None::<&()>).await
    }

    /// Any call whose answer is JSON; an empty answer reads as `null`.
    pub async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, ClientError> {
        self.answer(self.send(method, path, body, None).await?).await
    }

    async fn answer<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, ClientError> {
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let bytes = body.map_err(|why| self.unreachable(&why))?.to_bytes();
        if status.is_success() {
            let json: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            return serde_json::from_slice(json).map_err(|_why| self.unexpected(status, &bytes));
        }
        Err(self.refusal(status, &bytes))
    }

    /// Calls `line` with each line of a streamed answer, until the answer ends or `line` says stop (`false`).
    pub async fn lines(&self, path: &str, mut line: impl FnMut(&str) -> bool) -> Result<(), ClientError> {
        let response = self.send(Method::GET, path, None::<&()>, None).await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|why| self.unreachable(&why))?;
            let Ok(data) = frame.into_data() else { continue };
            pending.extend_from_slice(&data);
            while status.is_success() {
                let Some(end) = pending.iter().position(|byte| *byte == b'\n') else { break };
                let rest = pending.split_off(end + 1);
                let text = String::from_utf8_lossy(&pending[..end]).into_owned();
                pending = rest;
                if !line(&text) {
                    return Ok(());
                }
            }
        }
        if status.is_success() { Ok(()) } else { Err(self.refusal(status, &pending)) }
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        revision: Option<u64>,
    ) -> Result<Response<Incoming>, ClientError> {
        let json = body.map(serde_json::to_vec).transpose().map_err(|why| self.unreachable(&why))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "isthmus")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(revision) = revision {
            request = request.header(header::IF_MATCH, format!("\"{revision}\""));
        }
        let request = request
            .body(Full::new(Bytes::from(json.unwrap_or_default())))
            .map_err(|why| self.unreachable(&why))?;
        let exchange = async {
            match &self.place {
                Place::Tcp(address) => {
                    let stream = TcpStream::connect(address).await.map_err(|why| self.unreachable(&why))?;
                    self.exchange(stream, request).await
                }
                Place::Unix(path) => {
                    let stream = UnixStream::connect(path).await.map_err(|why| self.unreachable(&why))?;
                    self.exchange(stream, request).await
                }
            }
        };
        tokio::time::timeout(TIMEOUT, exchange).await.map_err(|why| self.unreachable(&why))?
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|why| self.unreachable(&why))?;
        // The task ends with the connection, which ends with the response's body.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|why| self.unreachable(&why))
    }

    fn refusal(&self, status: StatusCode, bytes: &[u8]) -> ClientError {
        serde_json::from_slice::<Problem>(bytes)
            .map_or_else(|_| self.unexpected(status, bytes), ClientError::Problem)
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> ClientError {
        ClientError::Unreachable { place: self.place_text(), why: why.to_string() }
    }

    fn unexpected(&self, status: StatusCode, bytes: &[u8]) -> ClientError {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        ClientError::Unexpected { place: self.place_text(), status, text }
    }

    fn place_text(&self) -> String {
        match &self.place {
            Place::Tcp(address) => format!("http://{address}"),
            Place::Unix(path) => path.display().to_string(),
        }
    }
}
