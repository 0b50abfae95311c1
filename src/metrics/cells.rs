//! Counters and histograms that one worker writes and a scrape reads.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets, in nanoseconds, each inclusive; one more bucket has no bound.
pub(super) const BOUNDS: [u64; 18] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// Adds to a counter of the worker that calls: nobody else writes it, so that a load and a store do,
/// without locking the processor's bus.
#[inline]
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}

/// Durations in buckets from 50 µs to 30 s, of one worker. An observation is two additions.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

/// Several histograms' sum at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Distribution {
    /// Not cumulative; the last has no bound.
    pub(super) buckets: [u64; BOUNDS.len() + 1],
    /// Nanoseconds.
    pub(super) sum: u64,
}

impl Histogram {
    /// Counts one duration.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanos);
        if let Some(bucket) = self.buckets.get(bucket) {
            add(bucket, 1);
        }
        add(&self.sum, nanos);
    }

    pub(super) fn add_to(&self, total: &mut Distribution) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Relaxed);
        }
        total.sum = total.sum.wrapping_add(self.sum.load(Relaxed));
    }
}

impl Distribution {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// A number that goes up and down, also from different workers: the shards' sums agree even when
/// one worker only ever raises and another only lowers it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct UpDown(AtomicU64);

impl UpDown {
    pub(super) fn up(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(super) fn down(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// This shard's part, modulo 2^64.
    pub(super) fn part(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let cases = [
            (0, 0),
            (50_000, 0),
            (50_001, 1),
            (1_000_000, 4),
            (30_000_000_000, 17),
            (30_000_000_001, 18),
            (u64::MAX, 18),
        ];
        for (nanos, bucket) in cases {
            let histogram = Histogram::default();
            histogram.observe(Duration::from_nanos(nanos));
            let mut total = Distribution::default();
            histogram.add_to(&mut total);
            assert_eq!(total.buckets[bucket], 1, "{nanos} ns");
            assert_eq!(total.count(), 1);
            assert_eq!(total.sum, nanos);
        }
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
