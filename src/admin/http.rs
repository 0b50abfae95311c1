//! HTTP for machines and people: metrics, health, a read-only API, one page.
//!
//! Nothing here changes the proxy; that is the console's. There is no authentication either: the
//! address is the machine's own unless configured otherwise.
//!
//! Bounds: connections, the size of a request's head and body, the time for a head, for a body
//! and for a whole connection, so that slow or many peers can't hold more than that.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    averages::Averages, console::Console, json::Status, lookout::Lookout, page::Page, tables::Show,
};
use crate::error::{Fault, Visible};

/// Connections at once; one more is closed unanswered.
const CONNECTIONS: usize = 64;
/// A request's head: bytes and number of headers.
const HEAD: usize = 16 * 1024;
const HEADERS: usize = 64;
/// A request's body, in bytes.
const BODY: usize = 256 * 1024;
/// For a request's head to come (also after the one before it), and for its body.
const READ: Duration = Duration::from_secs(10);
/// After this a connection ends with the request in progress, or a little later without it.
const CONNECTION: Duration = Duration::from_secs(300);
const GRACE: Duration = Duration::from_secs(10);
/// After a failure to accept (out of file descriptors): not again before this.
const RETRY: Duration = Duration::from_millis(100);

type Reply = Response<Full<Bytes>>;

/// Samples the totals for averages and, with a listener, serves HTTP; until `stop`.
///
/// Cancel safe: dropping the future ends all connections.
pub async fn run(console: Arc<Console>, listener: Option<TcpListener>, stop: CancellationToken) {
    let lookout = Arc::clone(console.lookout());
    let mut every = tokio::time::interval(Averages::EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut connections = JoinSet::new();
    let page = Arc::new(Page::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _now = every.tick() => lookout.sample(),
            Some(_ended) = connections.join_next() => {}
            stream = accept(listener.as_ref()) => {
                if connections.len() < CONNECTIONS {
                    let (lookout, page) = (Arc::clone(&lookout), Arc::clone(&page));
                    connections.spawn(connection(stream, lookout, page));
                } else {
                    tracing::debug!(limit = CONNECTIONS, "too many admin connections: one closed");
                }
            }
        }
    }
}

/// The next connection; never without a listener. Cancel safe.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                sleep(RETRY).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, lookout: Arc<Lookout>, page: Arc<Page>) {
    let service = service_fn(|request| {
        let (lookout, page) = (Arc::clone(&lookout), Arc::clone(&page));
        async move { Ok::<_, Infallible>(answer(request, &lookout, &page).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ)
        .max_headers(HEADERS)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = match timeout(CONNECTION, connection.as_mut()).await {
        Ok(result) => result,
        Err(_late) => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Page,
    Metrics,
    Health,
    Ready,
    Status,
    Table(Show),
    Explain,
}

impl Resource {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/api/v1/status" => Self::Status,
            "/api/v1/explain" => Self::Explain,
            "/api/v1/nodes" => Self::Table(Show::Nodes),
            "/api/v1/pools" => Self::Table(Show::Pools),
            "/api/v1/clients" => Self::Table(Show::Clients),
            "/api/v1/servers" => Self::Table(Show::Servers),
            "/api/v1/stats" => Self::Table(Show::Stats),
            "/api/v1/databases" => Self::Table(Show::Databases),
            "/api/v1/users" => Self::Table(Show::Users),
            "/api/v1/events" => Self::Table(Show::Events),
            "/api/v1/queries" => Self::Table(Show::Queries),
            "/api/v1/config" => Self::Table(Show::Config),
            _ => return None,
        })
    }

    fn allows(self, method: &Method) -> bool {
        match self {
            Self::Explain => method == Method::POST,
            _ => matches!(*method, Method::GET | Method::HEAD),
        }
    }
}

async fn answer<B>(request: Request<B>, lookout: &Arc<Lookout>, page: &Page) -> Reply
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut reply = route(request, lookout, page).await;
    let headers = reply.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    reply
}

