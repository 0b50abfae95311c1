//! PostgreSQL 18 beside whatever version the other tests ran against.

use crate::support::{Options, Proxy, drivers, own_cluster_with, program, run, succeed, unique};

#[test]
fn postgresql_18_is_served_and_split() {
    run(async {
        let cluster = own_cluster_with(&Options {
            replicas: 1,
            bin: Some(drivers().join("pg18/bin")),
            ..Options::default()
        });
        assert!(
            cluster
                .psql(0, "show server_version")
                .unwrap()
                .starts_with("18")
        );
        let proxy = Proxy::start(&cluster, "").await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute(
                "create table t (a int primary key, b int generated always as (a * 2) virtual)",
            )
            .await
            .unwrap();
        for i in 0..20_i32 {
            client
                .execute("insert into t values ($1)", &[&i])
                .await
                .unwrap();
            let row = client
                .query_one("select b from t where a = $1", &[&i])
                .await
                .unwrap();
            assert_eq!(row.get::<_, i32>(0), 2 * i);
        }
        let row = client
            .query_one(
                "update t set a = 100 where a = 0 returning old.a, new.a",
                &[],
            )
            .await
            .unwrap();
        assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (0, 100));
        cluster.wait_for_replay(1).unwrap();
        let mark = unique("mark");
        client
            .simple_query(&format!(
                "select uuidv7() is not null, * from t /* {mark} */"
            ))
            .await
            .unwrap();
        // Its libpq asks for protocol 3.2 when told to; cancel keys are longer then.
        let mut psql = program(&cluster, "psql");
        psql.args(["-XAtc", "select 7", &proxy.url()])
            .env("PGMAXPROTOCOLVERSION", "latest");
        assert_eq!(succeed(&mut psql).trim(), "7");
        psql.env("PGMINPROTOCOLVERSION", "3.2");
        assert_eq!(succeed(&mut psql).trim(), "7");
    });
}
