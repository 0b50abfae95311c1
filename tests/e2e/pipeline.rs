//! Sequences of messages, compared with what the primary itself answers to the same bytes.

use crate::support::{
    Frame, Proxy, Raw, cluster,
    message::{bind, close, describe, execute, extended, flush, function_call, parse, query, sync},
    run, tags, unique,
};

/// Sends `parts` (each after the one before it has been answered with `ready` ReadyForQuery) to
/// the proxy and to the primary; what both answer, which must be the same.
async fn same(proxy: &Proxy, parts: &[(Vec<u8>, usize)]) -> Vec<Frame> {
    let mut answers = Vec::new();
    for port in [proxy.port, cluster().nodes()[0].port] {
        let mut raw = Raw::connect(port).await;
        let mut answer = Vec::new();
        for (bytes, ready) in parts {
            raw.send(bytes).await;
            answer.extend(raw.until_ready(*ready).await);
        }
        answers.push(answer);
    }
    let direct = answers.pop().unwrap();
    let proxied = answers.pop().unwrap();
    assert_eq!(without_oids(&proxied), without_oids(&direct));
    proxied
}

/// RowDescription names tables by OIDs, which differ when each side made its own.
fn without_oids(frames: &[Frame]) -> Vec<Frame> {
    let mut frames = frames.to_vec();
    for frame in frames.iter_mut().filter(|frame| frame.tag == 'T') {
        let mut at = 2;
        while let Some(end) = frame.body.iter().skip(at).position(|byte| *byte == 0) {
            at += end + 1;
            frame.body[at..at + 4].fill(0);
            at += 18;
        }
    }
    frames
}

fn one(bytes: Vec<Vec<u8>>, ready: usize) -> Vec<(Vec<u8>, usize)> {
    vec![(bytes.concat(), ready)]
}

#[test]
fn pipelines_of_several_syncs_are_answered_in_order() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let t = unique("t");
        let frames = same(
            &proxy,
            &one(
                vec![
                    extended("select 1", &[]),
                    extended(&format!("create temp table {t} (a int)"), &[]),
                    extended(&format!("insert into {t} values ($1)"), &["7"]),
                    extended(&format!("select a from {t}"), &[]),
                    extended("select $1::text || 'x'", &["y"]),
                    query("select 2; select 3"),
                    extended("", &[]),
                    query(""),
                ],
                8,
            ),
        )
        .await;
        assert_eq!(tags(&frames), "12TDCZ12nCZ12nCZ12TDCZ12TDCZTDCTDCZ12nIZIZ");
    });
}

#[test]
fn an_error_discards_up_to_the_next_sync_and_no_further() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let frames = same(
            &proxy,
            &one(
                vec![
                    parse("", "select 1 / $1::int"),
                    bind("", "", &["0"]),
                    execute("", 0),
                    parse("never", "select 1"),
                    bind("", "never", &[]),
                    execute("", 0),
                    sync(),
                    extended("select 5", &[]),
                    bind("", "never", &[]),
                    sync(),
                    parse("bad", "selec"),
                    sync(),
                    extended("select 6", &[]),
                ],
                5,
            ),
        )
        .await;
        // The division is carried out while the plan is made, so Bind fails.
        assert_eq!(tags(&frames), "1EZ12TDCZEZEZ12TDCZ");
    });
}

#[test]
fn a_pipeline_without_a_sync_is_one_implicit_transaction() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let t = unique("t");
        let setup = query(&format!("create table {t} (a int primary key)"));
        let insert = |value: &str| {
            [
                parse("", &format!("insert into {t} values ({value})")),
                bind("", "", &[]),
                execute("", 0),
            ]
            .concat()
        };
        let frames = same(
            &proxy,
            &[
                (setup, 1),
                ([insert("1"), insert("1"), insert("2"), sync()].concat(), 1),
                (query(&format!("select count(*) from {t}")), 1),
                (query(&format!("drop table {t}")), 1),
            ],
        )
        .await;
        assert!(
            frames
                .iter()
                .any(|f| f.tag == 'D' && f.body.ends_with(b"0"))
        );
    });
}

