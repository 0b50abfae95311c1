//! What belongs to a session stays with it, over however many server connections it goes.

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

use crate::support::{
    Frame, Proxy, Raw, cluster, eventually,
    message::{extended, query},
    own_cluster, run, sqlstate, tags, unique,
};

/// The first column of the first row of the last statement that gave one.
async fn value(client: &Client, sql: &str) -> String {
    let messages = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    messages
        .iter()
        .rev()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
            _ => None,
        })
        .unwrap_or_else(|| panic!("{sql}: no row"))
}

const PRIMARY: &str = "/* pgsplit: primary */ ";

#[test]
fn settings_stay_with_their_session_on_every_node() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let tokyo = proxy.connect("app", "app").await;
        let other = proxy.connect("app", "app").await;
        tokyo
            .batch_execute("set timezone = 'Asia/Tokyo'; set datestyle = 'German'")
            .await
            .unwrap();
        for _ in 0..5 {
            for node in ["", PRIMARY] {
                let sql = format!("{node}select '2020-01-01 00:00Z'::timestamptz::text");
                assert_eq!(value(&tokyo, &sql).await, "01.01.2020 09:00:00 JST");
                assert_eq!(value(&other, &sql).await, "2020-01-01 00:00:00+00");
            }
        }
        assert_eq!(value(&tokyo, "show timezone").await, "Asia/Tokyo");
        assert_eq!(value(&other, "show timezone").await, "UTC");
        tokyo.batch_execute("reset timezone").await.unwrap();
        assert_eq!(value(&tokyo, "show timezone").await, "UTC");
        assert_eq!(value(&tokyo, "show datestyle").await, "German, DMY");
        tokyo.batch_execute("discard all").await.unwrap();
        assert_eq!(value(&tokyo, "show datestyle").await, "ISO, MDY");
    });
}

/// A replica refuses SERIALIZABLE: whoever gets the connection of a session that asked for it must
/// not hear of that.
#[test]
fn a_session_that_wants_serializable_spoils_no_connection_for_others() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let wants = "set default_transaction_isolation = 'serializable'";
        for number in 0..4 {
            let client = proxy.connect("app", "app").await;
            client.batch_execute(wants).await.unwrap();
            value(&client, "show work_mem").await;
            let mut config = proxy.config("app", "app");
            config.application_name(format!("name {number}"));
            config.options("-c search_path=a,public -c datestyle=german");
            let (other, connection) = config.connect(NoTls).await.unwrap();
            tokio::spawn(connection);
            let name = value(&other, "select current_setting('application_name')").await;
            assert_eq!(name, format!("name {number}"));
            other.batch_execute("reset all").await.unwrap();
            value(&client, "show work_mem").await;
            client.batch_execute("reset all").await.unwrap();
        }
    });
}

#[test]
fn what_code_out_of_sight_resets_goes_back_to_what_the_session_asked_for() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let parameters = [
            ("user", "app"),
            ("database", "app"),
            ("timezone", "Asia/Tokyo"),
        ];
        let mut raw = Raw::connect_with(proxy.port, 196_608, &parameters)
            .await
            .unwrap();
        raw.query("set timezone to 'Europe/Rome'").await;
        raw.query("set app.tenant to 'mine'").await;
        let clears = "do $$ begin perform set_config('app.tenant', '', false); end $$";
        raw.query(&format!("reset timezone; {clears}")).await;
        let frames = raw
            .query("select 'is' || current_setting('app.tenant')")
            .await;
        let row = frames.iter().find(|frame| frame.tag == 'D').unwrap();
        assert!(row.body.ends_with(b"\x02is"), "{row:?}");
        raw.query("set timezone to 'Europe/Rome'").await;
        raw.query("do $$ begin reset timezone; end $$").await;
        let frames = raw.query("show timezone").await;
        let told: Vec<&Frame> = frames.iter().filter(|frame| frame.tag == 'S').collect();
        assert_eq!(told.last().unwrap().body, b"TimeZone\0Asia/Tokyo\0");
        let row = frames.iter().find(|frame| frame.tag == 'D').unwrap();
        assert!(row.body.ends_with(b"Asia/Tokyo"), "{row:?}");
    });
}

