//! Nodes that come, go, are taken out and weighed while clients work.

use crate::support::{Cluster, Proxy, ReadLoad, cluster, eventually, run, unique};

/// `[[node]]` entries: each with the name of one node and the place of another.
fn entries(cluster: &Cluster, nodes: &[(usize, usize)]) -> String {
    let entry = |(name, place): &(usize, usize)| {
        let (name, port) = (&cluster.nodes()[*name].name, cluster.nodes()[*place].port);
        format!("[[node]]\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {port}\n")
    };
    nodes.iter().map(entry).collect()
}

/// A table for the load, known to all.
async fn filled(cluster: &Cluster, proxy: &Proxy) -> String {
    let table = unique("nodes");
    ReadLoad::fill(&proxy.connect("app", "app").await, &table).await;
    proxy.wait_for_table(cluster, &table).await;
    table
}

/// How many of `count` new sessions read on each node.
async fn reads(cluster: &Cluster, proxy: &Proxy, count: usize) -> Vec<usize> {
    let mark = unique("mark");
    for _ in 0..count {
        let client = proxy.connect("app", "app").await;
        let text = format!("select 1 /* {mark} */");
        client.simple_query(&text).await.unwrap();
    }
    let ran = |node| cluster.statements(node, &mark).unwrap().len();
    (0..cluster.nodes().len()).map(ran).collect()
}

/// Waits until `node` has no server connection.
async fn drained(proxy: &Proxy, node: &str) {
    eventually(&format!("{node} is free"), async || {
        let label = format!("node=\"{node}\"");
        proxy.metric("pgsplit_server_connections", &[&label]) == 0.0
    })
    .await;
}

async fn names(proxy: &Proxy) -> Vec<String> {
    let rows = proxy.console("show nodes").await;
    let name = |row: &tokio_postgres::SimpleQueryRow| row.get("name").unwrap().to_owned();
    rows.iter().map(name).collect()
}

async fn waited_for_names(proxy: &Proxy, expected: &[&str]) {
    eventually(&format!("the nodes are {expected:?}"), async || {
        names(proxy).await == expected
    })
    .await;
}

#[test]
fn a_reload_adds_removes_and_moves_nodes_and_nobody_notices() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let table = filled(cluster, &proxy).await;
        proxy
            .reconfigure(cluster, &entries(cluster, &[(0, 0), (1, 1)]))
            .await;
        waited_for_names(&proxy, &["pg1", "pg2"]).await;
        let load = ReadLoad::start(&proxy, &table);
        load.progress(200).await;
        // A transaction on the node that goes, which can't go on elsewhere: it may end there.
        let reader = proxy.connect("app", "app").await;
        let mark = unique("reader");
        reader.batch_execute("begin read only").await.unwrap();
        reader
            .batch_execute(&format!(
                "declare c cursor for select count(*) from {table} /* {mark} */"
            ))
            .await
            .unwrap();
        assert_eq!(cluster.ran_on(&mark).unwrap(), [1]);
        proxy
            .reconfigure(cluster, &entries(cluster, &[(0, 0), (2, 2)]))
            .await;
        waited_for_names(&proxy, &["pg1", "pg2", "pg3"]).await;
        eventually("the new node reads", async || {
            reads(cluster, &proxy, 5).await == [0, 0, 5]
        })
        .await;
        load.progress(200).await;
        let rows = proxy.console("show nodes").await;
        assert_eq!(rows[1].get("health"), Some("leaving"));
        reader
            .batch_execute(&format!("fetch all from c /* {mark} */"))
            .await
            .unwrap();
        assert_eq!(cluster.ran_on(&mark).unwrap(), [1, 1]);
        reader.batch_execute("commit").await.unwrap();
        waited_for_names(&proxy, &["pg1", "pg3"]).await;
        // Back, and both replicas in each other's place.
        proxy
            .reconfigure(cluster, &entries(cluster, &[(2, 1), (1, 2), (0, 0)]))
            .await;
        waited_for_names(&proxy, &["pg1", "pg3", "pg2"]).await;
        let ports = proxy.console("show nodes").await;
        let port = |at: usize| ports[at].get("port").unwrap().parse::<u16>().unwrap();
        assert_eq!([port(1), port(2)], [1, 2].map(|n| cluster.nodes()[n].port));
        eventually("both replicas read", async || {
            let ran = reads(cluster, &proxy, 20).await;
            ran[0] == 0 && ran[1] > 0 && ran[2] > 0
        })
        .await;
        load.progress(200).await;
        load.finish();
        let events = proxy.console("show events").await;
        let kinds: Vec<&str> = events.iter().map(|row| row.get("kind").unwrap()).collect();
        for (kind, least) in [("joined", 6), ("leaving", 3), ("left", 3)] {
            let count = kinds.iter().filter(|k| **k == kind).count();
            assert!(count >= least, "{count} times {kind}: {kinds:?}");
        }
    });
}

