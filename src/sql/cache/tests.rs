use std::time::Duration;

use super::*;
use crate::sql::{Kind, Tables, Traits};

const READ: Class = Class {
    kind: Kind::Single,
    access: Access::Read,
    hint: None,
    traits: Traits::PURE_READ,
    tables: Tables::ALL,
};
const WRITE: Class = Class::primary(Why::Write, Traits::NONE);

fn cache() -> ClassCache {
    ClassCache::new(CacheLimits::default(), [1, 2, 3, 4])
}

fn ask(cache: &mut ClassCache, text: &str, class: Class) -> Class {
    cache.classify(text.as_bytes(), Lexing::default(), 1, || class)
}

fn known(cache: &mut ClassCache, text: &str) -> Class {
    cache.classify(text.as_bytes(), Lexing::default(), 1, || {
        panic!("classified again")
    })
}

#[allow(clippy::disallowed_methods, reason = "a test needs some instant")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn a_statement_is_classified_once_whatever_its_literals() {
    let mut cache = cache();
    assert_eq!(ask(&mut cache, "select 1", READ), READ);
    assert_eq!(known(&mut cache, "select 1"), READ);
    assert_eq!(known(&mut cache, "SELECT  2"), READ);
    assert_eq!(ask(&mut cache, "insert into t values (1)", WRITE), WRITE);
    assert_eq!(known(&mut cache, "insert into t values (2), (3)"), WRITE);
    assert_eq!(known(&mut cache, "select 7 -- c"), READ);
    let stats = cache.stats();
    assert_eq!(
        (stats.misses, stats.skeleton_hits, stats.fingerprint_hits),
        (2, 1, 3)
    );
}

#[test]
fn literals_that_may_decide_are_looked_at_every_time() {
    let mut cache = cache();
    assert_eq!(ask(&mut cache, "set a = 1", READ), READ);
    assert_eq!(ask(&mut cache, "set a = 2", WRITE), WRITE);
    assert_eq!(ask(&mut cache, "select 'f'::regproc", READ), READ);
    assert_eq!(ask(&mut cache, "select 'g'::regproc", WRITE), WRITE);
    assert_eq!(known(&mut cache, "set a = 1"), READ);
    assert_eq!(known(&mut cache, "select 'f'::regproc"), READ);
}

#[test]
fn the_same_bytes_read_differently_are_another_text() {
    let mut cache = cache();
    let off = Lexing {
        standard_conforming_strings: false,
        ..Lexing::default()
    };
    assert_eq!(ask(&mut cache, "select 1", READ), READ);
    assert_eq!(cache.classify(b"select 1", off, 1, || WRITE), WRITE);
    assert_eq!(known(&mut cache, "select 1"), READ);
}

#[test]
fn another_generation_empties_the_cache() {
    let mut cache = cache();
    ask(&mut cache, "select f()", READ);
    assert_eq!(
        cache.classify(b"select f()", Lexing::default(), 2, || WRITE),
        WRITE
    );
    assert_eq!(
        cache.classify(b"select f()", Lexing::default(), 2, || READ),
        WRITE
    );
    assert_eq!(cache.stats().flushes, 1);
}

#[test]
fn a_correction_reaches_every_text_of_the_fingerprint() {
    let mut cache = cache();
    for text in ["select f(1)", "select f(2)", "select g(1)"] {
        ask(&mut cache, text, READ);
    }
    cache.correct(b"select f(3)", Lexing::default(), WRITE);
    for text in ["select f(1)", "select f(2)", "select f(3)", "select f(4)"] {
        assert_eq!(known(&mut cache, text), WRITE);
    }
    assert_eq!(known(&mut cache, "select g(1)"), READ);
}

#[test]
fn unreadable_and_long_texts_are_never_classified() {
    let mut cache = cache();
    assert_eq!(known(&mut cache, "select 'a"), Class::UNKNOWN);
    let long = " ".repeat(LONGEST_TEXT + 1);
    assert_eq!(known(&mut cache, &long), Class::TOO_LONG);
    cache.correct(long.as_bytes(), Lexing::default(), READ);
    cache.lean(long.as_bytes(), Lexing::default(), now());
    assert!(cache.is_empty());
    assert_eq!((cache.stats().unreadable, cache.stats().too_long), (1, 1));
}

#[test]
fn a_fingerprint_leans_to_the_primary_until_its_time() {
    let mut cache = cache();
    let lexing = Lexing::default();
    let start = now();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert!(!cache.leans(b"select 1", lexing, start));
    cache.lean(b"select 1", lexing, at(10));
    cache.lean(b"select a", lexing, at(5));
    assert!(cache.leans(b"select 2", lexing, at(9)));
    assert!(cache.leans(b"select a", lexing, at(4)));
    assert!(!cache.leans(b"select a", lexing, at(5)));
    assert!(!cache.leans(b"select b", lexing, at(4)));
    assert!(!cache.leans(b"select 2", lexing, at(10)));
    // Over: forgotten.
    assert!(!cache.leans(b"select 2", lexing, at(1)));
}

