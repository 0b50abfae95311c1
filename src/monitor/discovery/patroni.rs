//! The members of a Patroni cluster, as its REST API lists them (`GET /cluster` of any member).

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::timeout;

use super::super::Wanted;
use crate::{
    config::{
        schema::http_server,
        settings::{Host, Node},
    },
    net::http,
};

/// Members of one Patroni cluster, one of which is asked.
pub(in crate::monitor) struct Patroni {
    /// Those of the configuration, and those that the last answer named behind them.
    urls: Vec<String>,
    configured: usize,
    /// Which of them answered last.
    last: usize,
    timeout: Duration,
}

/// Servers that are remembered besides those of the configuration.
const REMEMBERED: usize = 32;

impl Patroni {
    pub(super) fn new(urls: &[String], timeout: Duration) -> Self {
        Self {
            urls: urls.to_vec(),
            configured: urls.len(),
            last: 0,
            timeout,
        }
    }

    pub(super) async fn find(&mut self, configured: &[Node]) -> Result<Vec<Wanted>, String> {
        let cluster = self.ask().await?;
        self.urls.truncate(self.configured);
        let members = cluster.get("members").and_then(Value::as_array);
        let told = members.into_iter().flatten().filter_map(|member| {
            let url = member.get("api_url")?.as_str()?;
            http_server(url).map(|_| url.to_owned())
        });
        self.urls.extend(told.take(REMEMBERED));
        self.last = self.last.min(self.urls.len().saturating_sub(1));
        members_of(&cluster, configured)
    }

    /// The first answer, beginning with who answered last.
    async fn ask(&mut self) -> Result<Value, String> {
        let mut problems = Vec::new();
        for turn in 0..self.urls.len() {
            let at = (self.last + turn) % self.urls.len();
            let Some(url) = self.urls.get(at) else { break };
            match timeout(self.timeout, cluster(url)).await {
                Ok(Ok(cluster)) => {
                    self.last = at;
                    return Ok(cluster);
                }
                Ok(Err(problem)) => problems.push(format!("{url}: {problem}")),
                Err(_elapsed) => problems.push(format!("{url}: no answer in time")),
            }
        }
        Err(format!("Patroni does not answer ({})", problems.join("; ")))
    }
}

async fn cluster(url: &str) -> Result<Value, String> {
    let (host, port) = http_server(url).ok_or("not a URL of a server")?;
    let request = http::get(host, "/cluster");
    let answer = http::exchange((host, port), &request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    match http::parse(&answer) {
        Some((200, body)) => {
            serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))
        }
        Some((status, _)) => Err(format!("HTTP status {status}")),
        None => Err("not HTTP".to_owned()),
    }
}

/// The nodes that a cluster's members are. What the configuration says of a node with a member's
/// name (zone, weight, TLS) holds for that; TLS also that of the first node for all others.
fn members_of(cluster: &Value, configured: &[Node]) -> Result<Vec<Wanted>, String> {
    let members = cluster
        .get("members")
        .and_then(Value::as_array)
        .ok_or("the answer has no members")?;
    let mut found: Vec<Wanted> = Vec::new();
    for member in members {
        let text = |key| member.get(key).and_then(Value::as_str);
        // One that has not been set up yet has no address.
        let (Some(name), Some(host)) = (text("name"), text("host")) else {
            continue;
        };
        let port = match member.get("port") {
            None => Some(5432),
            Some(port) => port.as_u64().and_then(|port| u16::try_from(port).ok()),
        };
        let Some(port) = port.filter(|port| *port > 0) else {
            return Err(format!("member {name:?} has an impossible port"));
        };
        if host.is_empty() || name.is_empty() || found.iter().any(|other| *other.node.name == *name)
        {
            return Err(format!("member {name:?} can't be told from others"));
        }
        let known = configured.iter().find(|node| *node.name == *name);
        let mut node = known.cloned().unwrap_or_else(|| Node {
            tls: configured
                .first()
                .map(|node| node.tls.clone())
                .unwrap_or_default(),
            ..Node::default()
        });
        node.name = Arc::from(name);
        node.host = Host::Tcp(host.to_owned());
        node.port = port;
        let tag = |key| member.get("tags").and_then(|tags| tags.get(key));
        if tag("noloadbalance").and_then(Value::as_bool) == Some(true) {
            node.weight = 0;
        }
        found.push(node.into());
    }
    if found.is_empty() {
        return Err("the answer names no member with an address".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    fn found(cluster: &Value, configured: &[Node]) -> Vec<(String, String, u16, u32, String)> {
        let found = members_of(cluster, configured).unwrap();
        let row = |w: Wanted| {
            let node = w.node;
            (
                node.name.to_string(),
                node.host.to_string(),
                node.port,
                node.weight,
                node.zone.to_string(),
            )
        };
        found.into_iter().map(row).collect()
    }

    #[test]
    fn members_are_nodes_with_what_the_configuration_says_of_them() {
        let cluster = json!({"scope": "demo", "members": [
            {"name": "pg1", "role": "leader", "state": "running", "host": "10.0.0.1", "port": 5433,
             "api_url": "http://10.0.0.1:8008/patroni", "timeline": 3},
            {"name": "pg2", "role": "replica", "state": "streaming", "host": "10.0.0.2",
             "tags": {"noloadbalance": true}, "lag": 0},
            {"name": "pg3", "role": "replica", "state": "creating replica"},
        ]});
        let configured = [Node {
            name: "pg1".into(),
            zone: "a".into(),
            weight: 50,
            ..Node::default()
        }];
        let row = |name: &str, host: &str, port, weight, zone: &str| {
            (name.into(), host.into(), port, weight, zone.into())
        };
        assert_eq!(
            found(&cluster, &configured),
            [
                row("pg1", "10.0.0.1", 5433, 50, "a"),
                row("pg2", "10.0.0.2", 5432, 0, ""),
            ]
        );
    }

    #[test]
    fn nonsense_is_no_list_of_nodes() {
        for cluster in [
            json!({}),
            json!({"members": []}),
            json!({"members": [{"name": "pg1"}]}),
            json!({"members": [{"name": "pg1", "host": "h", "port": 0}]}),
            json!({"members": [{"name": "pg1", "host": "h", "port": "x"}]}),
            json!({"members": [{"name": "pg1", "host": "h"}, {"name": "pg1", "host": "i"}]}),
        ] {
            assert!(members_of(&cluster, &[]).is_err(), "{cluster}");
        }
    }

    #[tokio::test]
    async fn whoever_answers_is_asked_also_a_member_that_was_only_told_of() {
        let (first, second) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let url = |listener: &TcpListener| {
            let port = listener.local_addr().unwrap().port();
            format!("http://127.0.0.1:{port}/patroni")
        };
        let answer = json!({"members": [
            {"name": "pg1", "host": "127.0.0.1", "api_url": url(&first)},
            {"name": "pg2", "host": "127.0.0.1", "port": 1, "api_url": url(&second)},
        ]})
        .to_string();
        let serve = async |listener: &TcpListener| {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /cluster HTTP/1.0\r\n"));
            let head = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let mut patroni = Patroni::new(&[url(&first)], Duration::from_secs(5));
        let (found, ()) = tokio::join!(patroni.find(&[]), serve(&first));
        assert_eq!(found.unwrap().len(), 2);
        let asked = url(&second);
        let second = async move { serve(&second).await };
        drop(first);
        let (found, ()) = tokio::join!(patroni.find(&[]), second);
        assert_eq!(found.unwrap().len(), 2, "{asked}");
        let problem = patroni.find(&[]).await.unwrap_err();
        assert!(problem.contains(&asked), "{problem}");
    }
}
