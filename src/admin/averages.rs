//! Averages over the last minute, from the totals.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::metrics::{DatabaseTotals, inspect::StatsRow};

/// Samples of the databases' totals.
#[derive(Debug, Default)]
pub(super) struct Averages(Mutex<VecDeque<Sample>>);

#[derive(Debug)]
struct Sample {
    at: Instant,
    totals: HashMap<String, DatabaseTotals>,
}

/// Per second, or per item and in microseconds where it is a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Average {
    pub(super) transactions: u64,
    pub(super) queries: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) transaction_micros: u64,
    pub(super) query_micros: u64,
    pub(super) wait_micros: u64,
    pub(super) assignments: u64,
}

impl Averages {
    /// How often [`Averages::sample`] is to be called.
    pub(super) const EVERY: Duration = Duration::from_secs(5);
    /// The time that averages look back.
    const PERIOD: Duration = Duration::from_secs(60);

    /// Remembers the totals of this moment and forgets those older than the period, except the
    /// one that the period begins with.
    pub(super) fn sample(&self, now: Instant, rows: Vec<StatsRow>) {
        let totals = rows.into_iter().map(|row| (row.database, row.totals));
        let sample = Sample {
            at: now,
            totals: totals.collect(),
        };
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back(sample);
        let old = |sample: &Sample| now.saturating_duration_since(sample.at) >= Self::PERIOD;
        while samples.get(1).is_some_and(old) {
            samples.pop_front();
        }
    }

    /// What has happened in the database since the period began, on average.
    pub(super) fn average(&self, now: Instant, row: &StatsRow) -> Average {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(first) = samples.front() else {
            return Average::default();
        };
        let before = first.totals.get(&row.database).copied().unwrap_or_default();
        let millis = now.saturating_duration_since(first.at).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        let grown =
            |total: fn(&DatabaseTotals) -> u64| total(&row.totals).saturating_sub(total(&before));
        let rate = |total| {
            let per_second = u128::from(grown(total)) * 1000 / u128::from(millis.max(1));
            u64::try_from(per_second).unwrap_or(u64::MAX)
        };
        let each = |total, count| grown(total).checked_div(grown(count)).unwrap_or(0);
        Average {
            transactions: rate(|t| t.transactions),
            queries: rate(|t| t.queries),
            received: rate(|t| t.received),
            sent: rate(|t| t.sent),
            transaction_micros: each(|t| t.transaction_micros, |t| t.transactions),
            query_micros: each(|t| t.query_micros, |t| t.queries),
            wait_micros: each(|t| t.wait_micros, |t| t.assignments),
            assignments: rate(|t| t.assignments),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(queries: u64, query_micros: u64) -> StatsRow {
        StatsRow {
            database: "app".into(),
            totals: DatabaseTotals {
                queries,
                query_micros,
                ..DatabaseTotals::default()
            },
        }
    }

    #[tokio::test]
    async fn averages_look_back_one_period() {
        let start = tokio::time::Instant::now().into_std();
        let averages = Averages::default();
        assert_eq!(averages.average(start, &row(5, 5)), Average::default());
        // 10 queries a second, each of 50 µs, for five minutes; then nothing.
        let mut now = start;
        for step in 0..60 {
            now = start + Averages::EVERY * step;
            averages.sample(
                now,
                vec![row(u64::from(step) * 50, u64::from(step) * 2_500)],
            );
        }
        assert!(averages.0.lock().unwrap().len() <= 14);
        let last = row(59 * 50, 59 * 2_500);
        let average = averages.average(now, &last);
        assert_eq!((average.queries, average.query_micros), (10, 50));
        averages.sample(now + Averages::PERIOD, vec![last.clone()]);
        let average = averages.average(now + Averages::PERIOD, &last);
        assert_eq!((average.queries, average.query_micros), (0, 0));
    }
}
