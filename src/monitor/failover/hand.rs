//! A connection that changes a node: fences it, promotes it, points it elsewhere. Made for one
//! operation, as `failover.user`.

use std::{process::Stdio, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use super::conninfo::pointed_to;
use crate::{
    cluster::{Failure, Lsn, NodeId},
    config::settings,
    monitor::{
        Monitor,
        connection::{As, Problem, within},
    },
};

/// Ours may write while others may not, and waits for no other node.
const OPTIONS: &str = "-c search_path=pg_catalog -c default_transaction_read_only=off \
     -c synchronous_commit=local -c statement_timeout=0 -c lock_timeout=0 -c jit=off";
/// As any session would have it.
const PLAIN: &str = "-c search_path=pg_catalog -c statement_timeout=0";
/// Between two looks at something that is about to happen.
const LOOK: Duration = Duration::from_millis(3);
/// A command that takes longer is ended.
const COMMAND: Duration = Duration::from_secs(60);

/// Sessions that may write: not ours, not those that replicas stream from.
const FOREIGN: &str = "FROM pg_stat_activity WHERE backend_type = 'client backend'
    AND pid <> pg_backend_pid() AND application_name NOT IN ('pgsplit monitor', 'pgsplit failover')";

/// A node and who acts on it.
pub(super) struct Hand {
    pub(super) node: NodeId,
    client: Client,
    _driver: AbortOnDropHandle<()>,
}

/// What was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// All that was written is below this.
    pub(super) lsn: Lsn,
    /// No transaction of a higher number has written.
    xid: i64,
}

/// What a replica tells when a failover is decided.
#[derive(Clone, Debug)]
pub(super) struct Testimony {
    pub(super) received: Option<Lsn>,
    pub(super) hears: bool,
    /// What it streams from, as its settings name it.
    pub(super) from: Option<(String, u16)>,
}

impl Hand {
    /// Logs in. Cancel safe.
    pub(super) async fn open(
        monitor: &Monitor,
        node: NodeId,
        by: &settings::Failover,
        deadline: Instant,
    ) -> Result<Self, Problem> {
        let (client, driver) = login(monitor, node, by, OPTIONS, deadline).await?;
        Ok(Self {
            node,
            client,
            _driver: driver,
        })
    }

    /// What speaks against fencing this primary: rights that are missing, sessions that wouldn't
    /// heed the fence.
    pub(super) async fn obstacle(&self) -> Result<Option<String>, Problem> {
        let row = self
            .client
            .query_one(
                "SELECT current_setting('server_version_num')::int4,
                    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
                    has_function_privilege('pg_reload_conf()', 'execute'),
                    pg_has_role('pg_signal_backend', 'USAGE') AND pg_has_role('pg_read_all_stats', 'USAGE'),
                    (SELECT string_agg(DISTINCT coalesce(r.rolname, d.datname), ', ')
                        FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole
                        LEFT JOIN pg_database d ON d.oid = s.setdatabase
                        WHERE EXISTS (SELECT FROM unnest(s.setconfig) c
                            WHERE c ~* '^default_transaction_read_only='))",
                &[],
            )
            .await?;
        let version: i32 = row.try_get(0)?;
        let (superuser, reload): (bool, bool) = (row.try_get(1)?, row.try_get(2)?);
        let signal: bool = row.try_get(3)?;
        let overriding: Option<String> = row.try_get(4)?;
        if let Some(who) = overriding {
            return Ok(Some(format!(
                "default_transaction_read_only is set for {who}, who would not be kept from writing: \
                 ALTER ROLE or ALTER DATABASE … RESET it"
            )));
        }
        let alter = superuser
            || version >= 150_000
                && self
                    .client
                    .query_one(
                        "SELECT has_parameter_privilege('default_transaction_read_only', 'ALTER SYSTEM')",
                        &[],
                    )
                    .await?
                    .try_get(0)?;
        if !(alter && (superuser || reload && signal)) {
            return Ok(Some(
                "failover.user may not fence it: it must be a superuser, or (PostgreSQL 15) have ALTER \
                 SYSTEM on default_transaction_read_only, EXECUTE on pg_reload_conf(), \
                 pg_signal_backend and pg_read_all_stats"
                    .to_owned(),
            ));
        }
        Ok(None)
    }