#[test]
fn portals_are_read_in_pieces() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let frames = same(
            &proxy,
            &one(
                vec![
                    parse("s", "select * from generate_series(1, 5)"),
                    describe('S', "s"),
                    bind("p", "s", &[]),
                    describe('P', "p"),
                    execute("p", 2),
                    execute("p", 2),
                    execute("p", 2),
                    close('P', "p"),
                    close('S', "s"),
                    close('S', "there is no such"),
                    sync(),
                ],
                1,
            ),
        )
        .await;
        assert_eq!(tags(&frames), "1tT2TDDsDDsDC333Z");
    });
}

#[test]
fn portals_live_on_between_syncs_inside_a_transaction() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        for begin in ["begin", "begin read only"] {
            let frames = same(
                &proxy,
                &[
                    (query(begin), 1),
                    (
                        [
                            parse("", "select * from generate_series(1, 3)"),
                            bind("p", "", &[]),
                            execute("p", 1),
                            sync(),
                        ]
                        .concat(),
                        1,
                    ),
                    ([execute("p", 1), sync()].concat(), 1),
                    ([execute("p", 0), sync()].concat(), 1),
                    (query("commit"), 1),
                    ([execute("p", 0), sync()].concat(), 1),
                ],
            )
            .await;
            assert_eq!(tags(&frames), "CZ12DsZDsZDCZCZEZ", "{begin}");
        }
    });
}

#[test]
fn flush_without_sync_is_answered() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        for port in [proxy.port, cluster().nodes()[0].port] {
            let mut raw = Raw::connect(port).await;
            raw.send(&[parse("s", "select $1::int"), describe('S', "s"), flush()].concat())
                .await;
            let mut frames = Vec::new();
            for _ in 0..3 {
                frames.push(raw.frame().await);
            }
            assert_eq!(tags(&frames), "1tT");
            raw.send(&[bind("", "s", &["4"]), execute("", 0), flush()].concat())
                .await;
            frames.clear();
            for _ in 0..3 {
                frames.push(raw.frame().await);
            }
            assert_eq!(tags(&frames), "2DC");
            raw.send(&sync()).await;
            assert_eq!(tags(&raw.until_ready(1).await), "Z");
        }
    });
}

#[test]
fn begin_and_what_follows_may_come_in_one_packet() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        // pgjdbc: BEGIN as a simple query, the first extended query right behind it.
        for begin in ["BEGIN", "BEGIN READ ONLY"] {
            let frames = same(
                &proxy,
                &one(
                    vec![query(begin), extended("select 1", &[]), query("COMMIT")],
                    3,
                ),
            )
            .await;
            assert_eq!(tags(&frames), "CZ12TDCZCZ");
        }
        // By extended protocol, as psycopg's pipelines do.
        let frames = same(
            &proxy,
            &one(
                vec![
                    parse("", "BEGIN"),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("", "select 1"),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                    extended("COMMIT", &[]),
                ],
                2,
            ),
        )
        .await;
        assert_eq!(tags(&frames), "12C12DCZ12nCZ");
    });
}

#[test]
fn transactions_that_fail_say_so_until_rolled_back() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        for begin in ["begin", "begin read only"] {
            let frames = same(
                &proxy,
                &[
                    (query(begin), 1),
                    (query("select 1/0"), 1),
                    (query("select 1"), 1),
                    (extended("select 1", &[]), 1),
                    (query(";"), 1),
                    (query("commit"), 1),
                    (query("select 1"), 1),
                    (query("begin; savepoint a; select 1/0"), 1),
                    (query("rollback to a; select 2; commit"), 1),
                ],
            )
            .await;
            let states: String = frames
                .iter()
                .filter(|frame| frame.tag == 'Z')
                .map(|frame| frame.body[0] as char)
                .collect();
            assert_eq!(states, "TEEEEIIEI", "{begin}");
        }
    });
}

#[test]
fn odd_transaction_commands_answer_as_postgresql_does() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let texts = [
            "commit",
            "rollback",
            "end",
            "abort work",
            "begin; begin; commit",
            "begin transaction read write, isolation level serializable",
            "begin",
            "commit and chain",
            "rollback and no chain",
            "savepoint a",
            "begin; set local timezone = 'Asia/Tokyo'; show timezone",
            "rollback",
            "show timezone",
            "start transaction",
            "commit",
            "select 1; begin; select 2",
            "select 3; commit; select 4",
            "begin; select 1/0; commit",
            "rollback",
            "begin isolation level repeatable read; show transaction_isolation",
            "commit",
            "prepare transaction 'nothing'",
            "set transaction read only",
            "begin",
            "set transaction read only",
            "create table never (a int)",
            "rollback",
            ";;",
            "/* nothing */",
            "begin; commit; begin",
            "select 1",
            "rollback; select 2",
        ];
        let parts: Vec<_> = texts.iter().map(|sql| (query(sql), 1)).collect();
        same(&proxy, &parts).await;
    });
}

