//! Many sessions at once over few server connections: each has settings, a role and a search path of
//! its own, changes them in every way, and must never see another's, on whichever node.
//!
//! `PGSPLIT_ISOLATION_ROUNDS` for more than a test run can afford.

use fastrand::Rng;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{Proxy, cluster, run, unique};

const SESSIONS: u64 = 20;
const ROLES: u32 = 3;

/// What a session must find.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    work_mem: String,
    timezone: String,
    search_path: String,
    tenant: String,
    /// `None`: none.
    role: Option<String>,
    authorization: String,
}

impl State {
    fn fresh(user: &str) -> Self {
        Self {
            work_mem: "4MB".to_owned(),
            timezone: "UTC".to_owned(),
            search_path: "\"$user\", public".to_owned(),
            tenant: String::new(),
            role: None,
            authorization: user.to_owned(),
        }
    }

    fn row(&self) -> Vec<String> {
        let user = self.role.as_ref().unwrap_or(&self.authorization);
        [
            &self.work_mem,
            &self.timezone,
            &self.search_path,
            &self.tenant,
            user,
            &self.authorization,
        ]
        .map(Clone::clone)
        .to_vec()
    }
}

const CHECK: &str = "select current_setting('work_mem'), current_setting('TimeZone'), \
     current_setting('search_path'), coalesce(current_setting('app.tenant', true), ''), \
     current_user, session_user";

struct Session<'a> {
    client: Client,
    name: String,
    boss: &'a str,
    state: State,
    rng: Rng,
}

impl Session<'_> {
    async fn say(&self, sql: &str) {
        if let Err(error) = self.client.simple_query(sql).await {
            panic!("{}: {sql}: {error:?}", self.name);
        }
    }

    /// Looks at itself where it happens to be sent.
    async fn check(&mut self, after: &str) {
        let route =
            ["", "/* pgsplit: primary */ ", "/* pgsplit: replica */ "][self.rng.usize(0..3)];
        let sql = format!("{route}{CHECK}");
        let row: Vec<String> = if self.rng.bool() {
            let messages = self.client.simple_query(&sql).await.unwrap();
            let row = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let row = row.unwrap();
            (0..row.len())
                .map(|at| row.get(at).unwrap_or_default().to_owned())
                .collect()
        } else {
            let row = self.client.query_one(&sql, &[]).await.unwrap();
            (0..row.len())
                // The last two are of type name.
                .map(|at| row.get::<_, &str>(at).to_owned())
                .collect()
        };
        assert_eq!(row, self.state.row(), "{} after {after}", self.name);
    }

    /// One change, and what it does to the state.
    fn change(&mut self) -> (String, State) {
        let mut next = self.state.clone();
        let number = self.rng.u32(64..9999);
        let sql = match self.rng.u32(0..11) {
            0 => {
                next.work_mem = format!("{number}kB");
                format!("set work_mem = '{number}kB'")
            }
            1 => {
                next.work_mem = format!("{number}kB");
                format!("do $$ begin perform set_config('work_mem', '{number}kB', false); end $$")
            }
            2 => {
                next.timezone =
                    ["Asia/Tokyo", "Europe/Rome", "America/Lima"][self.rng.usize(0..3)].to_owned();
                format!("set time zone '{}'", next.timezone)
            }
            3 => {
                next.search_path = format!("s{number}, public");
                format!("set search_path = s{number}, public")
            }
            4 | 5 => {
                next.tenant = format!("{} {number}", self.name);
                format!("select set_config('app.tenant', '{}', false)", next.tenant)
            }
            6 if next.authorization == self.boss => {
                let role = format!("{}_{}", self.boss, self.rng.u32(0..ROLES));
                let sql = format!("set role {role}");
                next.role = Some(role);
                sql
            }
            7 => {
                next.authorization = format!("{}_{}", self.boss, self.rng.u32(0..ROLES));
                next.role = None;
                format!("set session authorization {}", next.authorization)
            }
            8 => {
                next.role = None;
                "reset role".to_owned()
            }
            9 => {
                let fresh = State::fresh(self.boss);
                next.work_mem = fresh.work_mem;
                next.timezone = fresh.timezone;
                next.search_path = fresh.search_path;
                next.tenant = fresh.tenant;
                "reset all".to_owned()
            }
            _ => {
                next.authorization = self.boss.to_owned();
                next.role = None;
                "reset session authorization".to_owned()
            }
        };
        (sql, next)
    }

    async fn round(&mut self) {
        let (sql, next) = self.change();
        match self.rng.u32(0..5) {
            // In a transaction that is rolled back: nothing has changed.
            0 => {
                let before = self.state.clone();
                self.say("begin").await;
                self.say(&sql).await;
                self.state = next;
                self.check(&format!("{sql} in a transaction")).await;
                self.say("rollback").await;
                self.state = before;
                self.check(&format!("{sql} rolled back")).await;
            }
            1 => {
                self.say("begin").await;
                self.say("savepoint a").await;
                self.say("set work_mem = '77kB'").await;
                self.say("rollback to a").await;
                self.say(&sql).await;
                self.say("commit").await;
                self.state = next;
                self.check(&format!("{sql} committed")).await;
            }
            // The same text fails behind it.
            2 => {
                let failing = format!("{sql}; select 1 / 0");
                assert!(self.client.simple_query(&failing).await.is_err());
                self.check(&failing).await;
            }
            _ => {
                self.say(&sql).await;
                self.state = next;
                self.check(&sql).await;
            }
        }
        if self.rng.u32(0..8) == 0 {
            self.say("discard all").await;
            self.state = State::fresh(self.boss);
            self.check("discard all").await;
        }
    }
}

#[test]
fn sessions_that_share_server_connections_never_see_each_others_state() {
    let rounds = std::env::var("PGSPLIT_ISOLATION_ROUNDS")
        .map_or(12, |rounds| rounds.parse::<u32>().unwrap());
    run(async move {
        let cluster = cluster();
        let boss = unique("boss");
        let mut sql = format!("create role {boss} login superuser password '{boss}';");
        for number in 0..ROLES {
            sql.push_str(&format!("create role {boss}_{number};"));
        }
        cluster.psql(0, &sql).unwrap();
        let settings = format!(
            "[pool]\nmax_size = 2\nacquire_timeout = \"60s\"\n\
             [[user]]\nname = \"app\"\npassword = \"app\"\n\
             [[user]]\nname = \"{boss}\"\npassword = \"{boss}\"\n"
        );
        let proxy = Proxy::start(cluster, &settings).await;
        let mut sessions = Vec::new();
        for number in 0..SESSIONS {
            sessions.push(Session {
                client: proxy.connect(&boss, "app").await,
                name: format!("session {number}"),
                boss: &boss,
                state: State::fresh(&boss),
                rng: Rng::with_seed(number),
            });
        }
        let work = sessions.iter_mut().map(async |session| {
            for _ in 0..rounds {
                session.round().await;
            }
        });
        futures_util::future::join_all(work).await;
        drop(sessions);
        for node in 1..3 {
            let name = &cluster.nodes()[node].name;
            let ran = proxy.metric("pgsplit_queries_total", &[&format!("node=\"{name}\"")]);
            assert!(ran > 0.0, "nothing ran on {name}");
        }
    });
}
