//! Asking the proxy's admin API: one request, one answer, on loopback as a rule.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use serde_json::Value;
use tokio::time::timeout;

use crate::net::http::{exchange, parse};

/// How long asking may take altogether.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody listens, or nobody answers in time.
    NoAnswer(SocketAddr, io::Error),
    /// Whoever answers isn't pgsplit's admin API.
    NotPgsplit(SocketAddr),
    /// The proxy refused, with its reason.
    Refused(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(address, error) => {
                write!(f, "no proxy answers at http://{address}: {error}")
            }
            Self::NotPgsplit(address) => {
                write!(
                    f,
                    "what answers at http://{address} is not pgsplit's admin API"
                )
            }
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

/// A request.
#[derive(Debug)]
pub(super) enum Request<'a> {
    Get,
    Post(&'a Value),
}

/// Asks for JSON.
///
/// # Errors
/// No answer within ten seconds, or not the one that was hoped for.
pub(super) async fn ask(
    address: SocketAddr,
    path: &str,
    request: Request<'_>,
) -> Result<Value, Failure> {
    let address = reachable(address);
    let (method, body) = match request {
        Request::Get => ("GET", String::new()),
        Request::Post(value) => ("POST", value.to_string()),
    };
    let message = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = timeout(DEADLINE, exchange(address, message.as_bytes()))
        .await
        .map_err(|_elapsed| Failure::NoAnswer(address, io::ErrorKind::TimedOut.into()))?
        .map_err(|error| Failure::NoAnswer(address, error))?;
    let (status, body) = parse(&answer).ok_or(Failure::NotPgsplit(address))?;
    match (status, serde_json::from_slice::<Value>(body)) {
        (200, Ok(value)) => Ok(value),
        (200 | 404 | 405, _) => Err(Failure::NotPgsplit(address)),
        (_, Ok(value)) => {
            let text = |key| value.get(key).and_then(Value::as_str);
            let reason =
                text("error").map_or_else(|| format!("HTTP status {status}"), str::to_owned);
            Err(Failure::Refused(match text("hint") {
                Some(hint) => format!("{reason} ({hint})"),
                None => reason,
            }))
        }
        (_, Err(_)) => Err(Failure::Refused(format!("HTTP status {status}"))),
    }
}

/// Where a listener at `address` can be reached from this machine.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn answered(answer: &'static str) -> (Result<Value, Failure>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let body = json!({"sql": "select 'ä'"});
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let mut length = 0;
            while !request[..length].ends_with(b"}") {
                length += stream.read(&mut request[length..]).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            request.truncate(length);
            String::from_utf8(request).unwrap()
        };
        tokio::join!(ask(address, "/x", Request::Post(&body)), server)
    }

    #[tokio::test]
    async fn a_body_is_sent_with_its_length_and_json_comes_back() {
        let (answer, request) = answered("HTTP/1.1 200 OK\r\nX: y\r\n\r\n{\"a\": 1}").await;
        assert_eq!(answer.unwrap(), json!({"a": 1}));
        assert!(request.starts_with("POST /x HTTP/1.0\r\n"), "{request}");
        assert!(request.contains("Content-Length: 21\r\n"), "{request}");
        assert!(request.ends_with("{\"sql\":\"select 'ä'\"}"), "{request}");
    }

    #[tokio::test]
    async fn the_server_that_the_admin_api_uses_is_understood() {
        use http_body_util::Full;
        use hyper::{Response, body::Bytes, server::conn::http1, service::service_fn};

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let long = "x".repeat(100_000);
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = service_fn(|request: hyper::Request<_>| {
                assert_eq!(request.headers()["content-type"], "application/json");
                let body: hyper::body::Incoming = request.into_body();
                drop(body);
                let text = json!({ "text": long }).to_string();
                async {
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(text))))
                }
            });
            let stream = hyper_util::rt::TokioIo::new(stream);
            http1::Builder::new()
                .serve_connection(stream, answer)
                .await
                .unwrap();
        };
        let (answer, ()) = tokio::join!(ask(address, "/x", Request::Get), server);
        assert_eq!(answer.unwrap(), json!({ "text": long }));
    }

    #[tokio::test]
    async fn a_refusal_gives_its_reason_and_strangers_are_told_apart() {
        for (answer, message) in [
            (
                "HTTP/1.1 400 Bad\r\n\r\n{\"error\": \"no such database\"}",
                "no such database",
            ),
            (
                "HTTP/1.1 503 Not Now\r\n\r\n{\"error\": \"no\", \"hint\": \"wait\"}",
                "no (wait)",
            ),
            ("HTTP/1.1 500 Oh\r\n\r\nplain", "HTTP status 500"),
            (
                "HTTP/1.1 404 Not Found\r\n\r\n{}",
                "is not pgsplit's admin API",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\n<html>",
                "is not pgsplit's admin API",
            ),
            ("SSH-2.0\r\n\r\n", "is not pgsplit's admin API"),
            ("", "is not pgsplit's admin API"),
        ] {
            let said = answered(answer).await.0.unwrap_err().to_string();
            assert!(said.ends_with(message), "{said}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let said = ask(address, "/", Request::Get)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            said.starts_with("no proxy answers at http://127.0.0.1:"),
            "{said}"
        );
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        for (listening, asked) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(reachable(listening.parse().unwrap()).to_string(), asked);
        }
    }
}