/// ALTER ROLE and ALTER DATABASE, through pgsplit or past it: whoever comes then has what they say,
/// on every node; whoever was there goes on with what they were told.
#[test]
fn sessions_begin_with_what_their_role_and_database_say() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "[pool]\nmax_size = 4").await;
        let zone = |raw: &Raw| {
            let reported = raw.greeting.iter().filter(|frame| frame.tag == 'S');
            let zone = reported.map(|frame| String::from_utf8(frame.body.clone()).unwrap());
            zone.into_iter().find(|text| text.starts_with("TimeZone\0"))
        };
        let parts = "select current_setting('work_mem') || ' ' || current_setting('timezone')";
        let everywhere = async |raw: &mut Raw, expected: &str| {
            // One connection of each pool, and another while that is taken.
            let mut found = Vec::new();
            for sql in [format!("{PRIMARY}{parts}"), parts.to_owned()] {
                let rows = raw.query(&sql).await;
                let row = rows.iter().find(|frame| frame.tag == 'D').unwrap();
                found.push(String::from_utf8_lossy(&row.body[6..]).into_owned());
            }
            found == [expected, expected]
        };
        let mut old = Raw::connect(proxy.port).await;
        assert_eq!(zone(&old).as_deref(), Some("TimeZone\0UTC\0"));
        assert!(everywhere(&mut old, "4MB UTC").await);
        // Several connections of each pool have what was.
        let busy = futures_util::future::join_all((0..4).map(async |_| {
            let mut raw = Raw::connect(proxy.port).await;
            raw.query("/* pgsplit: primary */ select pg_sleep(0.05)")
                .await;
            raw.query("select pg_sleep(0.05)").await;
        }));
        busy.await;
        let altering = proxy.connect("app", "app").await;
        altering
            .batch_execute("alter database app set timezone = 'Asia/Tokyo'")
            .await
            .unwrap();
        let mut new = Raw::connect(proxy.port).await;
        assert_eq!(zone(&new).as_deref(), Some("TimeZone\0Asia/Tokyo\0"));
        eventually("the replica has it, too", async || {
            let mut new = Raw::connect(proxy.port).await;
            everywhere(&mut new, "4MB Asia/Tokyo").await
        })
        .await;
        assert!(everywhere(&mut new, "4MB Asia/Tokyo").await);
        assert!(everywhere(&mut old, "4MB UTC").await);
        old.query("reset all").await;
        assert!(everywhere(&mut old, "4MB UTC").await);

        cluster
            .psql(0, "alter role app set work_mem = '1MB'")
            .unwrap();
        // One may have it before it is noticed: on a connection that happens to be new.
        eventually("none is left that would say otherwise", async || {
            for _ in 0..8 {
                let mut new = Raw::connect(proxy.port).await;
                if !everywhere(&mut new, "1MB Asia/Tokyo").await {
                    return false;
                }
            }
            true
        })
        .await;
    });
}

#[test]
fn settings_follow_transactions() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let client = proxy.connect("app", "app").await;
        let other = proxy.connect("app", "app").await;
        let work_mem = async |client: &Client| value(client, "show work_mem").await;
        client
            .batch_execute("begin; set work_mem = '1MB'; rollback")
            .await
            .unwrap();
        assert_eq!(work_mem(&client).await, "4MB");
        client
            .batch_execute("begin; set local work_mem = '1MB'; commit")
            .await
            .unwrap();
        assert_eq!(work_mem(&client).await, "4MB");
        client.batch_execute("begin").await.unwrap();
        client.batch_execute("set work_mem = '1MB'").await.unwrap();
        client.batch_execute("savepoint a").await.unwrap();
        client.batch_execute("set work_mem = '2MB'").await.unwrap();
        client.batch_execute("rollback to a").await.unwrap();
        assert_eq!(work_mem(&client).await, "1MB");
        client.batch_execute("commit").await.unwrap();
        assert_eq!(work_mem(&client).await, "1MB");
        assert_eq!(work_mem(&other).await, "4MB");
        client
            .batch_execute("select set_config('work_mem', '3MB', false)")
            .await
            .unwrap();
        assert_eq!(work_mem(&client).await, "3MB");
        assert_eq!(work_mem(&other).await, "4MB");
        // With binds, in a transaction, and undone.
        client.batch_execute("begin").await.unwrap();
        let set = "select set_config($1, $2, false)";
        client.query(set, &[&"work_mem", &"5MB"]).await.unwrap();
        client.batch_execute("rollback").await.unwrap();
        assert_eq!(work_mem(&client).await, "3MB");
        client.query(set, &[&"work_mem", &"5MB"]).await.unwrap();
        assert_eq!(work_mem(&client).await, "5MB");
        assert_eq!(work_mem(&other).await, "4MB");
        // Out of sight, in a block of code.
        client
            .batch_execute("do $$ begin set work_mem = '6MB'; end $$")
            .await
            .unwrap();
        assert_eq!(work_mem(&client).await, "6MB");
        assert_eq!(work_mem(&other).await, "4MB");
        // A failed text of several statements takes its settings back.
        client
            .batch_execute("set work_mem = '7MB'; select 1/0")
            .await
            .unwrap_err();
        assert_eq!(work_mem(&client).await, "6MB");
        client.batch_execute("reset all").await.unwrap();
        assert_eq!(work_mem(&client).await, "4MB");
    });
}

