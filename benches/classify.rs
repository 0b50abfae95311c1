//! What a statement that hasn't been seen before costs.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pgsplit::sql::{Access, Catalogue, CatalogueBuilder, Lexing, catalogue::QueryId, classify};

/// About 200 bytes, as ORMs write them.
const STATEMENTS: &[(&str, &str)] = &[
    (
        "orm_join",
        "SELECT \"users\".\"id\", \"users\".\"name\", \"posts\".\"title\" FROM \"users\" INNER JOIN \"posts\" ON \
         \"posts\".\"user_id\" = \"users\".\"id\" WHERE \"users\".\"id\" IN (1, 2, 3) AND \"posts\".\"published\" = TRUE \
         ORDER BY 1 LIMIT 21",
    ),
    (
        "analytics",
        "SELECT date_trunc('month', created_at)::date AS m, count(*) FILTER (WHERE total > 10), sum(total) FROM orders \
         WHERE created_at BETWEEN '2024-01-01' AND '2024-12-31' AND status <> 'x' GROUP BY 1 HAVING count(*) > 1",
    ),
    (
        "key",
        "SELECT abalance FROM pgbench_accounts WHERE aid = 12345",
    ),
    (
        "insert",
        "INSERT INTO users (name, email) VALUES ('a', 'b') RETURNING id",
    ),
];

fn catalogue() -> Catalogue {
    let mut builder = CatalogueBuilder::new();
    for (oid, name) in (20_000..).zip(["users", "posts", "orders", "pgbench_accounts"]) {
        let oid = oid.to_string();
        builder.row(
            QueryId::Relations,
            &[&oid, name, "r", "p", "false", "f", "false"].map(Some),
        );
    }
    for (oid, name) in (100..).zip(["date_trunc", "count", "sum"]) {
        let oid = oid.to_string();
        let row = [&oid, name, "b", "f", "i", "internal", "true", "false"];
        builder.row(QueryId::Functions, &row.map(Some));
    }
    for operator in ["=", "<>", "<", ">"] {
        builder.row(QueryId::Operators, &[None, Some(operator), None]);
    }
    builder.row(QueryId::Types, &[None, Some("date"), None]);
    // Names that aren't met, as a real database has them.
    for oid in 30_000..50_000 {
        let (oid, name) = (oid.to_string(), format!("table_{oid}"));
        builder.row(
            QueryId::Relations,
            &[&oid, &name, "r", "p", "false", "f", "false"].map(Some),
        );
    }
    builder.finish(1)
}

fn new_statements(criterion: &mut Criterion) {
    let catalogue = catalogue();
    let mut group = criterion.benchmark_group("classify");
    for (name, text) in STATEMENTS {
        let class = classify(text.as_bytes(), Lexing::default(), Some(&catalogue));
        assert_eq!(
            class.access == Access::Read,
            *name != "insert",
            "{name}: {class:?}"
        );
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                classify(
                    black_box(text.as_bytes()),
                    Lexing::default(),
                    Some(black_box(&catalogue)),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, new_statements);
criterion_main!(benches);
