//! Passwords of users whom the configuration doesn't have: a query at a node gives them.

use tokio::time::Instant;

use super::{
    Monitor,
    connection::{As, Problem, within},
};
use crate::{
    cluster::{Failure, Health, NodeId, Role},
    config::settings::{Auth, Secret},
};

impl Monitor {
    /// What `auth.query` gives as the password of `user`: asked of the primary, or, if it doesn't
    /// answer, of a replica. `None`: there is no such user, or he has none. Cancel safe.
    ///
    /// # Errors
    /// No node could be asked, or the query fails or isn't what it should be; for the log.
    pub async fn secret_of(
        &self,
        auth: &Auth,
        user: &str,
        deadline: Instant,
    ) -> Result<Option<Secret>, String> {
        let nodes: Vec<NodeId> = {
            let view = self.view();
            let replica = view
                .nodes
                .iter()
                .find(|node| node.role == Role::Replica && node.health == Health::Up);
            let replica = replica.map(|node| node.id);
            view.primary.into_iter().chain(replica).collect()
        };
        let mut last = "no node is usable".to_owned();
        for node in nodes {
            match self.ask_secret(node, auth, user, deadline).await {
                Ok(secret) => return Ok(secret),
                Err(problem) => {
                    last = format!("{}: {}", self.name(node), problem.text);
                    // Another node gives the same answer.
                    if matches!(problem.failure, Failure::Answer(_)) {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    async fn ask_secret(
        &self,
        node: NodeId,
        auth: &Auth,
        user: &str,
        deadline: Instant,
    ) -> Result<Option<Secret>, Problem> {
        let node = self.watched(node).ok_or(Problem::new(Failure::Connect))?;
        let whom = As {
            user: &auth.user,
            password: auth.password.as_ref().map(|password| &*password.0),
            database: Some(&auth.database),
            application_name: "pgsplit auth",
            options: "",
        };
        let (client, _driver) = node.target.login_as(whom, deadline).await?;
        let ask = async {
            let statement = client
                .prepare(auth.query.as_deref().unwrap_or_default())
                .await?;
            if statement.params().len() != 1 || statement.columns().len() < 2 {
                return Err(Problem {
                    failure: Failure::Protocol,
                    text: "query in [auth] must have one parameter, the user's name, and give two columns, name and password".to_owned(),
                });
            }
            let Some(row) = client.query_opt(&statement, &[&user]).await? else {
                return Ok(None);
            };
            if row.try_get::<_, Option<&str>>(0)? != Some(user) {
                return Err(Problem {
                    failure: Failure::Protocol,
                    text: "query in [auth] gave another user than was asked for".to_owned(),
                });
            }
            let secret: Option<&str> = row.try_get(1)?;
            Ok(secret
                .filter(|secret| !secret.is_empty())
                .map(|secret| Secret(secret.to_owned())))
        };
        within(deadline, ask).await
    }
}
