//! How far a replica is behind, without clocks of other machines and without a heartbeat table:
//! its lag is how long ago the primary passed what the replica has replayed.

use std::time::{Duration, Instant};

use super::{History, Lsn};

/// A replica's distance from the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// `None`: it was behind already when the history began, so nobody knows how long.
    pub time: Option<Duration>,
    pub bytes: u64,
}

/// The lag of a replica that had replayed `replayed` when it was asked at `asked_at`, by the
/// primary's `history`; `None` without a history.
///
/// Time stands still where the history ends: a replica doesn't grow older than the primary's last
/// sign of life. Whatever the primary wrote after `asked_at` is not counted against the replica.
#[must_use]
pub fn lag(history: &History, replayed: Lsn, asked_at: Instant) -> Option<Lag> {
    let newest = history.newest()?;
    let (Some(before), after) = history.around(replayed) else {
        return Some(Lag {
            time: None,
            bytes: newest.lsn.bytes_since(replayed),
        });
    };
    let Some(after) = after else {
        return Some(Lag {
            time: Some(Duration::ZERO),
            bytes: 0,
        });
    };
    // The primary passed `replayed` somewhere between the two; in a straight line, as it were.
    let written = after.lsn.bytes_since(before.lsn).max(1);
    let share = replayed.bytes_since(before.lsn) as f64 / written as f64;
    let between = after.asked_at.saturating_duration_since(before.asked_at);
    let passed = before.asked_at + between.mul_f64(share.clamp(0.0, 1.0));
    let primary_then = history.at(asked_at).map_or(Lsn(0), |p| p.lsn);
    Some(Lag {
        time: Some(
            asked_at
                .min(newest.asked_at)
                .saturating_duration_since(passed),
        ),
        bytes: primary_then.bytes_since(replayed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Position;

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn history(start: Instant, points: &[(u64, u64)]) -> History {
        let mut history = History::default();
        for (at, lsn) in points {
            history.push(Position::exact(start + ms(*at), Lsn(*lsn)));
        }
        history
    }

    type Expected = Option<(Option<u64>, u64)>;
    type Case<'a> = (&'a str, &'a [(u64, u64)], u64, u64, Expected);

    fn of(points: &[(u64, u64)], replayed: u64, asked: u64) -> Expected {
        let start = start();
        let lag = lag(&history(start, points), Lsn(replayed), start + ms(asked))?;
        Some((lag.time.map(|t| t.as_millis() as u64), lag.bytes))
    }

    #[test]
    fn lag_is_how_long_ago_the_primary_passed_what_was_replayed() {
        let busy = [(0, 1000), (100, 2000), (200, 3000), (300, 4000)];
        let idle = [(0, 1000), (100, 1000), (60_000, 1000)];
        let woke = [(0, 1000), (60_000, 1000), (60_100, 2000), (60_200, 2000)];
        let table: &[Case<'_>] = &[
            (
                "asked before the primary's last sign of life, which wrote nothing since",
                &[(0, 1000), (100, 9000), (200, 9000), (300, 9000)],
                1000,
                290,
                Some((Some(290), 8000)),
            ),
            ("nothing is known without a primary", &[], 5, 5, None),
            ("caught up", &busy, 4000, 300, Some((Some(0), 0))),
            (
                "ahead of the last sample",
                &busy,
                4100,
                310,
                Some((Some(0), 0)),
            ),
            (
                "half a second's worth behind",
                &busy,
                1000,
                300,
                Some((Some(300), 3000)),
            ),
            (
                "between two samples",
                &busy,
                2500,
                300,
                Some((Some(150), 1500)),
            ),
            (
                "what came after the question doesn't count",
                &busy,
                2000,
                100,
                Some((Some(0), 0)),
            ),
            (
                "behind before anyone looked",
                &busy,
                900,
                300,
                Some((None, 3100)),
            ),
            (
                "an idle primary makes no lag",
                &idle,
                1000,
                60_000,
                Some((Some(0), 0)),
            ),
            (
                "an hour's idleness isn't lag when it ends",
                &woke,
                1000,
                60_200,
                Some((Some(200), 1000)),
            ),
            (
                "a dead primary makes nobody older",
                &busy,
                3000,
                900_000,
                Some((Some(100), 1000)),
            ),
        ];
        for (why, points, replayed, asked, expected) in table {
            assert_eq!(of(points, *replayed, *asked), *expected, "{why}");
        }
    }

    #[test]
    fn an_insert_lsn_behind_a_page_header_makes_no_lag() {
        let page = 5 * 8192;
        let points = [(0, page - 100), (100, page + 24), (200, page + 24)];
        assert_eq!(of(&points, page, 200), Some((Some(0), 0)));
    }
}
