//! HTTP as monitoring, scripts and attackers use it: bytes over loopback.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    admin::fake::{self, Fake},
    metrics::inspect::Phase,
};

struct Server {
    address: std::net::SocketAddr,
    fake: Arc<Fake>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    async fn start() -> Self {
        let (console, fake) = fake::console(Fake::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(run(console, Some(listener), stop.clone()));
        Self {
            address,
            fake,
            stop,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What the server sends until it closes.
    async fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // It may close before it has read all.
        let _written = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _end = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    /// Status, head and body.
    async fn request(
        &self,
        method: &str,
        path: &str,
        head: &str,
        body: &str,
    ) -> (u16, String, String) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}content-length: {length}\r\n\r\n{body}"
        );
        let answer = self.send(request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect(path);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        self.request("GET", path, "", "").await
    }

    async fn explain(&self, body: &str) -> (u16, Value) {
        let head = "content-type: application/json; charset=utf-8\r\n";
        let (status, _head, body) = self.request("POST", "/api/v1/explain", head, body).await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test]
async fn every_resource_answers_with_its_type() {
    let server = Server::start().await;
    for (path, kind) in [
        ("/", "text/html"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/healthz", "text/plain"),
        ("/readyz", "text/plain"),
        ("/api/v1/status", JSON),
        ("/api/v1/nodes", JSON),
        ("/api/v1/pools", JSON),
        ("/api/v1/clients", JSON),
        ("/api/v1/servers", JSON),
        ("/api/v1/stats", JSON),
        ("/api/v1/databases", JSON),
        ("/api/v1/users", JSON),
        ("/api/v1/events", JSON),
        ("/api/v1/queries", JSON),
        ("/api/v1/config", JSON),
        ("/api/v1/nodes?x=1", JSON),
    ] {
        let (status, head, body) = server.get(path).await;
        assert_eq!(status, 200, "{path}");
        assert!(head.contains(&format!("content-type: {kind}")), "{head}");
        assert!(head.contains("cache-control: no-store"), "{head}");
        assert!(!body.is_empty() && !body.contains("hunter2"), "{path}");
        if kind == JSON {
            serde_json::from_str::<Value>(&body).expect(path);
        }
        let (status, _head, body) = server.request("HEAD", path, "", "").await;
        assert_eq!((status, &*body), (200, ""), "{path}");
    }
}

#[tokio::test]
async fn the_page_may_run_its_own_script_only() {
    let server = Server::start().await;
    let (_status, head, _body) = server.get("/").await;
    assert!(head.contains("content-security-policy: default-src 'none'; script-src 'sha256-"));
}

#[tokio::test]
async fn metrics_are_those_of_the_proxy() {
    let server = Server::start().await;
    let (_status, _head, body) = server.get("/metrics").await;
    assert!(body.contains("pgsplit_server_connections{node=\"pg1\",state=\"idle\"} 3\n"));
    assert!(body.contains("pgsplit_replica_lag_seconds{node=\"pg\\\"2\"} 1.25\n"));
    assert!(body.contains("\nprocess_resident_memory_bytes "));
}

#[tokio::test]
async fn numbers_in_the_api_are_numbers() {
    let server = Server::start().await;
    let (_status, _head, body) = server.get("/api/v1/status").await;
    let status: Value = serde_json::from_str(&body).unwrap();
    assert!(
        body.contains(r#"[{"name":"pg1","host":"10.0.0.1","port":5432,"#),
        "{body}"
    );
    assert_eq!(status["ready"], true);
    assert_eq!(status["nodes"][1]["lag_seconds"], 1.25);
    assert_eq!(status["nodes"][1]["name"], "pg\"2");
    assert_eq!(status["nodes"][0]["error"], Value::Null);
    assert_eq!(status["pools"][0]["sv_idle"], 3);
    assert_eq!(status["stats"][0]["total_query_count"], 12_345_678);
    assert_eq!(status["events"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn not_ready_says_why() {
    let server = Server::start().await;
    let cases = [
        (Phase::Listening, true, true, 200, "ready\n"),
        (Phase::Listening, false, true, 200, "ready for reads only\n"),
        (
            Phase::Listening,
            false,
            false,
            503,
            "not ready: no node is usable\n",
        ),
        (Phase::Starting, true, true, 503, "not ready: starting\n"),
        (
            Phase::Stopping,
            true,
            true,
            503,
            "not ready: shutting down\n",
        ),
    ];
    for (phase, writable, readable, status, text) in cases {
        {
            let mut ready = server.fake.ready.lock().unwrap();
            (ready.phase, ready.writable, ready.readable) = (phase, writable, readable);
        }
        let (found, _head, body) = server.get("/readyz").await;
        assert_eq!((found, &*body), (status, text));
        assert_eq!(server.get("/healthz").await.0, 200, "the process is alive");
    }
}

#[tokio::test]
async fn explain_answers_and_refuses() {
    let server = Server::start().await;
    let (status, answer) = server.explain(r#"{"sql": "SELECT 1"}"#).await;
    assert_eq!(status, 200);
    for key in ["class", "route", "reason", "detail", "tables", "functions"] {
        assert!(answer.get(key).is_some(), "{key}");
    }
    let (status, answer) = server
        .explain(r#"{"database": "no", "sql": "SELECT 1"}"#)
        .await;
    assert_eq!((status, &answer["sqlstate"]), (400, &json!("3D000")));
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"sql": 1}"#,
        r#"{"sql": "x", "y": 1}"#,
    ] {
        assert_eq!(server.explain(body).await.0, 400, "{body}");
    }
    let long = format!(r#"{{"sql": "{}"}}"#, "x".repeat(BODY));
    assert_eq!(server.explain(&long).await.0, 413);
    let form = "content-type: text/plain\r\n";
    let (status, ..) = server.request("POST", "/api/v1/explain", form, "{}").await;
    assert_eq!(status, 415);
}

#[tokio::test]
async fn wrong_paths_and_methods_are_told_apart() {
    let server = Server::start().await;
    for path in [
        "/nope",
        "/metrics/",
        "//",
        "/api/v1/",
        "/../etc/passwd",
        "/%2e%2e/",
    ] {
        assert_eq!(server.get(path).await.0, 404, "{path}");
    }
    for (method, path, allow) in [
        ("POST", "/metrics", "get, head"),
        ("DELETE", "/api/v1/nodes", "get, head"),
        ("PUT", "/", "get, head"),
        ("GET", "/api/v1/explain", "post"),
    ] {
        let (status, head, _body) = server.request(method, path, "", "").await;
        assert_eq!(status, 405, "{method} {path}");
        assert!(head.contains(&format!("allow: {allow}")), "{head}");
    }
}

#[tokio::test]
async fn heads_that_are_too_long_or_no_http_are_refused() {
    let server = Server::start().await;
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(HEAD * 2));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(HEADERS + 1));
    for (bytes, status) in [
        (long.as_bytes(), "431"),
        (many.as_bytes(), "431"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".as_slice(), "400"),
        (b"Q\0\0\0\x0aSELECT\0 \r\n\r\n".as_slice(), "400"),
    ] {
        let answer = server.send(bytes).await;
        let start = format!("HTTP/1.1 {status} ");
        assert!(answer.is_empty() || answer.starts_with(&start), "{answer}");
    }
    assert_eq!(server.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn one_connection_serves_several_requests() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    for _request in 0..3 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok\n") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
    }
}

#[tokio::test]
async fn too_many_connections_are_closed_and_places_come_back() {
    let server = Server::start().await;
    let mut open = Vec::new();
    for _connection in 0..CONNECTIONS {
        open.push(server.connect().await);
    }
    assert_eq!(server.send(b"GET /healthz HTTP/1.0\r\n\r\n").await, "");
    open.clear();
    while !server
        .send(b"GET /healthz HTTP/1.0\r\n\r\n")
        .await
        .ends_with("ok\n")
    {}
}

/// The paused clock moves on whenever nothing is left to do but wait.
#[tokio::test(start_paused = true)]
async fn slow_heads_slow_bodies_and_idle_connections_are_closed() {
    let server = Server::start().await;
    let slow: [&[u8]; 4] = [
        b"",
        b"GET / HTTP/1.1\r\nx: ",
        b"POST /api/v1/explain HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
    ];
    for bytes in slow {
        let started = tokio::time::Instant::now();
        let answer = server.send(bytes).await;
        let took = started.elapsed();
        assert!(took >= READ && took <= READ * 3, "{took:?} {answer}");
    }
}

#[tokio::test]
async fn without_a_listener_only_stop_ends_it() {
    let (console, _fake) = fake::console(Fake::default());
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(console, None, stop.clone()));
    stop.cancel();
    running.await.unwrap();
}
