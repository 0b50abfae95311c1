//! The addresses that the nodes' names lead to: a node for each. Asked of the system's resolver, which
//! keeps what it has heard for as long as the answers' TTL says.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::timeout;

use super::super::Wanted;
use crate::config::settings::{Host, Node};

/// What is known of the names.
pub(in crate::monitor) struct Dns {
    timeout: Duration,
    /// The last answer of each name.
    known: HashMap<String, BTreeSet<IpAddr>>,
}

impl Dns {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            known: HashMap::new(),
        }
    }

    pub(super) async fn find(&mut self, configured: &[Node]) -> Result<Vec<Wanted>, String> {
        self.find_by(configured, async |host: String| {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
        .await
    }

    async fn find_by<F>(
        &mut self,
        configured: &[Node],
        resolve: impl Fn(String) -> F,
    ) -> Result<Vec<Wanted>, String>
    where
        F: Future<Output = std::io::Result<BTreeSet<IpAddr>>>,
    {
        let mut wanted = Vec::new();
        for node in configured {
            let Host::Tcp(host) = &node.host else {
                wanted.push(node.clone().into());
                continue;
            };
            if host.parse::<IpAddr>().is_ok() {
                wanted.push(node.clone().into());
                continue;
            }
            let answer = timeout(self.timeout, resolve(host.clone())).await;
            let problem = match answer {
                Ok(Ok(addresses)) if !addresses.is_empty() => {
                    self.known.insert(host.clone(), addresses);
                    None
                }
                Ok(Ok(_)) => Some("it has no address".to_owned()),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_elapsed) => Some("no answer in time".to_owned()),
            };
            let Some(addresses) = self.known.get(host) else {
                let problem = problem.unwrap_or_default();
                return Err(format!("{host} could not be resolved: {problem}"));
            };
            // The last answer holds, should there be none now.
            wanted.extend(addresses.iter().map(|address| Wanted {
                node: Node {
                    name: Arc::from(format!("{}-{address}", node.name)),
                    ..node.clone()
                },
                address: Some(*address),
            }));
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn node(name: &str, host: &str) -> Node {
        Node {
            name: name.into(),
            host: Host::Tcp(host.into()),
            ..Node::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_is_a_node_and_the_last_answer_holds() {
        let configured = [node("pg", "pg.internal"), node("other", "10.0.0.9")];
        let answer = RefCell::new(Some(vec!["10.0.0.2", "10.0.0.1"]));
        let mut dns = Dns::new(Duration::from_secs(1));
        let names = async |dns: &mut Dns| {
            let resolve = |_| {
                let answer = answer.borrow().clone();
                async move {
                    match answer {
                        Some(addresses) => {
                            Ok(addresses.iter().map(|a| a.parse().unwrap()).collect())
                        }
                        None => std::future::pending().await,
                    }
                }
            };
            let found = dns.find_by(&configured, resolve).await?;
            let name = |wanted: Wanted| (wanted.node.name.to_string(), wanted.host());
            Ok::<_, String>(found.into_iter().map(name).collect::<Vec<_>>())
        };
        let row = |name: &str, host: &str| (name.to_owned(), host.to_owned());
        let both = [
            row("pg-10.0.0.1", "10.0.0.1"),
            row("pg-10.0.0.2", "10.0.0.2"),
            row("other", "10.0.0.9"),
        ];
        assert_eq!(names(&mut dns).await.unwrap(), both);
        for silence in [None, Some(Vec::new())] {
            answer.replace(silence);
            assert_eq!(names(&mut dns).await.unwrap(), both);
        }
        answer.replace(Some(vec!["10.0.0.3"]));
        let now = [row("pg-10.0.0.3", "10.0.0.3"), row("other", "10.0.0.9")];
        assert_eq!(names(&mut dns).await.unwrap(), now);
        answer.replace(None);
        let problem = names(&mut Dns::new(Duration::from_secs(1))).await;
        assert_eq!(
            problem.unwrap_err(),
            "pg.internal could not be resolved: no answer in time"
        );
    }
}