#[test]
fn pgsplits_own_settings_end_with_their_transaction() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let client = proxy.connect("app", "app").await;
        let route = async || value(&client, "show pgsplit.route").await;
        client
            .batch_execute("set local pgsplit.route = 'replica'")
            .await
            .unwrap();
        assert_eq!(route().await, "auto");
        for (inside, end, after) in [
            ("select 1", "commit", "auto"),
            ("select 1/0", "commit", "auto"),
            ("set pgsplit.route = 'primary'", "rollback", "auto"),
            ("set pgsplit.route = 'primary'", "commit", "primary"),
            ("set local pgsplit.route = 'auto'", "commit", "primary"),
        ] {
            for sql in ["begin", "set local pgsplit.route = 'replica'", inside] {
                let _failed_or_not = client.batch_execute(sql).await;
            }
            if inside == "select 1" {
                assert_eq!(route().await, "replica");
            }
            client.batch_execute(end).await.unwrap();
            assert_eq!(route().await, after, "{inside}, {end}");
        }
        for sql in [
            "begin",
            "set local pgsplit.route = 'replica'",
            "savepoint s",
            "set pgsplit.route = 'auto'",
            "rollback to s",
        ] {
            client.batch_execute(sql).await.unwrap();
        }
        assert_eq!(route().await, "replica");
        client.batch_execute("commit").await.unwrap();
        assert_eq!(route().await, "primary");
    });
}

#[test]
fn roles_and_search_paths_do_not_leak() {
    run(async {
        let cluster = cluster();
        let role = unique("role");
        cluster.psql(0, &format!("create role {role}; grant {role} to app; create schema {role} authorization app")).unwrap();
        let proxy = Proxy::start(cluster, "[pool]\nmax_size = 1").await;
        let client = proxy.connect("app", "app").await;
        let other = proxy.connect("app", "app").await;
        client
            .batch_execute(&format!("set role {role}"))
            .await
            .unwrap();
        for node in ["", PRIMARY] {
            let sql = format!("{node}select current_user");
            assert_eq!(value(&client, &sql).await, role);
            assert_eq!(value(&other, &sql).await, "app");
        }
        client
            .batch_execute("begin; reset role; rollback")
            .await
            .unwrap();
        assert_eq!(value(&client, "select current_user").await, role);
        client.batch_execute("set role none").await.unwrap();
        assert_eq!(value(&client, "select current_user").await, "app");
        client
            .batch_execute(&format!("set search_path = {role}"))
            .await
            .unwrap();
        client
            .batch_execute("create table here (a int); insert into here values (1)")
            .await
            .unwrap();
        assert_eq!(value(&client, "select a from here").await, "1");
        assert_eq!(
            sqlstate(&other.simple_query("select a from here").await.unwrap_err()),
            "42P01"
        );
        // pg_dump's way.
        other
            .batch_execute("select pg_catalog.set_config('search_path', '', false)")
            .await
            .unwrap();
        assert_eq!(value(&client, "select a from here").await, "1");
    });
}

#[test]
fn startup_options_are_the_sessions_reset_values() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let other = proxy.connect("app", "app").await;
        let mut config = proxy.config("app", "app");
        config
            .options("-c work_mem=9MB -c timezone=Asia/Tokyo")
            .application_name("mine");
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        for node in ["", PRIMARY] {
            let show = format!(
                "{node}select current_setting('work_mem') || current_setting('application_name')"
            );
            assert_eq!(value(&client, &show).await, "9MBmine");
            assert_eq!(
                value(&other, &format!("{node}select current_setting('work_mem')")).await,
                "4MB"
            );
        }
        client.batch_execute("set work_mem = '1MB'").await.unwrap();
        client.batch_execute("reset all").await.unwrap();
        assert_eq!(value(&client, "show work_mem").await, "9MB");
        assert_eq!(value(&client, "show timezone").await, "Asia/Tokyo");
        client
            .batch_execute("set timezone to default")
            .await
            .unwrap();
        assert_eq!(value(&client, "show timezone").await, "Asia/Tokyo");
    });
}

/// Letters of `postgres` among the options; and what is wrong with a startup packet, in the server's
/// own words.
#[test]
fn startup_packets_mean_what_they_mean_directly() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let mut seen = Vec::new();
        for port in [proxy.port, cluster().nodes()[0].port] {
            let mut answers = Vec::new();
            for options in [
                "-S 2048 -fs -e",
                "-c work_mem=lots",
                "-c timezone=Nowhere",
                "-c nothing=1",
                "-c extra_float_digits=99",
                "-c role=nobody",
                "-fx",
                "-S",
                "--work-mem=1MB -c datestyle=german",
            ] {
                let parameters = [("user", "app"), ("database", "app"), ("options", options)];
                let answer = match Raw::connect_with(port, 196_608, &parameters).await {
                    Err(error) => ['S', 'V', 'C', 'M']
                        .map(|field| error.field(field))
                        .to_vec(),
                    Ok(mut raw) => {
                        let sql = "select string_agg(name || setting, ' ' order by name) from pg_settings \
                                   where name in ('work_mem', 'enable_seqscan', 'DateStyle')";
                        let rows = raw.query(sql).await;
                        let row = rows.iter().find(|frame| frame.tag == 'D').unwrap();
                        vec![String::from_utf8_lossy(&row.body).into_owned()]
                    }
                };
                answers.push((options, answer));
            }
            seen.push(answers);
        }
        assert_eq!(seen[0], seen[1]);
    });
}