#[test]
fn a_primary_that_moves_is_followed() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let table = filled(cluster, &proxy).await;
        let client = proxy.connect("app", "app").await;
        // Under another name it is another node.
        let renamed = entries(cluster, &[(0, 0), (1, 1), (2, 2)]).replace("pg1", "first");
        let mut a = 1000;
        for settings in [&*renamed, "", &renamed] {
            let open = proxy.connect("app", "app").await;
            open.batch_execute("begin").await.unwrap();
            let insert = format!("insert into {table} values ({a}, 1)");
            open.batch_execute(&insert).await.unwrap();
            proxy.reconfigure(cluster, settings).await;
            let insert = format!("insert into {table} values ({}, 1)", a + 1);
            client.batch_execute(&insert).await.unwrap();
            open.batch_execute("commit").await.unwrap();
            a += 2;
        }
        let count = format!("select count(*) from {table} where a >= 1000");
        let row = client.query_one(&count, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 6);
        waited_for_names(&proxy, &["pg2", "pg3", "first"]).await;
    });
}

#[test]
fn a_node_is_taken_out_weighed_and_put_back_at_the_console() {
    run(async {
        let cluster = cluster();
        // Shares are of replicas that count as equal, however far behind others' writes leave one.
        let proxy = Proxy::start(cluster, "[routing]\nlag_tolerance = \"10s\"").await;
        let table = filled(cluster, &proxy).await;
        let load = ReadLoad::start(&proxy, &table);
        load.progress(200).await;
        let reader = proxy.connect("app", "app").await;
        let mark = unique("reader");
        let read = format!("select count(*) from {table} /* {mark} */");
        reader.batch_execute("begin read only").await.unwrap();
        reader.batch_execute(&read).await.unwrap();
        let out = cluster.ran_on(&mark).unwrap()[0];
        let other = 3 - out;
        let name = &*cluster.nodes()[out].name;
        proxy.console(&format!("disable node {name}")).await;
        let ran = reads(cluster, &proxy, 20).await;
        assert_eq!(ran[out], 0, "{ran:?}");
        load.progress(200).await;
        let label = format!("node=\"{name}\"");
        eventually("only the transaction is there", async || {
            proxy.metric("pgsplit_server_connections", &[&label]) == 1.0
        })
        .await;
        reader.batch_execute(&read).await.unwrap();
        reader.batch_execute("commit").await.unwrap();
        drained(&proxy, name).await;
        proxy.console(&format!("set weight {name} = 0")).await;
        proxy.console(&format!("enable node {name}")).await;
        proxy.wait_for_nodes(3).await;
        assert_eq!(reads(cluster, &proxy, 20).await[out], 0);
        load.progress(200).await;
        load.finish();
        // Its share grows with its weight. Nothing else is in flight, which would count, too.
        proxy.console(&format!("set weight {name} = 50")).await;
        let ran = reads(cluster, &proxy, 120).await;
        assert!(ran[out] > 2 && ran[out] < ran[other], "{ran:?}");
        let load = ReadLoad::start(&proxy, &table);
        load.progress(200).await;
        proxy.console(&format!("set weight {name} = 1000")).await;
        let ran = reads(cluster, &proxy, 60).await;
        assert!(ran[out] > 2 * ran[other], "{ran:?}");
        load.progress(200).await;
        load.finish();
        // Until its settings say otherwise.
        proxy.reconfigure(cluster, "").await;
        let rows = proxy.console("show nodes").await;
        assert_eq!(rows[out].get("weight"), Some("1000"));
    });
}
