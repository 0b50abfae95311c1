//! The monitor's connection to one node: made, asked, dropped.

use std::{error::Error as _, fmt, io, sync::Arc};

use arc_swap::ArcSwapOption;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, NoTls, Row, Statement, types::PgLsn};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::queries;
use crate::{
    cluster::{Claim, Failure, Lsn, Position, Probe, Sample},
    config::settings,
    net::{DialError, Dialer},
    protocol::SqlState,
};

/// Where and as whom to ask.
#[derive(Clone, Debug)]
pub(super) struct Target {
    dialer: Dialer,
    /// All but the password.
    login: tokio_postgres::Config,
    password: Password,
    tracker: TaskTracker,
}

/// The monitor's password of the moment, for connections that are begun from now on.
pub(super) type Password = Arc<ArcSwapOption<settings::Secret>>;

/// Whom to log in as in the monitor's stead.
#[derive(Clone, Copy, Debug)]
pub(super) struct As<'a> {
    pub(super) user: &'a str,
    pub(super) password: Option<&'a str>,
    /// By default the monitor's own.
    pub(super) database: Option<&'a str>,
    pub(super) application_name: &'a str,
    /// Startup options.
    pub(super) options: &'a str,
}

/// A question that failed: how, and what there is to read about it.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) failure: Failure,
    pub(super) text: String,
}

/// A connection that has answered the first questions.
pub(super) struct Connection {
    /// Told apart by the cluster's machine.
    pub(super) number: u64,
    /// When it was begun.
    pub(super) since: Instant,
    client: Client,
    /// Ends when the connection does.
    driver: AbortOnDropHandle<()>,
    version: i32,
    system: Option<u64>,
    /// None: positions can't be compared here.
    statements: Option<Statements>,
}

struct Statements {
    probe: Statement,
    sample: Statement,
}

impl Target {
    /// `database`: the monitor's own.
    pub(super) fn new(
        dialer: Dialer,
        settings: &settings::Monitor,
        password: &Password,
        tracker: &TaskTracker,
    ) -> Self {
        let mut login = tokio_postgres::Config::new();
        login
            .user(&settings.user)
            .dbname(&settings.database)
            .application_name("pgsplit monitor")
            .options(queries::OPTIONS)
            // TLS is the stream's matter.
            .ssl_mode(tokio_postgres::config::SslMode::Disable);
        Self {
            dialer,
            login,
            password: Arc::clone(password),
            tracker: tracker.clone(),
        }
    }

    /// Logs in, to the monitor's own database or another. Returns the client and what ends with the
    /// connection. Cancel safe.
    pub(super) async fn login(
        &self,
        database: Option<&str>,
        deadline: Instant,
    ) -> Result<(Client, AbortOnDropHandle<()>), Problem> {
        let mut login = self.login.clone();
        if let Some(database) = database {
            login.dbname(database);
        }
        if let Some(password) = &*self.password.load() {
            login.password(&password.0);
        }
        self.connect(&login, deadline).await
    }

    /// Logs in as somebody else. Cancel safe.
    pub(super) async fn login_as(
        &self,
        whom: As<'_>,
        deadline: Instant,
    ) -> Result<(Client, AbortOnDropHandle<()>), Problem> {
        let mut login = tokio_postgres::Config::new();
        login
            .user(whom.user)
            .application_name(whom.application_name)
            .options(whom.options)
            .ssl_mode(tokio_postgres::config::SslMode::Disable);
        if let Some(database) = whom.database.or(self.login.get_dbname()) {
            login.dbname(database);
        }
        if let Some(password) = whom.password {
            login.password(password);
        }
        self.connect(&login, deadline).await
    }

    async fn connect(
        &self,
        login: &tokio_postgres::Config,
        deadline: Instant,
    ) -> Result<(Client, AbortOnDropHandle<()>), Problem> {
        let work = async {
            let stream = self.dialer.dial(deadline).await?;
            let (client, connection) = login.connect_raw(stream, NoTls).await?;
            let driver = self.tracker.spawn(async move {
                // Whoever asks next learns of an error from the client.
                let _end = connection.await;
            });
            Ok((client, AbortOnDropHandle::new(driver)))
        };
        within(deadline, work).await
    }

    /// Connects and asks what doesn't change while the connection lives. Cancel safe.
    pub(super) async fn open(&self, number: u64, deadline: Instant) -> Result<Connection, Problem> {
        let since = Instant::now();
        let (client, driver) = self.login(None, deadline).await?;
        let ask = async {
            let facts = client.query_one(queries::FACTS, &[]).await?;
            let (version, may_system, foreign): (i32, bool, bool) =
                (facts.try_get(0)?, facts.try_get(1)?, facts.try_get(3)?);
            let (control_file, files): (bool, bool) = (facts.try_get(2)?, facts.try_get(4)?);
            let system = if may_system {
                let row = client.query_one(queries::SYSTEM, &[]).await?;
                Some(row.try_get::<_, i64>(0)?.cast_unsigned())
            } else {
                None
            };
            let statements = if foreign {
                None
            } else {
                Some(Statements {
                    probe: client
                        .prepare(&queries::probe(version, control_file, files))
                        .await?,
                    sample: client.prepare(queries::SAMPLE).await?,
                })
            };
            Ok((version, system, statements))
        };
        let (version, system, statements) = within(deadline, ask).await?;
        Ok(Connection {
            number,
            since,
            client,
            driver,
            version,
            system,
            statements,
        })
    }
}