#[test]
fn parameter_status_reaches_the_client_as_it_would_directly() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let mut seen = Vec::new();
        for port in [proxy.port, cluster().nodes()[0].port] {
            let mut raw = Raw::connect(port).await;
            let mut greeting: Vec<Frame> = raw
                .greeting
                .iter()
                .filter(|f| f.tag == 'S')
                .cloned()
                .collect();
            greeting.sort_by(|a, b| a.body.cmp(&b.body));
            let mut frames = greeting;
            for sql in [
                "set timezone = 'Asia/Tokyo'",
                "set client_encoding = 'LATIN1'; set datestyle = 'German'",
                "begin; set application_name = 'x'; rollback",
                "begin; set local intervalstyle = 'iso_8601'; commit",
                "select 1",
                "reset all",
            ] {
                let mut answer = raw.query(sql).await;
                // In which order they come before ReadyForQuery is nobody's business.
                answer.sort_by(|a, b| (a.tag, &a.body).cmp(&(b.tag, &b.body)));
                frames.extend(answer);
            }
            seen.push(frames);
        }
        assert_eq!(seen[0], seen[1]);
    });
}

#[test]
fn temporary_tables_keep_their_connection_and_nobody_else_sees_them() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let client = proxy.connect("app", "app").await;
        let other = proxy.connect("app", "app").await;
        client
            .batch_execute("create temp table mine (a int); insert into mine values (1)")
            .await
            .unwrap();
        for _ in 0..5 {
            assert_eq!(value(&client, "select a from mine").await, "1");
            assert_eq!(
                sqlstate(&other.simple_query("select a from mine").await.unwrap_err()),
                "42P01"
            );
        }
        assert!(proxy.metric("pgsplit_pins_total", &[]) > 0.0);
        client.batch_execute("discard temp").await.unwrap();
        assert_eq!(
            sqlstate(&client.simple_query("select a from mine").await.unwrap_err()),
            "42P01"
        );
        // Made out of sight.
        client
            .batch_execute("do $$ begin create temp table hidden (a int); end $$")
            .await
            .unwrap();
        for _ in 0..5 {
            assert_eq!(value(&client, "select count(*) from hidden").await, "0");
        }
        drop(client);
        assert_eq!(
            sqlstate(
                &other
                    .simple_query("select a from hidden")
                    .await
                    .unwrap_err()
            ),
            "42P01"
        );
    });
}

#[test]
fn notifications_reach_listeners() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 2").await;
        let channel = unique("channel");
        let (listener, mut connection) = proxy.config("app", "app").connect(NoTls).await.unwrap();
        let (sender, mut received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|c| connection.poll_message(c)).await
            {
                if let AsyncMessage::Notification(n) = message {
                    sender
                        .send((n.channel().to_owned(), n.payload().to_owned()))
                        .unwrap();
                }
            }
        });
        listener
            .batch_execute(&format!("listen {channel}"))
            .await
            .unwrap();
        let notifier = proxy.connect("app", "app").await;
        for i in 0..3 {
            notifier
                .batch_execute(&format!("notify {channel}, 'n{i}'"))
                .await
                .unwrap();
            let got =
                tokio::time::timeout(std::time::Duration::from_secs(20), received.recv()).await;
            assert_eq!(got.unwrap().unwrap(), (channel.clone(), format!("n{i}")));
            listener.simple_query("select 1").await.unwrap();
        }
        notifier
            .query("select pg_notify($1, 'f')", &[&channel])
            .await
            .unwrap();
        assert_eq!(received.recv().await.unwrap().1, "f");
        listener.batch_execute("unlisten *").await.unwrap();
        notifier
            .batch_execute(&format!("notify {channel}, 'late'"))
            .await
            .unwrap();
        listener.simple_query("select 1").await.unwrap();
        assert!(received.try_recv().is_err());
        // The connection that listened is free of it, whoever has it now.
        assert_eq!(
            value(&notifier, "select count(*) from pg_listening_channels()").await,
            "0"
        );
    });
}