    /// What speaks against promoting this replica.
    pub(super) async fn shortcoming(&self, by_command: bool) -> Result<Option<String>, Problem> {
        let version = self.version().await?;
        if version < 120_000 && !by_command {
            return Ok(Some(
                "it can be promoted by SQL since PostgreSQL 12 only: give failover.command"
                    .to_owned(),
            ));
        }
        let row = self
            .client
            .query_one(
                "SELECT pg_is_in_recovery(), has_function_privilege('pg_promote(boolean, integer)', 'execute'),
                    pg_is_wal_replay_paused(),
                    (SELECT count(*) = 0 FROM pg_stat_get_wal_receiver() w WHERE w.pid IS NOT NULL)",
                &[],
            )
            .await?;
        let (recovering, may, paused, alone): (bool, bool, bool, bool) = (
            row.try_get(0)?,
            row.try_get(1)?,
            row.try_get(2)?,
            row.try_get(3)?,
        );
        Ok(if !recovering {
            Some("it is no replica".to_owned())
        } else if !may && !by_command {
            Some(
                "failover.user may not promote it: GRANT EXECUTE ON FUNCTION pg_promote".to_owned(),
            )
        } else if paused {
            Some("its replay is paused: pg_wal_replay_resume()".to_owned())
        } else if alone {
            Some("it isn't connected to the primary".to_owned())
        } else {
            None
        })
    }

    async fn version(&self) -> Result<i32, Problem> {
        let sql = "SELECT current_setting('server_version_num')::int4";
        Ok(self.client.query_one(sql, &[]).await?.try_get(0)?)
    }

    /// Tells the node to refuse writes, or no longer to, and waits until every session that begins
    /// from now on does. When that was, by the node's clock.
    pub(super) async fn set_fence(
        &self,
        up: bool,
        monitor: &Monitor,
        by: &settings::Failover,
        deadline: Instant,
    ) -> Result<String, Problem> {
        // Each by itself: ALTER SYSTEM can't be in a transaction.
        self.client
            .batch_execute(if up {
                "ALTER SYSTEM SET default_transaction_read_only = 'on'"
            } else {
                "ALTER SYSTEM RESET default_transaction_read_only"
            })
            .await?;
        self.client.batch_execute("SELECT pg_reload_conf()").await?;
        loop {
            // A server process that is made now has what the postmaster has read. Those that it had
            // made before have been told: their next transaction is the first to heed it.
            let (plain, _driver) = login(monitor, self.node, by, PLAIN, deadline).await?;
            let row = plain
                .query_one(
                    "SELECT current_setting('default_transaction_read_only') = 'on',
                        clock_timestamp()::text",
                    &[],
                )
                .await?;
            if row.try_get::<_, bool>(0)? == up {
                return Ok(row.try_get(1)?);
            }
            sleep(LOOK).await;
        }
    }

    /// A fence that an earlier operation left here is lifted, so that this node takes writes once it
    /// is the primary.
    pub(super) async fn clear_fence(
        &self,
        monitor: &Monitor,
        by: &settings::Failover,
        deadline: Instant,
    ) -> Result<bool, Problem> {
        let (plain, _driver) = login(monitor, self.node, by, PLAIN, deadline).await?;
        let sql = "SELECT current_setting('default_transaction_read_only') = 'on'";
        let left: bool = plain.query_one(sql, &[]).await?.try_get(0)?;
        if left {
            self.set_fence(false, monitor, by, deadline).await?;
        }
        Ok(left)
    }