impl Connection {
    /// Ends when the connection does. Cancel safe.
    pub(super) async fn closed(&mut self) {
        let _end = (&mut self.driver).await;
    }

    /// The full question. Not to be used again after an error.
    pub(super) async fn probe(&self, deadline: Instant) -> Result<Probe, Problem> {
        let Some(statements) = &self.statements else {
            let row = within(deadline, async {
                Ok(self.client.query_one(queries::ROLE, &[]).await?)
            })
            .await?;
            return Ok(self.answer(row.try_get(0)?, None, None));
        };
        let (sample, row) = self.ask(&statements.probe, deadline).await?;
        let timeline: Option<i32> = row.try_get(5)?;
        let received: Option<PgLsn> = row.try_get(2)?;
        Ok(Probe {
            received: received.map(lsn),
            replay_paused: row.try_get(4)?,
            read_only: row.try_get(6)?,
            ..self.answer(
                sample.in_recovery,
                sample.position,
                timeline.map(i32::cast_unsigned).filter(|t| *t != 0),
            )
        })
    }

    /// The question for a position. `None`: there is none here. Not to be used again after an
    /// error.
    pub(super) async fn sample(&self, deadline: Instant) -> Result<Option<Sample>, Problem> {
        let Some(statements) = &self.statements else {
            return Ok(None);
        };
        let (sample, _) = self.ask(&statements.sample, deadline).await?;
        Ok(Some(sample))
    }

    async fn ask(
        &self,
        statement: &Statement,
        deadline: Instant,
    ) -> Result<(Sample, Row), Problem> {
        let asked_at = Instant::now().into_std();
        let row = within(deadline, async {
            Ok(self.client.query_one(statement, &[]).await?)
        })
        .await?;
        let in_recovery: bool = row.try_get(0)?;
        let at: Option<PgLsn> = row.try_get(1)?;
        let received: Option<PgLsn> = row.try_get(2)?;
        let streaming: Option<bool> = row.try_get(3)?;
        let exact = !in_recovery || (streaming == Some(true) && received == at);
        let position = at.map(lsn).map(|lsn| {
            if exact {
                Position::exact(asked_at, lsn)
            } else {
                Position::replaying(asked_at, lsn)
            }
        });
        let sample = Sample {
            conn: self.number,
            in_recovery,
            position,
        };
        Ok((sample, row))
    }

    fn answer(
        &self,
        in_recovery: bool,
        position: Option<Position>,
        timeline: Option<u32>,
    ) -> Probe {
        Probe {
            claim: Claim {
                conn: self.number,
                in_recovery,
                timeline,
                system: self.system,
            },
            position,
            received: None,
            replay_paused: false,
            read_only: false,
            version: u32::try_from(self.version).ok(),
            comparable: self.statements.is_some(),
        }
    }
}

fn lsn(lsn: PgLsn) -> Lsn {
    Lsn(lsn.into())
}

pub(super) async fn within<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    match timeout_at(deadline, work).await {
        Ok(result) => result,
        Err(_elapsed) => Err(Problem::new(Failure::Timeout)),
    }
}

impl Problem {
    /// One that its kind says all about.
    pub(super) fn new(failure: Failure) -> Self {
        Self {
            failure,
            text: failure.to_string(),
        }
    }
}

impl From<DialError> for Problem {
    fn from(error: DialError) -> Self {
        let failure = match error {
            DialError::TimedOut(_) => Failure::Timeout,
            DialError::Resolve { .. }
            | DialError::Connect { .. }
            | DialError::Lost(_)
            | DialError::TlsRefused
            | DialError::Tls(_)
            | DialError::Unexpected(_)
            | DialError::Settings(_) => Failure::Connect,
        };
        Self {
            failure,
            text: error.to_string(),
        }
    }
}

impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Self {
        let failure = match error.code() {
            Some(code) => match <[u8; 5]>::try_from(code.code().as_bytes()) {
                Ok(code) => Failure::Answer(SqlState(code)),
                Err(_) => Failure::Protocol,
            },
            None if error.is_closed() => Failure::Closed,
            None => match error.source().and_then(|s| s.downcast_ref::<io::Error>()) {
                Some(_) => Failure::Closed,
                None => Failure::Protocol,
            },
        };
        let text = match error.as_db_error() {
            Some(answer) => format!("{}: {}", answer.severity(), answer.message()),
            None => match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
        };
        Self { failure, text }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