#[test]
fn session_advisory_locks_are_held_until_released_or_the_client_goes() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "[pool]\nmax_size = 3").await;
        let client = proxy.connect("app", "app").await;
        let other = proxy.connect("app", "app").await;
        let key = u32::from(proxy.port) * 16;
        let free = async |key: u32| {
            value(&other, &format!("select pg_try_advisory_xact_lock({key})")).await == "t"
        };
        client
            .simple_query(&format!("select pg_advisory_lock({key})"))
            .await
            .unwrap();
        for _ in 0..5 {
            client.simple_query("select 1").await.unwrap();
            assert!(!free(key).await);
        }
        assert_eq!(
            value(&client, &format!("select pg_advisory_unlock({key})")).await,
            "t"
        );
        assert!(free(key).await);
        // Taken inside a function that tells nothing of it.
        let f = unique("f");
        client
            .batch_execute(&format!(
                "create function {f}() returns void language sql stable as 'select pg_advisory_lock({})'",
                key + 1
            ))
            .await
            .unwrap();
        client
            .simple_query(&format!("{PRIMARY}select {f}()"))
            .await
            .unwrap();
        assert!(!free(key + 1).await);
        drop(client);
        eventually("the lock is free once its client is gone", async || {
            free(key + 1).await
        })
        .await;
        assert_eq!(
            cluster.psql(0, &format!("select count(*) from pg_locks where locktype = 'advisory' and objid in ({key}, {})", key + 1)).unwrap(),
            "0"
        );
    });
}

#[test]
fn holdable_cursors_and_sequences_belong_to_one_session() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let client = proxy.connect("app", "app").await;
        let other = proxy.connect("app", "app").await;
        let s = unique("s");
        client
            .batch_execute(&format!("create sequence {s}"))
            .await
            .unwrap();
        // From the first question on, who writes keeps the connection that can answer the next.
        let early = client.simple_query(&format!("select currval('{s}')")).await;
        assert_eq!(sqlstate(&early.unwrap_err()), "55000");
        assert_eq!(value(&client, &format!("select nextval('{s}')")).await, "1");
        assert_eq!(value(&other, &format!("select nextval('{s}')")).await, "2");
        assert_eq!(value(&client, &format!("select currval('{s}')")).await, "1");
        assert_eq!(value(&client, "select lastval()").await, "1");
        assert_eq!(value(&other, "select lastval()").await, "2");
        client
            .batch_execute(
                "begin; declare c cursor with hold for select * from generate_series(1, 9); commit",
            )
            .await
            .unwrap();
        for expected in 1..5 {
            other
                .simple_query(&format!("{PRIMARY}select 1"))
                .await
                .unwrap();
            assert_eq!(value(&client, "fetch c").await, expected.to_string());
        }
        assert_eq!(
            sqlstate(&other.simple_query("fetch c").await.unwrap_err()),
            "34000"
        );
        client.batch_execute("close all").await.unwrap();
        assert_eq!(
            sqlstate(&client.simple_query("fetch c").await.unwrap_err()),
            "34000"
        );
    });
}

#[test]
fn settings_with_a_prefix_belong_to_one_session_however_they_are_set() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let setter = unique("setter");
        let maker = unique("maker");
        let owner = proxy.connect("app", "app").await;
        owner
            .batch_execute(&format!(
                "create function {setter}(v text) returns void language plpgsql as \
                 $$ begin perform set_config('app.inside', v, false); end $$; \
                 create function {maker}(n text, v text) returns void language plpgsql as \
                 $$ begin perform set_config(n, v, false); end $$"
            ))
            .await
            .unwrap();
        proxy
            .wait_for_route("app", "select current_setting('app.told', true)")
            .await;
        let client = proxy.connect("app", "app").await;
        let other = proxy.connect("app", "app").await;
        let shown = async |client: &Client, name: &str| {
            let sql = format!("select coalesce(current_setting('{name}', true), '')");
            value(client, &sql).await
        };
        let name = "app.bound".to_owned();
        for round in 0..3 {
            let own = round.to_string();
            client
                .query("select set_config('app.told', $1, false)", &[&own])
                .await
                .unwrap();
            client
                .query("select set_config($1, $2, false)", &[&name, &own])
                .await
                .unwrap();
            client
                .batch_execute(&format!(
                    "do $$ begin perform set_config('app.block', '{own}', false); end $$; \
                     select set_config('app.two', '{own}', false), 1"
                ))
                .await
                .unwrap();
            client
                .query(&format!("select {setter}($1)"), &[&own])
                .await
                .unwrap();
            let names = [
                "app.told",
                "app.bound",
                "app.block",
                "app.two",
                "app.inside",
            ];
            for name in names {
                assert_eq!(shown(&other, name).await, "", "{name}");
                assert_eq!(shown(&client, name).await, own, "{name}");
                let here = format!("{PRIMARY}select current_setting('{name}', true)");
                assert_eq!(value(&client, &here).await, own, "{name}");
            }
        }
        client
            .batch_execute("begin; select set_config('app.told', 'undone', false); rollback")
            .await
            .unwrap();
        assert_eq!(shown(&client, "app.told").await, "2");
        assert_eq!(proxy.metric("pgsplit_pins_total", &[]), 0.0);
        client.batch_execute("reset all").await.unwrap();
        assert_eq!(shown(&client, "app.block").await, "");
        // A name that is made at run time keeps the session where it is known.
        proxy.wait_for_route("app", "select 1").await;
        client
            .query(&format!("select {maker}('app.' || $1, 'x')"), &[&"made"])
            .await
            .unwrap();
        assert_eq!(shown(&client, "app.made").await, "x");
        assert!(proxy.metric("pgsplit_pins_total", &["reason=\"setting\""]) > 0.0);
        client.batch_execute("discard all").await.unwrap();
        assert_eq!(shown(&client, "app.made").await, "");
        assert_eq!(shown(&other, "app.made").await, "");
    });
}