#[test]
fn notices_and_errors_arrive_whole() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let texts = [
            "do $$ begin raise notice 'seen %', 1 using hint = 'h', detail = 'd'; end $$",
            "do $$ begin raise exception 'no' using errcode = 'P1234', hint = 'h'; end $$",
            "select * from there_is_no_such_table",
            "select 1 +",
            "drop table if exists there_is_no_such_table",
            "select 'é' as \"é\"",
        ];
        let parts: Vec<_> = texts.iter().map(|sql| (query(sql), 1)).collect();
        let frames = same(&proxy, &parts).await;
        assert_eq!(frames[0].field('H'), "h");
    });
}

#[test]
fn functions_can_be_called_by_the_fast_path() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let oid = cluster()
            .psql(0, "select 'int4abs(int4)'::regprocedure::oid")
            .unwrap();
        let call = function_call(oid.parse().unwrap(), &["-7"]);
        let frames = same(
            &proxy,
            &[
                (call.clone(), 1),
                (query("begin"), 1),
                (call, 1),
                (query("commit"), 1),
                (function_call(1, &[]), 1),
            ],
        )
        .await;
        assert_eq!(tags(&frames), "VZCZVZCZEZ");
        assert!(frames[0].body.ends_with(b"7"));
    });
}

#[test]
fn bytes_that_are_no_text_pass_unchanged() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let mut latin = b"Qselect '\xe9', length('\xe9') /* \xff\xfe */\0".to_vec();
        latin.splice(1..1, u32::try_from(latin.len() + 3).unwrap().to_be_bytes());
        let frames = same(
            &proxy,
            &[
                (query("set client_encoding = 'LATIN1'"), 1),
                (latin, 1),
                (query("reset client_encoding"), 1),
                (extended("select '\\x00ff80'::bytea", &[]), 1),
            ],
        )
        .await;
        assert!(
            frames
                .iter()
                .any(|f| f.tag == 'D' && f.body.contains(&0xE9))
        );
    });
}

#[test]
fn encodings_whose_characters_hold_backslashes_are_read_as_the_server_reads_them() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        for (encoding, lead) in [
            ("SJIS", 0x95),
            ("BIG5", 0xA5),
            ("GBK", 0xD5),
            ("GB18030", 0x95),
        ] {
            // The second byte of the character is that of a backslash.
            let character = String::from_utf8_lossy(b"@@").into_owned();
            let texts = [
                "select '@@' as \"@@\", E'@@', 'x' /* @@ */",
                "select E'@@', 1 where E'@@' = '@@' -- @@",
                "select $1::text, E'\\\\@@', $$@@$$",
                "select length(E'@@'), E'@@', E'@@\\\\', 2 --'",
                // Refused in these encodings.
                "select E'@@\\'; select 2 --'",
            ];
            let encoded = |message: Vec<u8>| {
                let mut message = message;
                while let Some(at) = message
                    .windows(2)
                    .position(|two| two == character.as_bytes())
                {
                    message[at] = lead;
                    message[at + 1] = b'\\';
                }
                message
            };
            let mut parts = vec![(query(&format!("set client_encoding = '{encoding}'")), 1)];
            for text in texts {
                let parameters: &[&str] = if text.contains("$1") { &["@@"] } else { &[] };
                parts.push((encoded(extended(text, parameters)), 1));
                if parameters.is_empty() {
                    parts.push((encoded(query(text)), 1));
                }
            }
            let frames = same(&proxy, &parts).await;
            let rows = frames.iter().filter(|frame| frame.tag == 'D').count();
            assert!(rows >= 7, "{encoding}: {frames:?}");
        }
    });
}

#[test]
fn cursors_in_transactions() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        for begin in ["begin", "begin read only"] {
            let texts = [
                begin,
                "declare c cursor for select * from generate_series(1, 10)",
                "fetch 3 from c",
                "move 2 in c",
                "fetch c",
                "close c",
                "fetch c",
                "rollback",
            ];
            let parts: Vec<_> = texts.iter().map(|sql| (query(sql), 1)).collect();
            same(&proxy, &parts).await;
        }
    });
}
