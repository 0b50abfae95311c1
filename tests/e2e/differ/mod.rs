//! What a client sees through pgsplit is what it would see without it: scripts of messages are run
//! on the primary itself and through the proxy, in two databases of equal content, and every
//! message that comes back is compared.
//!
//! `PGSPLIT_DIFFER_SEEDS=from..to` runs these random scripts instead of the few that a test run
//! can afford.

mod compare;
mod known;
mod script;

use compare::{Pair, Startup};
use script::Message;

use crate::support::run;

/// Random scripts of a test run.
const FEW: u64 = 40;
/// Differences that are shown before a run gives up.
const ENOUGH: usize = 20;

#[test]
fn scripts_are_answered_as_the_primary_answers_them() {
    match std::env::var("PGSPLIT_DIFFER_SEEDS") {
        Ok(range) => many(&range),
        Err(_) => run(few()),
    }
}

async fn few() {
    let pair = Pair::start().await;
    let mut different = Vec::new();
    for (what, script) in known::mended() {
        if let Some(difference) = pair.difference(&script, &[]).await {
            println!("{what}:\n{difference}");
            different.push(what.to_owned());
        }
    }
    for (i, script) in known::sessions().into_iter().enumerate() {
        let what = format!("session {i}");
        different.extend(shown(&pair, what.clone(), script.clone(), &[]).await);
        for (asked, startup) in [("much", ASKED), ("a role", ROLE)] {
            let what = format!("{what} that asked for {asked}");
            different.extend(shown(&pair, what, script.clone(), startup).await);
        }
    }
    for seed in 0..FEW {
        different.extend(random(&pair, seed).await);
    }
    assert!(different.is_empty(), "scripts that differ: {different:?}");
}

/// As many as somebody has the time for.
fn many(range: &str) {
    let (from, to) = range.split_once("..").unwrap();
    let seeds: std::ops::Range<u64> = from.parse().unwrap()..to.parse().unwrap();
    let run = async {
        let pair = Pair::start().await;
        let mut different = Vec::new();
        for seed in seeds {
            if seed.is_multiple_of(100) {
                println!("at seed {seed}");
            }
            different.extend(random(&pair, seed).await);
            if different.len() >= ENOUGH {
                break;
            }
        }
        assert!(different.is_empty(), "scripts that differ: {different:?}");
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(run);
}

/// What a startup packet may ask for, in all its ways.
const ASKED: Startup = &[
    ("TimeZone", "Asia/Kolkata"),
    ("DateStyle", "German, DMY"),
    ("search_path", "public, \"$user\", Other"),
    ("application_name", "differ"),
    (
        "options",
        "-c work_mem=7MB -c intervalstyle=iso_8601 -c app.x=asked",
    ),
];

const ROLE: Startup = &[("options", "-c role=reader")];

async fn random(pair: &Pair, seed: u64) -> Option<String> {
    let startup = if seed.is_multiple_of(3) { ASKED } else { &[] };
    shown(pair, format!("seed {seed}"), script::script(seed), startup).await
}

/// Runs a script on both sides. If they differ the shortest script that does is shown, and `what`
/// it is returned.
async fn shown(
    pair: &Pair,
    what: String,
    script: Vec<Message>,
    startup: Startup,
) -> Option<String> {
    let difference = pair.difference(&script, startup).await?;
    let (script, difference) = pair.shortened(script, startup, difference).await;
    println!("{what}:");
    for message in &script {
        println!("    {message}");
    }
    println!("{difference}");
    Some(what)
}