/// A setting whose name is made at run time, out of sight of whoever reads the statement.
#[test]
fn settings_that_nobody_can_name_stay_with_their_session_whatever_sets_them() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 2").await;
        let client = proxy.connect("app", "app").await;
        let [
            maker,
            inner,
            outer,
            dynamic,
            table,
            view,
            column,
            domain,
            rule,
            quiet,
        ] = [
            "maker", "inner", "outer", "dynamic", "t", "v", "c", "d", "r", "q",
        ]
        .map(unique);
        client
            .batch_execute(&format!(
                "create function {maker}(n text) returns int language plpgsql as \
                 $$ begin perform set_config('app.' || n, 'x', false); return 1; end $$; \
                 create procedure {inner}(n text) language sql as $$ select {maker}(n) $$; \
                 create procedure {outer}(n text) language plpgsql as $$ begin call {inner}(n); end $$; \
                 create function {dynamic}(n text) returns void language plpgsql as \
                 $$ begin execute 'select {maker}($1)' using n; end $$; \
                 create table {table} (n text); \
                 create function {table}() returns trigger language plpgsql as \
                 $$ begin perform {maker}(new.n); return new; end $$; \
                 create trigger made before insert on {table} for each row execute function {table}(); \
                 create view {view} as select n, {maker}(n) from (values ('view')) v (n); \
                 create table {column} (n int default {maker}('column'), a int); \
                 create domain {domain} as text check ({maker}(value) = 1); \
                 create table {rule} (n text); \
                 create rule made as on insert to {rule} do also select {maker}(new.n); \
                 create table {quiet} (n text); insert into {table} values ('first')"
            ))
            .await
            .unwrap();
        proxy
            .wait_for_route("app", "select current_setting('app.told', true)")
            .await;
        let pins = || proxy.metric("pgsplit_pins_total", &["reason=\"setting\""]);
        for (name, sql) in [
            ("call", format!("call {inner}('call')")),
            ("nested", format!("call {outer}('nested')")),
            (
                "block",
                format!("do $$ begin perform {maker}('block'); end $$"),
            ),
            ("dynamic", format!("select {dynamic}('dynamic')")),
            ("trigger", format!("insert into {table} values ('trigger')")),
            ("view", format!("select * from {view}")),
            ("column", format!("insert into {column} (a) values (1)")),
            ("domain", format!("select 'domain'::{domain}")),
            (
                "made",
                "do $$ begin execute 'set ' || 'app.made' || ' = x'; end $$".to_owned(),
            ),
            (
                "form",
                "do $$ begin execute format('set %I.form = x', 'app'); end $$".to_owned(),
            ),
            ("rule", format!("insert into {rule} values ('rule')")),
            (
                "prepared",
                format!("prepare p as select {maker}('prepared'); execute p"),
            ),
        ] {
            for simple in [true, false] {
                if !simple && name == "prepared" {
                    continue;
                }
                // Some of them might be DDL, behind which nothing is known for a moment.
                proxy
                    .wait_for_route("app", "select current_setting('app.told', true)")
                    .await;
                let before = pins();
                let client = proxy.connect("app", "app").await;
                if simple {
                    client.batch_execute(&sql).await.unwrap();
                } else {
                    client.execute(&sql, &[]).await.unwrap();
                }
                // Others come and go on the connections that are left.
                for _ in 0..2 {
                    let other = proxy.connect("app", "app").await;
                    let sql = format!(
                        "{PRIMARY}select coalesce(current_setting('app.{name}', true), '')"
                    );
                    assert_eq!(value(&other, &sql).await, "", "{name}");
                    assert_eq!(value(&client, &sql).await, "x", "{name}");
                }
                assert_eq!(pins(), before + 1.0, "{name}");
            }
        }
        // Whatever has nothing to do with it pins nobody.
        let before = pins();
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute(&format!(
                "insert into {quiet} values ('quiet'); do $$ begin perform 1; end $$"
            ))
            .await
            .unwrap();
        assert_eq!(pins(), before);
    });
}

/// `setseed` and SET seed: what `random()` then gives is a sequence, which lives in one backend.
#[test]
fn seeds_are_the_sessions_own() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 3").await;
        for seed in [
            "select setseed(0.25)",
            "set seed = 0.25",
            "set seed to 0.25; select 1",
        ] {
            let mut sequences = Vec::new();
            for _ in 0..2 {
                let client = proxy.connect("app", "app").await;
                let other = proxy.connect("app", "app").await;
                client.batch_execute(seed).await.unwrap();
                let mut sequence = Vec::new();
                for _ in 0..4 {
                    for node in ["", PRIMARY] {
                        sequence.push(value(&client, &format!("{node}select random()")).await);
                        value(&other, &format!("{node}select random()")).await;
                    }
                }
                sequences.push(sequence);
            }
            assert_eq!(sequences[0], sequences[1], "{seed}");
            sequences[0].dedup();
            assert_eq!(sequences[0].len(), 8, "{seed}");
        }
    });
}

