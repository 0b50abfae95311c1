//! Runs a script on both sides and tells the first difference.

use std::time::Duration;

use super::script::Message;
use crate::support::{Cluster, Frame, Options, Proxy, Raw, own_cluster_with};

/// A cluster whose replicas are never behind, a proxy before it, and two databases of equal
/// content: `app` is used through the proxy, `other` directly.
pub(super) struct Pair {
    proxy: Proxy,
    cluster: Cluster,
    noise: tokio_postgres::Client,
    /// Connections of their own to both databases.
    owners: [tokio_postgres::Client; 2],
}

/// What a side answered.
struct Answer {
    frames: Vec<Frame>,
    /// How many frames had come when each wait ended.
    waits: Vec<usize>,
    /// Something didn't come in time.
    stalled: bool,
    closed: bool,
}

/// A side that says nothing for so long has nothing to say.
const QUIET: Duration = Duration::from_millis(12);
/// How long the proxy has for what the primary has said.
const PATIENCE: Duration = Duration::from_millis(2500);

const OBJECTS: &str = "\
create table t (a int primary key, b text); \
create table u (a serial, b text); \
create schema other; \
create table other.t (a int, b text); \
insert into other.t values (100, 'hidden'); \
create view v as select a, b from t where a < 3; \
create procedure p(x int) language plpgsql as $$ begin insert into u (b) values (x); commit; end $$; \
create function w(x int) returns int language plpgsql as $$ begin insert into u (b) values (x); return x; end $$; \
grant all on t, u, other.t, v to reader; grant usage on schema other to reader;";

const CONTENT: &str = "\
begin; \
drop table if exists n; alter table t drop column if exists c; \
truncate t, u restart identity; \
insert into t select g, 'row ' || g from generate_series(1, 5) g; \
insert into u (b) values ('one'), ('two'); \
commit;";

/// What a session's startup packet asks for.
pub(super) type Startup = &'static [(&'static str, &'static str)];

fn started(database: &'static str, startup: Startup) -> Vec<(&'static str, &'static str)> {
    [&[("user", "app"), ("database", database)], startup].concat()
}

/// Sent at the end of each script: whatever it left open ends, and its session is looked at.
fn epilogue() -> Vec<Message> {
    let query = |sql: &str| Message::Query(sql.to_owned());
    vec![
        Message::CopyFail,
        Message::Sync,
        Message::Wait,
        query("rollback"),
        query("select a, b from public.t order by a"),
        query("select b from public.u order by a"),
        query(
            "select name, setting from pg_settings where name in ('work_mem', 'application_name', \
             'search_path', 'TimeZone', 'DateStyle', 'IntervalStyle', 'client_encoding', \
             'standard_conforming_strings', 'bytea_output', 'default_transaction_read_only', \
             'default_transaction_isolation', 'extra_float_digits', 'client_min_messages', \
             'statement_timeout') order by name",
        ),
        query("select nullif(current_setting('app.x', true), ''), current_user, session_user"),
        query("select name from pg_cursors order by name"),
        query("select name from pg_prepared_statements where from_sql order by name"),
        query("select pg_listening_channels()"),
        query(
            "select classid, objid from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
        ),
        query("select 'the end'"),
    ]
}

impl Pair {
    pub(super) async fn start() -> Self {
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let cluster = own_cluster_with(&Options {
            replicas: 2,
            settings: vec![
                setting("synchronous_commit", "remote_apply"),
                setting("wal_receiver_status_interval", "1s"),
                setting("autovacuum", "off"),
                setting(
                    "log_statement",
                    if std::env::var_os("PGSPLIT_DIFFER_LOG").is_some() {
                        "all"
                    } else {
                        "none"
                    },
                ),
            ],
            ..Options::default()
        });
        // Not before there are any: the template is made without.
        cluster
            .set(0, "synchronous_standby_names", "FIRST 2 (pg2, pg3)")
            .unwrap();
        cluster
            .psql(0, "create role reader; grant reader to app")
            .unwrap();
        let proxy = Proxy::launch(
            &cluster,
            "[pool]\nmax_size = 2\n[monitor]\ninterval = \"250ms\"\n",
        )
        .await;
        let owner = async |database| {
            let mut config = proxy.config("app", database);
            config.options("-c client_min_messages=error");
            let address = ("127.0.0.1", cluster.nodes()[0].port);
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (client, connection) = config
                .connect_raw(stream, tokio_postgres::NoTls)
                .await
                .unwrap();
            tokio::spawn(connection);
            client.batch_execute(OBJECTS).await.unwrap();
            client
        };
        let pair = Self {
            noise: proxy.connect("app", "app").await,
            owners: [owner("app").await, owner("other").await],
            proxy,
            cluster,
        };
        pair.reset().await;
        pair
    }

    /// Both databases as they were.
    async fn reset(&self) {
        for owner in &self.owners {
            owner.batch_execute(CONTENT).await.unwrap();
        }
    }

    /// Runs the script on both sides, in sessions that begin with these parameters. What is different,
    /// if anything is.
    pub(super) async fn difference(&self, script: &[Message], startup: Startup) -> Option<String> {
        let script = [script, &epilogue()].concat();
        let port = self.cluster.nodes()[0].port;
        let direct = self
            .answer(port, &started("other", startup), &script, None)
            .await;
        let proxied = self
            .answer(
                self.proxy.port,
                &started("app", startup),
                &script,
                Some(&direct),
            )
            .await;
        if script.iter().any(Message::may_write) {
            self.reset().await;
        }
        differ(&direct, &proxied)
    }

