//! A connection of a command's own to a node.

use std::time::Duration;

use tokio::{
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, config::SslMode};

use crate::{
    config::{Node, Secret},
    net,
};

/// How long connecting and logging in may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long one query may take.
const QUERY: Duration = Duration::from_secs(30);

/// A row as text.
pub(super) type Row = Vec<Option<String>>;

/// Logged in. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    connection: JoinHandle<()>,
    /// Whether the way to the node is encrypted.
    pub(super) encrypted: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What a password can be used for on the way to a node: a verifier can't be turned into a
/// password.
pub(super) fn usable(password: Option<&Secret>) -> Option<&str> {
    let text = password?.0.as_str();
    let md5 = text.len() == 35 && text.starts_with("md5");
    (!md5 && !text.starts_with("SCRAM-SHA-256$")).then_some(text)
}

/// Connects and logs in.
///
/// # Errors
/// Why not, for people.
pub(super) async fn connect(
    node: &Node,
    user: &str,
    password: Option<&Secret>,
    database: &str,
) -> Result<Session, String> {
    let deadline = Instant::now() + CONNECT;
    let stream = net::dial(node, deadline)
        .await
        .map_err(|error| error.to_string())?;
    let encrypted = stream.is_tls();
    let mut config = tokio_postgres::Config::new();
    // The stream is encrypted already, if it is to be.
    config
        .user(user)
        .dbname(database)
        .application_name("pgsplit")
        .ssl_mode(SslMode::Disable);
    if let Some(password) = usable(password) {
        config.password(password);
    }
    let (client, connection) = timeout_at(deadline, Box::pin(config.connect_raw(stream, NoTls)))
        .await
        .map_err(|_elapsed| "no answer to the login".to_owned())?
        .map_err(|error| describe(&error))?;
    let connection = tokio::spawn(async move {
        // Its end shows in the queries.
        let _ended = connection.await;
    });
    Ok(Session {
        client,
        connection,
        encrypted,
    })
}

impl Session {
    /// The rows of a query, as text.
    ///
    /// # Errors
    /// What the node says, or that it doesn't answer.
    pub(super) async fn rows(&self, sql: &str) -> Result<Vec<Row>, String> {
        self.rows_within(sql, QUERY).await
    }

    /// The same, with another limit of time.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub(super) async fn rows_within(&self, sql: &str, limit: Duration) -> Result<Vec<Row>, String> {
        let messages = timeout(limit, self.client.simple_query(sql))
            .await
            .map_err(|_elapsed| "no answer".to_owned())?
            .map_err(|error| describe(&error))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|column| row.get(column).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Runs `auth.query` for `user` as a login would.
    ///
    /// # Errors
    /// What the node says, that it doesn't answer, or what the query lacks.
    pub(super) async fn asks_for_password(&self, query: &str, user: &str) -> Result<(), String> {
        let ask = async {
            let statement = self.client.prepare(query).await?;
            if statement.params().len() != 1 || statement.columns().len() < 2 {
                return Ok(Err(
                    "it must have one parameter, the user's name, and give name and password"
                        .to_owned(),
                ));
            }
            self.client.query_opt(&statement, &[&user]).await?;
            Ok(Ok(()))
        };
        timeout(QUERY, ask)
            .await
            .map_err(|_elapsed| "no answer".to_owned())?
            .map_err(|error| describe(&error))?
    }

    /// The first row of a query, as text.
    ///
    /// # Errors
    /// As [`Self::rows`]; there is no row.
    pub(super) async fn row(&self, sql: &str) -> Result<Row, String> {
        let rows = self.rows(sql).await?;
        rows.into_iter().next().ok_or_else(|| "no row".to_owned())
    }
}

/// What the node says, without the library's words around it.
fn describe(error: &tokio_postgres::Error) -> String {
    let Some(said) = error.as_db_error() else {
        return std::error::Error::source(error)
            .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    };
    let hint = match said.code().code() {
        // Hot standby is off, or recovery has not reached a consistent state.
        "57P03" => {
            " (a replica answers only with hot_standby = on and once it has caught up to a consistent state)"
        }
        _ => "",
    };
    format!("{} (SQLSTATE {}){hint}", said.message(), said.code().code())
}
