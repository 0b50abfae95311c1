//! sqlx as people use it. Arguments: URL, a table's name, a mark for read statements.

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::{
    Connection, Executor, PgConnection, Row,
    postgres::{PgListener, PgPool, PgPoolCopyExt, PgPoolOptions},
};

fn main() -> Result<(), sqlx::Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(drive())
}

async fn drive() -> Result<(), sqlx::Error> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, table, mark] = &arguments[..] else {
        panic!("URL TABLE MARK");
    };
    let pool = PgPool::connect(url).await?;
    pool.execute(&*format!(
        "create table {table} (id serial primary key, name text, tags text[])"
    ))
    .await?;
    let insert = format!("insert into {table} (name, tags) values ($1, $2) returning id");
    for i in 0..20 {
        let id: i32 = sqlx::query_scalar(&insert)
            .bind(format!("n{i}"))
            .bind(vec!["a".to_owned()])
            .fetch_one(&pool)
            .await?;
        assert_eq!(id, i + 1);
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    // Prepared under a name on each connection of the pool, and kept.
    let select = format!("select name from {table} where id = $1 /* {mark} */");
    let reads = (0..100_i32).map(|i| {
        let (pool, select) = (&pool, &select);
        async move {
            let name: String = sqlx::query_scalar(select)
                .bind(i % 20 + 1)
                .fetch_one(pool)
                .await?;
            assert_eq!(name, format!("n{}", i % 20));
            Ok::<(), sqlx::Error>(())
        }
    });
    for read in futures_util::future::join_all(reads).await {
        read?;
    }

    let mut transaction = pool.begin().await?;
    transaction
        .execute(&*format!("delete from {table}"))
        .await?;
    let mut nested = transaction.begin().await?;
    let error = nested.execute("select 1/0").await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "22012");
    nested.rollback().await?;
    let sql = format!("select count(*) from {table}");
    let count: i64 = sqlx::query_scalar(&sql).fetch_one(&mut *transaction).await?;
    assert_eq!(count, 0);
    drop(transaction);
    let rows: Vec<i32> = sqlx::query(&format!("select id from {table} order by id"))
        .fetch(&pool)
        .map_ok(|row| row.get::<i32, _>(0))
        .try_collect()
        .await?;
    assert_eq!(rows.len(), 20);

    let mut copy = pool
        .copy_in_raw(&format!("copy {table} (name) from stdin"))
        .await?;
    copy.send(&b"x\ny\n"[..]).await?;
    assert_eq!(copy.finish().await?, 2);

    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(table).await?;
    sqlx::query("select pg_notify($1, 'hello')")
        .bind(table)
        .execute(&pool)
        .await?;
    let heard = tokio::time::timeout(Duration::from_secs(20), listener.recv()).await;
    assert_eq!(heard.expect("no notification")?.payload(), "hello");

    let mut one = PgConnection::connect(url).await?;
    one.ping().await?;
    one.execute("begin read only").await?;
    let sql = format!("select count(*) from {table} /* {mark} */");
    let count: i64 = sqlx::query_scalar(&sql).fetch_one(&mut one).await?;
    assert_eq!(count, 22);
    one.execute("commit").await?;
    one.close().await?;

    let small = PgPoolOptions::new().max_connections(2).connect(url).await?;
    for _ in 0..10 {
        let one: i32 = sqlx::query_scalar("select 1").fetch_one(&small).await?;
        assert_eq!(one, 1);
    }
    small.close().await;
    pool.close().await;
    Ok(())
}