    /// The script without what the difference doesn't need.
    pub(super) async fn shortened(
        &self,
        mut script: Vec<Message>,
        startup: Startup,
        mut difference: String,
    ) -> (Vec<Message>, String) {
        let mut size = script.len() / 2;
        while size > 0 {
            let mut at = 0;
            while at < script.len() {
                let mut shorter = script.clone();
                shorter.drain(at..(at + size).min(script.len()));
                match self.difference(&shorter, startup).await {
                    Some(found) => (script, difference) = (shorter, found),
                    None => at += size,
                }
            }
            size /= 2;
        }
        (script, difference)
    }

    /// What one side answers. Waits for as many frames as `like` had, if given.
    async fn answer(
        &self,
        port: u16,
        parameters: &[(&str, &str)],
        script: &[Message],
        like: Option<&Answer>,
    ) -> Answer {
        let mut raw = Raw::connect_with(port, 196_608, parameters).await.unwrap();
        let mut answer = Answer {
            frames: Vec::new(),
            waits: Vec::new(),
            stalled: false,
            closed: false,
        };
        answer
            .frames
            .extend(raw.greeting.drain(..).filter(|frame| frame.tag == 'S'));
        let (mut bytes, mut ready, mut answered) = (Vec::new(), 0, false);
        let waits = like.map(|like| like.waits.as_slice());
        for message in script {
            if *message != Message::Wait {
                bytes.extend(message.bytes());
                answered = message.is_answered();
                ready += usize::from(message.is_answered_by_ready());
                continue;
            }
            if !answered {
                continue;
            }
            if raw.try_send(&std::mem::take(&mut bytes)).await.is_err() {
                break;
            }
            let goal = waits.and_then(|waits| waits.get(answer.waits.len()).copied());
            match goal {
                Some(goal) => {
                    gather(&mut raw, &mut answer, PATIENCE, |frames| {
                        frames.len() >= goal
                    })
                    .await;
                    if answer.frames.len() < goal && !answer.closed {
                        answer.stalled = true;
                        return answer;
                    }
                }
                None => {
                    gather(&mut raw, &mut answer, QUIET, |frames| {
                        frames.iter().filter(|frame| frame.tag == 'Z').count() >= ready
                    })
                    .await;
                }
            }
            answer.waits.push(answer.frames.len());
            if like.is_some() {
                self.make_noise().await;
            }
        }
        let _closed = raw.try_send(&bytes).await;
        gather(&mut raw, &mut answer, PATIENCE, at_the_end).await;
        answer.stalled = !answer.closed && !at_the_end(&answer.frames);
        answer
    }

    /// Another session takes its turn on the same server connections.
    async fn make_noise(&self) {
        let turn = self.noise.batch_execute(
            "set application_name = 'noise'; set work_mem = '9MB'; set datestyle = 'SQL'",
        );
        let _busy = tokio::time::timeout(Duration::from_millis(200), turn).await;
    }
}

fn at_the_end(frames: &[Frame]) -> bool {
    let mut last = frames.iter().rev();
    last.next().is_some_and(|frame| frame.tag == 'Z')
        && last.next().is_some_and(|frame| frame.tag == 'C')
        && last
            .next()
            .is_some_and(|frame| frame.tag == 'D' && frame.body.ends_with(b"the end"))
}

/// Takes frames until there are enough, or none has come for `patience`, or the connection ends.
async fn gather(
    raw: &mut Raw,
    answer: &mut Answer,
    patience: Duration,
    enough: impl Fn(&[Frame]) -> bool,
) {
    while !enough(&answer.frames) {
        match tokio::time::timeout(patience, raw.next()).await {
            Ok(Some(frame)) => answer.frames.push(frame),
            Ok(None) => {
                answer.closed = true;
                return;
            }
            Err(_quiet) => return,
        }
    }
}

/// The first difference, with what came before it.
fn differ(direct: &Answer, proxied: &Answer) -> Option<String> {
    let of = |answer: &Answer| {
        let mut shown: Vec<Frame> = answer.frames.iter().map(comparable).collect();
        if answer.closed {
            shown.push(Frame {
                tag: '!',
                body: b"closed".to_vec(),
            });
        }
        if answer.stalled {
            shown.push(Frame {
                tag: '!',
                body: b"stalled".to_vec(),
            });
        }
        shown
    };
    let (direct, proxied) = (of(direct), of(proxied));
    if direct == proxied {
        return None;
    }
    let same = direct
        .iter()
        .zip(&proxied)
        .take_while(|(a, b)| a == b)
        .count();
    let part = |frames: &[Frame]| {
        let from = same.saturating_sub(3);
        let shown: Vec<String> = frames
            .iter()
            .skip(from)
            .take(same - from + 4)
            .map(|frame| {
                let text = format!("{frame:?}");
                text.chars().take(230).collect()
            })
            .collect();
        shown.join("\n      ")
    };
    Some(format!(
        "  direct:\n      {}\n  through pgsplit:\n      {}",
        part(&direct),
        part(&proxied)
    ))
}

/// Without what differs by its nature: tables' OIDs, process ids.
fn comparable(frame: &Frame) -> Frame {
    let mut frame = frame.clone();
    match frame.tag {
        'T' => {
            let mut at = 2;
            while let Some(end) = frame.body.iter().skip(at).position(|byte| *byte == 0) {
                at += end + 1;
                frame.body[at..at + 4].fill(0);
                at += 18;
            }
        }
        'A' => frame.body[..4].fill(0),
        // In a failed transaction a Bind fails where pgsplit has to parse its statement first, with
        // the same words from another place in the server.
        'E' if frame.field('C') == "25P02" => {
            let fields = frame.body.split(|byte| *byte == 0);
            let kept = fields.filter(|field| !matches!(field.first(), Some(b'F' | b'L' | b'R')));
            frame.body = kept.collect::<Vec<_>>().join(&0);
        }
        _ => {}
    }
    frame
}