    /// Waits until the transactions that began before `moment` have ended, then ends the sessions
    /// that did: none is left that may not know of the fence.
    pub(super) async fn cut(&self, moment: &str) -> Result<(), Problem> {
        let running = format!(
            "SELECT count(*) {FOREIGN} AND xact_start < $1::text::timestamptz \
             AND backend_start < $1::text::timestamptz"
        );
        let old = format!(
            "SELECT count(pg_terminate_backend(pid)) {FOREIGN} \
             AND backend_start < $1::text::timestamptz"
        );
        for question in [running, old] {
            let statement = self.client.prepare(&question).await?;
            loop {
                let row = self.client.query_one(&statement, &[&moment]).await?;
                if row.try_get::<_, i64>(0)? == 0 {
                    break;
                }
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Writes a mark behind everything that was written.
    pub(super) async fn mark(&self) -> Result<Mark, Problem> {
        let sql = "SELECT txid_current(), pg_logical_emit_message(true, 'pgsplit', 'fenced')::text";
        let xid: i64 = self.client.query_one(sql, &[]).await?.try_get(0)?;
        // Its commit has flushed all that is before it.
        let sql = "SELECT pg_current_wal_flush_lsn()";
        Ok(Mark {
            lsn: lsn(self.client.query_one(sql, &[]).await?.try_get(0)?),
            xid,
        })
    }

    /// Whether nothing was written behind the mark, and nobody is about to. Sessions that are, are
    /// ended.
    pub(super) async fn is_quiet(&self, since: Mark) -> Result<bool, Problem> {
        let sql = format!(
            "SELECT txid_snapshot_xmax(txid_current_snapshot()),
                (SELECT count(pg_terminate_backend(pid)) {FOREIGN} AND backend_xid IS NOT NULL)"
        );
        let row = self.client.query_one(&sql, &[]).await?;
        Ok(row.try_get::<_, i64>(0)? == since.xid + 1 && row.try_get::<_, i64>(1)? == 0)
    }

    /// What a replica has replayed.
    pub(super) async fn replayed(&self) -> Result<Option<Lsn>, Problem> {
        let sql = "SELECT pg_last_wal_replay_lsn()";
        let row = self.client.query_one(sql, &[]).await?;
        Ok(row.try_get::<_, Option<_>>(0)?.map(lsn))
    }

    /// Waits until a replica has replayed up to here.
    pub(super) async fn catch_up(&self, to: Lsn) -> Result<Lsn, Problem> {
        loop {
            if let Some(lsn) = self.replayed().await?.filter(|lsn| lsn.reached(to)) {
                return Ok(lsn);
            }
            sleep(LOOK).await;
        }
    }

    /// Orders the promotion, without waiting for it. Err of an answer: surely not begun.
    pub(super) async fn promote(&self) -> Result<(), Problem> {
        let row = self
            .client
            .query_one("SELECT pg_promote(false)", &[])
            .await?;
        if row.try_get(0)? {
            Ok(())
        } else {
            Err(Problem::new(Failure::Protocol))
        }
    }

    /// Waits until the node says that it is a primary.
    pub(super) async fn become_primary(&self) -> Result<(), Problem> {
        let statement = self.client.prepare("SELECT pg_is_in_recovery()").await?;
        while self.client.query_one(&statement, &[]).await?.try_get(0)? {
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// What the replica has received, and whether it still hears from the primary: its receiver
    /// streams, and has heard of the primary within the time in which it would.
    pub(super) async fn testimony(&self) -> Result<Testimony, Problem> {
        let row = self
            .client
            .query_one(
                "SELECT GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()),
                    (SELECT w.status IS NULL OR w.status = 'streaming' AND coalesce(
                        w.last_msg_receipt_time > clock_timestamp() - (SELECT
                            setting::int4 / 2 * interval '1 ms' + interval '1 s' FROM pg_settings
                            WHERE name = 'wal_receiver_timeout' AND setting <> '0'), true)
                        FROM pg_stat_get_wal_receiver() w WHERE w.pid IS NOT NULL),
                    (SELECT w.sender_host FROM pg_stat_get_wal_receiver() w WHERE w.status = 'streaming'),
                    (SELECT w.sender_port FROM pg_stat_get_wal_receiver() w WHERE w.status = 'streaming')",
                &[],
            )
            .await?;
        let (host, port): (Option<String>, Option<i32>) = (row.try_get(2)?, row.try_get(3)?);
        Ok(Testimony {
            received: row.try_get::<_, Option<_>>(0)?.map(lsn),
            hears: row.try_get::<_, Option<bool>>(1)?.unwrap_or(false),
            from: host.zip(port.and_then(|port| u16::try_from(port).ok())),
        })
    }

    /// Points a replica to another primary, and waits until it streams its timeline.
    pub(super) async fn follow(
        &self,
        primary: &Self,
        at: (&str, u16),
        timeline: u32,
    ) -> Result<(), Problem> {
        self.point(primary, at).await?;
        self.streams(timeline).await
    }

    async fn point(&self, primary: &Self, at: (&str, u16)) -> Result<(), Problem> {
        let row = self
            .client
            .query_one(
                "SELECT current_setting('primary_conninfo'), current_setting('primary_slot_name'),
                    pg_is_in_recovery()",
                &[],
            )
            .await?;
        let (conninfo, slot): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        if !row.try_get::<_, bool>(2)? {
            return Err(Problem {
                failure: Failure::Protocol,
                text: "it is no replica".to_owned(),
            });
        }
        let Some(conninfo) = pointed_to(conninfo, at.0, at.1) else {
            return Err(Problem {
                failure: Failure::Protocol,
                text: "its primary_conninfo can't be read".to_owned(),
            });
        };
        if !slot.is_empty() {
            let sql = "SELECT pg_create_physical_replication_slot($1, true)::text
                WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)";
            primary.client.query(sql, &[&slot]).await?;
        }
        let literal = conninfo.replace('\'', "''");
        // With a backslash in it a plain literal means the same: standard_conforming_strings.
        self.client
            .batch_execute(&format!("ALTER SYSTEM SET primary_conninfo = '{literal}'"))
            .await?;
        self.client.batch_execute("SELECT pg_reload_conf()").await?;
        Ok(())
    }

    /// Waits until a replica streams this timeline.
    pub(super) async fn streams(&self, timeline: u32) -> Result<(), Problem> {
        let timeline = timeline.cast_signed();
        let sql = "SELECT count(*) FROM pg_stat_get_wal_receiver() w WHERE w.status = 'streaming'
            AND GREATEST(w.receive_start_tli, w.received_tli) >= $1";
        let statement = self.client.prepare(sql).await?;
        while self
            .client
            .query_one(&statement, &[&timeline])
            .await?
            .try_get::<_, i64>(0)?
            == 0
        {
            sleep(LOOK * 10).await;
        }
        Ok(())
    }
}

async fn login(
    monitor: &Monitor,
    node: NodeId,
    by: &settings::Failover,
    options: &str,
    deadline: Instant,
) -> Result<(Client, AbortOnDropHandle<()>), Problem> {
    let node = monitor
        .watched(node)
        .ok_or(Problem::new(Failure::Connect))?;
    let whom = As {
        user: &by.user,
        password: by.password.as_ref().map(|password| &*password.0),
        database: None,
        application_name: "pgsplit failover",
        options,
    };
    node.target.login_as(whom, deadline).await
}

/// Runs `failover.command` with these arguments.
pub(super) async fn run(
    command: &std::path::Path,
    arguments: &[&str],
    deadline: Instant,
) -> Result<(), Problem> {
    let problem = |text| Problem {
        failure: Failure::Protocol,
        text,
    };
    let mut program = tokio::process::Command::new(command);
    program
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let work = async {
        program
            .status()
            .await
            .map_err(|error| problem(format!("{}: {error}", command.display())))
    };
    let status = within(deadline.min(Instant::now() + COMMAND), work).await?;
    if status.success() {
        Ok(())
    } else {
        Err(problem(format!("{}: {status}", command.display())))
    }
}

fn lsn(lsn: tokio_postgres::types::PgLsn) -> Lsn {
    Lsn(lsn.into())
}
