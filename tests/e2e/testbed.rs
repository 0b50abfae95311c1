//! The cluster does what the other tests rely on.

use std::time::Duration;

use crate::support::{Stop, cluster, own_cluster, unique};

#[test]
fn a_statement_is_found_in_the_log_of_the_node_that_ran_it() {
    let cluster = cluster();
    let mark = unique("mark");
    cluster.psql(1, &format!("select 1 /* {mark} */")).unwrap();
    cluster.psql(0, &format!("select 1\n/* {mark} */")).unwrap();
    assert_eq!(cluster.ran_on(&mark).unwrap(), [0, 1]);
}

#[test]
fn replicas_replay_what_the_primary_writes_unless_paused() {
    let cluster = own_cluster(2);
    let count = |node| cluster.psql(node, "select count(*) from t").unwrap();
    cluster.psql(0, "create table t (a int)").unwrap();
    cluster.wait_for_replay(2).unwrap();
    cluster.pause_replay(2).unwrap();
    cluster.psql(0, "insert into t values (1)").unwrap();
    cluster.wait_for_replay(1).unwrap();
    assert_eq!(count(1), "1");
    assert_eq!(count(2), "0");
    cluster.resume_replay(2).unwrap();
    cluster.wait_for_replay(2).unwrap();
    assert_eq!(count(2), "1");
    cluster.delay_replay(1, Duration::from_secs(600)).unwrap();
    cluster.psql(0, "insert into t values (2)").unwrap();
    cluster.wait_for_replay(2).unwrap();
    assert_eq!((count(1), count(2)), ("1".to_owned(), "2".to_owned()));
    cluster.delay_replay(1, Duration::ZERO).unwrap();
    cluster.wait_for_replay(1).unwrap();
    assert_eq!(count(1), "2");
}

#[test]
fn nodes_hang_die_return_and_are_promoted() {
    let cluster = own_cluster(2);
    let one = |node| cluster.psql(node, "select 1");
    cluster.hang(1).unwrap();
    std::net::TcpStream::connect(("127.0.0.1", cluster.nodes()[1].port)).unwrap();
    cluster.unhang(1).unwrap();
    one(1).unwrap();
    cluster.stop(1, Stop::Kill).unwrap();
    one(1).unwrap_err();
    cluster.start_node(1).unwrap();
    one(1).unwrap();
    cluster.stop(0, Stop::Kill).unwrap();
    cluster.promote(1).unwrap();
    assert_eq!(cluster.primary(), 1);
    cluster.follow(2).unwrap();
    cluster.rejoin(0).unwrap();
    cluster.psql(1, "create table t as select 7 as a").unwrap();
    for replica in cluster.replicas() {
        cluster.wait_for_replay(replica).unwrap();
        assert_eq!(cluster.psql(replica, "select a from t").unwrap(), "7");
    }
}

#[test]
fn dropping_a_cluster_stops_even_hung_nodes_and_removes_the_directory() {
    let cluster = own_cluster(1);
    cluster.hang(1).unwrap();
    let ports: Vec<u16> = cluster.nodes().iter().map(|node| node.port).collect();
    let dir = cluster.dir().to_owned();
    drop(cluster);
    assert!(!dir.exists());
    for port in ports {
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    }
}
