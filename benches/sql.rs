//! What a statement costs before it is sent anywhere: lexing it, knowing it again, classifying it
//! by its first words. Aim: under 200 ns for a statement of 60 to 200 bytes that was seen before, whatever
//! its literals.

#![allow(clippy::indexing_slicing, reason = "a bench indexes its own tables")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgsplit::sql::{CacheLimits, Class, ClassCache, Lexing, effects, lexer::Lexer, utility};

/// Typical statements; each `?` becomes another number in each text.
const STATEMENTS: [(&str, &str); 7] = [
    (
        "pgbench_select",
        "SELECT abalance FROM pgbench_accounts WHERE aid = ?;",
    ),
    (
        "join",
        "SELECT o.id, o.total, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.id = ? AND c.region = 'north ?'",
    ),
    (
        "orm",
        r#"SELECT "users"."id", "users"."email", "users"."created_at", "users"."updated_at" FROM "users" WHERE "users"."account_id" = ? AND "users"."deleted_at" IS NULL ORDER BY "users"."id" ASC LIMIT 1"#,
    ),
    (
        "in_list",
        "SELECT id, name, price FROM products WHERE category = ? AND id IN (?, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)",
    ),
    (
        "insert",
        "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (?, 3, 812, -4, CURRENT_TIMESTAMP);",
    ),
    (
        "update",
        "UPDATE pgbench_accounts SET abalance = abalance + ? WHERE aid = ?;",
    ),
    (
        "prepared",
        "select id, title, body, author_id, created_at from posts where author_id = $1 and created_at > $2 order by created_at desc limit $3",
    ),
];

/// Texts per statement: few, because a text that was just received is in the processor's cache.
const TEXTS: usize = 61;

fn texts(statement: &str) -> Vec<String> {
    (0..TEXTS)
        .map(|i| statement.replace('?', &(i * 7919 % 1_000_000).to_string()))
        .collect()
}

fn cache() -> ClassCache {
    ClassCache::new(CacheLimits::default(), [11, 22, 33, 44])
}

fn known(cache: &mut ClassCache, text: &str) -> Class {
    cache.classify(text.as_bytes(), Lexing::default(), 1, || Class::UNKNOWN)
}

fn read(cache: &mut ClassCache, text: &str) -> Class {
    cache.classify(text.as_bytes(), Lexing::default(), 1, || Class {
        access: pgsplit::sql::Access::Read,
        ..Class::UNKNOWN
    })
}

fn bench(c: &mut Criterion) {
    for (name, statement) in STATEMENTS {
        let texts = texts(statement);
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(
            texts.iter().map(|t| t.len() as u64).sum::<u64>() / TEXTS as u64,
        ));
        group.bench_function("lex", |b| {
            let mut next = texts.iter().cycle();
            b.iter(|| {
                let text = next.next().map(String::as_bytes).unwrap_or_default();
                Lexer::new(black_box(text), Lexing::default()).count()
            });
        });
        group.bench_function("seen_with_other_literals", |b| {
            let mut cache = cache();
            read(&mut cache, &texts[0]);
            let mut next = texts.iter().cycle();
            b.iter(|| {
                known(
                    &mut cache,
                    black_box(next.next().map(String::as_str).unwrap_or_default()),
                )
            });
        });
        group.finish();
    }

    // All shapes in random order: the processor's branch predictor can't learn them by heart.
    let all: Vec<_> = STATEMENTS
        .iter()
        .map(|(_, statement)| texts(statement))
        .collect();
    c.bench_function("mixed/seen_with_other_literals", |b| {
        let mut cache = cache();
        for texts in &all {
            read(&mut cache, &texts[0]);
        }
        let mut random = 1_u64;
        b.iter(|| {
            random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            let at = (random >> 33) as usize;
            let text = &all[at % all.len()][at / 8 % TEXTS];
            known(&mut cache, black_box(text))
        });
    });

    c.bench_function("utility/set", |b| {
        b.iter(|| {
            utility(
                black_box(b"SET search_path TO app, public"),
                Lexing::default(),
            )
        });
    });
    c.bench_function("effects/set", |b| {
        b.iter(|| {
            effects(
                black_box(b"SET search_path TO app, public"),
                Lexing::default(),
            )
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .without_plots()
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_millis(700));
    targets = bench
}
criterion_main!(benches);