#[test]
fn sequence_values_are_the_sessions_own() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let client = proxy.connect("app", "app").await;
        let other = proxy.connect("app", "app").await;
        let t = unique("t");
        client
            .batch_execute(&format!("create table {t} (id serial, a int)"))
            .await
            .unwrap();
        let insert = format!("insert into {t} (a) values (1)");
        // Nobody's values are there for who has none.
        client.batch_execute(&insert).await.unwrap();
        for sql in [
            "select lastval()".to_owned(),
            format!("select currval('{t}_id_seq')"),
        ] {
            let error = other.simple_query(&sql).await.unwrap_err();
            assert_eq!(sqlstate(&error), "55000", "{sql}");
        }
        // From now on it is known that they are asked for.
        client.batch_execute(&insert).await.unwrap();
        other.batch_execute(&insert).await.unwrap();
        let (a, b) = (
            value(&client, "select lastval()").await,
            value(&other, &format!("select currval('{t}_id_seq')")).await,
        );
        assert_eq!((a.as_str(), b.as_str()), ("2", "3"));
        assert!(proxy.metric("pgsplit_pins_total", &["reason=\"sequence\""]) > 0.0);
        for client in [&client, &other] {
            client.batch_execute("discard sequences").await.unwrap();
            let error = client.simple_query("select lastval()").await.unwrap_err();
            assert_eq!(sqlstate(&error), "55000");
        }
        // Only what may advance a sequence binds; while the catalogue is being read that is any write.
        let pins = || proxy.metric("pgsplit_pins_total", &["reason=\"sequence\""]);
        eventually("plain updates bind nobody", async || {
            client.batch_execute("discard sequences").await.unwrap();
            let before = pins();
            for sql in ["begin", "update", "commit", "update"] {
                let sql = sql.replace("update", &format!("update {t} set a = 2"));
                client.batch_execute(&sql).await.unwrap();
            }
            pins().total_cmp(&before).is_eq()
        })
        .await;
    });
}

#[test]
fn a_loaded_library_stays_with_its_session() {
    run(async {
        let role = unique("loads");
        let create = format!("create role {role} superuser login password '{role}'");
        cluster().psql(0, &create).unwrap();
        let settings = format!(
            "[pool]\nmax_size = 3\n[[user]]\nname = \"{role}\"\npassword = \"{role}\"\n\
             [[user]]\nname = \"app\"\npassword = \"app\""
        );
        let proxy = Proxy::start(cluster(), &settings).await;
        let client = proxy.connect(&role, "app").await;
        let other = proxy.connect(&role, "app").await;
        client.batch_execute("load 'plpgsql'").await.unwrap();
        let pid = value(&client, &format!("{PRIMARY}select pg_backend_pid()")).await;
        let others = value(&other, &format!("{PRIMARY}select pg_backend_pid()")).await;
        assert_ne!(pid, others);
        client.batch_execute("discard all").await.unwrap();
        assert_eq!(
            value(&client, &format!("{PRIMARY}select pg_backend_pid()")).await,
            pid
        );
        assert!(proxy.metric("pgsplit_pins_total", &["reason=\"library\""]) > 0.0);
        let console = proxy.connect("app", "pgsplit").await;
        let rows = console.simple_query("show clients").await.unwrap();
        let pinned: Vec<_> = rows
            .iter()
            .filter_map(|row| match row {
                SimpleQueryMessage::Row(row) => row.get("pinned"),
                _ => None,
            })
            .collect();
        assert_eq!(pinned, ["library"]);
        drop(client);
        eventually("its connection is closed", async || {
            let sql = format!("select count(*) from pg_stat_activity where pid = {pid}");
            value(&other, &sql).await == "0"
        })
        .await;
    });
}

#[test]
fn transactions_end_what_lives_in_them_only() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let client = proxy.connect("app", "app").await;
        let other = proxy.connect("app", "app").await;
        for transaction in [
            "begin; create temp table gone (a int) on commit drop; insert into gone values (1); commit",
            "begin; create temp table gone (a int); rollback",
            "begin; declare c cursor for select 1; fetch c; commit",
            "begin; select lo_open(lo_creat(-1), 131072); commit",
            "begin; select pg_advisory_xact_lock(1); commit",
            "create temp table gone (a int); drop table gone",
            "select pg_advisory_lock(2), pg_advisory_lock(2); select pg_advisory_unlock_all()",
            "listen here; unlisten *",
            "begin; declare c cursor with hold for select 1; commit; close c",
            "select pg_advisory_lock(3); discard all; select 1",
        ] {
            for statement in transaction.split("; ") {
                client.batch_execute(statement).await.unwrap();
            }
            // The only connection is free.
            other
                .simple_query(&format!("{PRIMARY}select 1"))
                .await
                .unwrap_or_else(|error| panic!("{transaction}: {error:?}"));
        }
    });
}