async fn route<B>(request: Request<B>, lookout: &Arc<Lookout>, page: &Page) -> Reply
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some(resource) = Resource::of(request.uri().path()) else {
        return error(StatusCode::NOT_FOUND, "no such resource");
    };
    if !resource.allows(request.method()) {
        let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        let allow = match resource {
            Resource::Explain => "POST",
            _ => "GET, HEAD",
        };
        let allow = HeaderValue::from_static(allow);
        reply.headers_mut().insert(header::ALLOW, allow);
        return reply;
    }
    match resource {
        Resource::Page => {
            let mut reply = reply(StatusCode::OK, "text/html; charset=utf-8", page.html());
            if let Ok(policy) = HeaderValue::from_str(page.policy()) {
                let headers = reply.headers_mut();
                headers.insert(header::CONTENT_SECURITY_POLICY, policy);
            }
            reply
        }
        Resource::Metrics => match lookout.aside(Lookout::metrics_text).await {
            Ok(Ok(text)) => reply(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                text,
            ),
            Ok(Err(cause)) => {
                tracing::error!(%cause, "cannot encode metrics");
                error(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode metrics")
            }
            Err(failed) => refusal(&failed),
        },
        Resource::Health => plain(StatusCode::OK, "ok\n".to_owned()),
        Resource::Ready => {
            let ready = lookout.inspect.ready();
            match ready.problem() {
                Some(problem) => plain(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("not ready: {problem}\n"),
                ),
                None if !ready.writable => plain(StatusCode::OK, "ready for reads only\n".into()),
                None => plain(StatusCode::OK, "ready\n".into()),
            }
        }
        Resource::Status => made(lookout.aside(|of| encoded(&Status::of(of))).await),
        Resource::Table(show) => {
            let table = move |of: &Lookout| encoded(&of.table(show, false));
            made(lookout.aside(table).await)
        }
        Resource::Explain => explain(request, lookout).await,
    }
}

/// The body of a request to explain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// One that the proxy chooses when not said.
    database: Option<String>,
    sql: String,
}

async fn explain<B>(request: Request<B>, lookout: &Arc<Lookout>) -> Reply
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Also keeps other sites' forms out: a browser can't send this type across origins unasked.
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let message = "the body must be application/json";
        return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    }
    let body = Box::pin(Limited::new(request.into_body(), BODY).collect());
    let body = match timeout(READ, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => {
            return error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long");
        }
        Ok(Err(_cause)) => return error(StatusCode::BAD_REQUEST, "the body could not be read"),
        Err(_late) => return error(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
    };
    let question: Question = match serde_json::from_slice(&body) {
        Ok(question) => question,
        Err(cause) => return error(StatusCode::BAD_REQUEST, &cause.to_string()),
    };
    let explain = move |of: &Lookout| {
        of.inspect
            .explain(question.database.as_deref(), &question.sql)
    };
    let explained = lookout.aside(explain).await.flatten();
    made(explained.map(|explanation| encoded(&explanation)))
}

fn refusal(refused: &Visible) -> Reply {
    let status = match refused.fault {
        Fault::Client => StatusCode::BAD_REQUEST,
        Fault::Node | Fault::Proxy => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "error": refused.message,
        "sqlstate": refused.sqlstate.as_str(),
        "hint": refused.hint,
    });
    reply(status, JSON, body.to_string())
}

const JSON: &str = "application/json";

fn encoded(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("text, numbers and text keys always have a JSON form")
}

fn made(json: Result<Vec<u8>, Visible>) -> Reply {
    match json {
        Ok(json) => reply(StatusCode::OK, JSON, json),
        Err(refused) => refusal(&refused),
    }
}

fn error(status: StatusCode, message: &str) -> Reply {
    reply(status, JSON, json!({ "error": message }).to_string())
}

fn plain(status: StatusCode, text: String) -> Reply {
    reply(status, "text/plain; charset=utf-8", text)
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

#[cfg(test)]
mod tests;