#[test]
fn leaning_fingerprints_are_bounded() {
    let limits = CacheLimits {
        leaning: 3,
        ..CacheLimits::default()
    };
    let mut cache = ClassCache::new(limits, [1, 2, 3, 4]);
    let start = now();
    for i in 0..10_u64 {
        let text = format!("select c{i}");
        cache.lean(
            text.as_bytes(),
            Lexing::default(),
            start + Duration::from_secs(10 + i),
        );
    }
    let leans = |cache: &mut ClassCache, i: u64| {
        cache.leans(format!("select c{i}").as_bytes(), Lexing::default(), start)
    };
    assert!(!leans(&mut cache, 0));
    assert!(leans(&mut cache, 9));
    assert_eq!(cache.leaning.len(), 3);
}

#[test]
fn a_flood_of_new_texts_pushes_nothing_out_that_is_in_use() {
    let limits = CacheLimits {
        entries: 64,
        ..CacheLimits::default()
    };
    let mut cache = ClassCache::new(limits, [1, 2, 3, 4]);
    let hot: Vec<_> = (0..8).map(|i| format!("select hot{i}")).collect();
    for i in 0..5_000 {
        for text in &hot {
            if i < 2 {
                ask(&mut cache, text, READ);
            } else {
                // A set that only hot texts share could be too small for them; these aren't.
                ask(&mut cache, text, WRITE);
            }
        }
        ask(&mut cache, &format!("select cold{i}"), READ);
    }
    let kept = hot
        .iter()
        .filter(|text| ask(&mut cache, text, WRITE) == READ)
        .count();
    assert_eq!(kept, hot.len());
    assert!(cache.len() <= 64);
    assert!(cache.stats().evictions > 0);
}

#[test]
fn memory_is_bounded() {
    let limits = CacheLimits {
        entries: 256,
        leaning: 4,
        unknown: 4,
    };
    let mut cache = ClassCache::new(limits, [1, 2, 3, 4]);
    for i in 0..10_000 {
        ask(
            &mut cache,
            &format!("select column{i} from t"),
            Class::UNKNOWN,
        );
    }
    assert!(cache.bytes() < 2 * 256 * 56 + 8 * 1024, "{}", cache.bytes());
    // A long text's form is not kept.
    ask(&mut cache, &"a ".repeat(100_000), READ);
    assert!(cache.bytes() < 2 * 256 * 56 + 8 * 1024, "{}", cache.bytes());
}

#[test]
fn frequent_unknown_texts_are_listed_without_their_literals() {
    let limits = CacheLimits {
        unknown: 2,
        ..CacheLimits::default()
    };
    let mut cache = ClassCache::new(limits, [1, 2, 3, 4]);
    for i in 0..5 {
        ask(
            &mut cache,
            &format!("select strange {i} 'secret'"),
            Class::UNKNOWN,
        );
        ask(
            &mut cache,
            &format!("select f{i}()"),
            Class::primary(Why::UnknownFunction, Traits::NONE),
        );
        ask(&mut cache, "select 1", READ);
    }
    let list = cache.unknown();
    assert_eq!(list.len(), 2);
    let strange = list.iter().find(|u| u.why == Why::Unparsable).unwrap();
    assert_eq!(strange.count, 5);
    assert_eq!(&*strange.sample, "select strange ? ?");
}

#[test]
fn a_text_that_is_prepared_again_is_known_as_it_is_until_it_is_corrected() {
    let mut cache = cache();
    let again = |cache: &mut ClassCache, text: &str, generation, class| {
        cache.classify_again(text.as_bytes(), Lexing::default(), generation, || class)
    };
    assert_eq!(again(&mut cache, "select 'f'::regproc", 1, READ), READ);
    assert_eq!(again(&mut cache, "select 'f'::regproc", 1, WRITE), READ);
    assert_eq!(again(&mut cache, "select 'g'::regproc", 1, WRITE), WRITE);
    assert_eq!(cache.stats().text_hits, 1);
    cache.correct(b"select 'f'::regproc", Lexing::default(), WRITE);
    assert_eq!(again(&mut cache, "select 'f'::regproc", 1, READ), WRITE);
    assert_eq!(again(&mut cache, "select 'f'::regproc", 2, READ), READ);
    let unknown = Class::primary(Why::UnknownFunction, Traits::NONE);
    for _ in 0..2 {
        assert_eq!(again(&mut cache, "select f()", 2, unknown), unknown);
    }
    assert_eq!(cache.unknown()[0].count, 2, "counted each time");
}