#[test]
fn npgsqls_reset_is_the_reset_it_is() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let reset = "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
            SELECT pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP;";
        for port in [proxy.port, cluster().nodes()[0].port] {
            let mut raw = Raw::connect(port).await;
            raw.query("set work_mem = '1MB'; create temp table gone (a int)")
                .await;
            assert_eq!(tags(&raw.query(reset).await), "CCCCTDCCCZ");
            assert_eq!(tags(&raw.query("select * from gone").await), "EZ");
            raw.send(&query("show work_mem")).await;
            let frames = raw.until_ready(1).await;
            assert!(frames[1].body.ends_with(b"4MB"));
        }
    });
}

#[test]
fn resets_of_a_session_that_left_nothing_need_no_server() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let resets = [
            "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
             SELECT pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP;",
            "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
            "RESET ALL",
            "SET SESSION AUTHORIZATION DEFAULT",
            "DISCARD ALL",
            "DISCARD PLANS",
            "DEALLOCATE ALL",
            "reset role; set role none; reset session authorization",
        ];
        let mut answers = Vec::new();
        for port in [proxy.port, cluster().nodes()[0].port] {
            let mut raw = Raw::connect(port).await;
            let sent = || {
                let by = |route| proxy.metric("pgsplit_queries_total", &[route]);
                by("route=\"primary\"") + by("route=\"replica\"")
            };
            let before = sent();
            let mut answer = Vec::new();
            for sql in resets {
                answer.push(raw.query(sql).await);
                if !sql.contains(';') {
                    raw.send(&extended(sql, &[])).await;
                    answer.push(raw.until_ready(1).await);
                }
            }
            assert_eq!(sent(), before);
            // What is there to be reset is.
            raw.query("set work_mem = '1MB'; set app.x = 'y'").await;
            answer.push(raw.query("reset all").await);
            answer.push(raw.query("show work_mem").await);
            answer.push(raw.query("begin; discard all").await);
            answer.push(raw.query("rollback").await);
            answers.push(answer);
        }
        assert_eq!(answers[0], answers[1]);
    });
}

#[test]
fn pins_are_refused_where_they_are_forbidden() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\npin = \"error\"").await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("begin; create temp table t (a int) on commit drop; commit")
            .await
            .unwrap();
        client
            .batch_execute("select pg_advisory_lock(1), pg_advisory_unlock(1)")
            .await
            .unwrap();
        let _answered = client.batch_execute("create temp table t (a int)").await;
        eventually("the session is ended", async || client.is_closed()).await;
        let next = proxy.connect("app", "app").await;
        let gone = next
            .simple_query("/* pgsplit: primary */ select * from t")
            .await;
        assert_eq!(sqlstate(&gone.unwrap_err()), "42P01");
        assert!(proxy.metric("pgsplit_pins_total", &["reason=\"temporary_table\""]) > 0.0);
    });
}

#[test]
fn session_mode_keeps_a_connection_and_still_splits() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "[pool]\nmode = \"session\"").await;
        let client = proxy.connect("app", "app").await;
        let pid = format!("{PRIMARY}select pg_backend_pid()");
        let first = value(&client, &pid).await;
        let other = proxy.connect("app", "app").await;
        other
            .simple_query(&format!("{PRIMARY}select 1"))
            .await
            .unwrap();
        for _ in 0..5 {
            assert_eq!(value(&client, &pid).await, first);
        }
        assert_ne!(value(&other, &pid).await, first);
        client.batch_execute("set work_mem = '1MB'").await.unwrap();
        for _ in 0..5 {
            let mark = unique("mark");
            let sql = format!("select current_setting('work_mem') /* {mark} */");
            assert_eq!(value(&client, &sql).await, "1MB");
        }
        eventually("reads run on a replica", async || {
            let mark = unique("mark");
            let sql = format!("select 1 /* {mark} */");
            client.simple_query(&sql).await.unwrap();
            cluster.ran_on(&mark).unwrap() != [0]
        })
        .await;
    });
}

#[test]
fn statement_mode_refuses_transactions() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmode = \"statement\"").await;
        let client = proxy.connect("app", "app").await;
        client.simple_query("select 1").await.unwrap();
        client.batch_execute("begin").await.unwrap_err();
        let client = proxy.connect("app", "app").await;
        let t = unique("t");
        client
            .batch_execute(&format!("create table {t} (a int)"))
            .await
            .unwrap();
        client
            .execute(&format!("insert into {t} values (1)"), &[])
            .await
            .unwrap();
    });
}
