//! A bounded history of one node's positions: fine for the last moments, coarser with age.
//!
//! Invariants: `asked_at` strictly increases; `lsn` never decreases (a smaller one begins a new
//! history); at most [`History::CAPACITY`] points, two of them for a time in which nothing was
//! written; the newest point always stays, and so does the oldest. Leaving a point out makes bounds
//! looser, never wrong.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Lsn, Position};

/// The time by which a node's pace is judged.
const OF_LATE: Duration = Duration::from_secs(5);

/// Positions of one node, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    points: VecDeque<Position>,
}

impl History {
    /// Points kept.
    pub const CAPACITY: usize = 64;

    /// Adds the newest position. One that isn't newer than the last is ignored; an LSN behind the
    /// last one means that this isn't the same log any more, so what was before is forgotten.
    pub fn push(&mut self, position: Position) {
        if let Some(last) = self.points.back().copied() {
            if position.asked_at <= last.asked_at {
                return;
            }
            if position.lsn < last.lsn {
                self.points.clear();
            } else if self.points.iter().rev().nth(1).is_some_and(|before| {
                let same = |p: &Position| (p.lsn, p.bound) == (position.lsn, position.bound);
                same(before) && same(&last)
            }) {
                // Since when it has stood there, and until when.
                self.points.pop_back();
            }
        }
        self.points.push_back(position);
        if self.points.len() > Self::CAPACITY {
            self.coarsen(position.asked_at);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.points.clear();
    }

    /// Forgets the positions beyond `floor`.
    pub fn keep_until(&mut self, floor: Lsn) {
        while self.points.back().is_some_and(|p| !floor.reached(p.lsn)) {
            self.points.pop_back();
        }
    }

    /// The newest position.
    #[must_use]
    pub fn newest(&self) -> Option<Position> {
        self.points.back().copied()
    }

    /// The oldest position.
    #[must_use]
    pub fn oldest(&self) -> Option<Position> {
        self.points.front().copied()
    }

    /// All positions, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Position> + ExactSizeIterator {
        self.points.iter().copied()
    }

    /// Where the node may be at `moment` at most, if it goes on twice as fast as of late.
    #[must_use]
    pub fn extrapolate(&self, moment: Instant) -> Option<Lsn> {
        let newest = self.newest()?;
        let since = newest
            .asked_at
            .checked_sub(OF_LATE)
            .and_then(|at| self.at(at));
        let from = since.or(self.oldest()).unwrap_or(newest);
        let time = newest.asked_at.duration_since(from.asked_at).as_micros();
        let beyond = moment
            .saturating_duration_since(newest.asked_at)
            .as_micros();
        let bytes = u128::from(newest.lsn.bytes_since(from.lsn));
        let more = (2 * bytes * beyond).checked_div(time).unwrap_or(0);
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        Some(Lsn(newest.lsn.0.saturating_add(more)))
    }

    /// The positions around `lsn`: the newest that `lsn` has reached, and the one after it.
    #[must_use]
    pub fn around(&self, lsn: Lsn) -> (Option<Position>, Option<Position>) {
        let reached = self.points.partition_point(|p| lsn.reached(p.lsn));
        (
            reached
                .checked_sub(1)
                .and_then(|i| self.points.get(i))
                .copied(),
            self.points.get(reached).copied(),
        )
    }

    /// The newest position asked for at or before `moment`.
    #[must_use]
    pub fn at(&self, moment: Instant) -> Option<Position> {
        let after = self.points.partition_point(|p| p.asked_at <= moment);
        self.points.get(after.checked_sub(1)?).copied()
    }

    /// Takes out the inner point that is missed least: the one with the smallest gap around it,
    /// measured against its age.
    fn coarsen(&mut self, now: Instant) {
        let cost = |i: usize| {
            let (before, here, after) = (
                self.points.get(i - 1)?,
                self.points.get(i)?,
                self.points.get(i + 1)?,
            );
            let gap = after.asked_at.duration_since(before.asked_at).as_secs_f64();
            let age = now.saturating_duration_since(here.asked_at).as_secs_f64();
            Some(gap / age.max(f64::MIN_POSITIVE))
        };
        let inner = 1..self.points.len().saturating_sub(1);
        let least = inner
            .filter_map(|i| Some((i, cost(i)?)))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((index, _)) = least {
            self.points.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn position(start: Instant, ms: u64, lsn: u64) -> Position {
        Position::exact(start + Duration::from_millis(ms), Lsn(lsn))
    }

    #[test]
    fn an_idle_node_takes_two_points() {
        let start = start();
        let mut history = History::default();
        for ms in 1..1000 {
            history.push(position(start, ms, 7));
        }
        let ends = [position(start, 1, 7), position(start, 999, 7)];
        assert_eq!(history.iter().collect::<Vec<_>>(), ends);
    }

    #[test]
    fn an_lsn_that_went_back_begins_anew() {
        let start = start();
        let mut history = History::default();
        history.push(position(start, 1, 700));
        history.push(position(start, 2, 800));
        history.push(position(start, 3, 600));
        assert_eq!(
            history.iter().collect::<Vec<_>>(),
            [position(start, 3, 600)]
        );
    }

    #[test]
    fn an_hour_of_busy_sampling_fits_and_stays_fine_at_its_end() {
        let start = start();
        let mut history = History::default();
        let end = 3_600_000;
        for ms in (0..=end).step_by(20) {
            history.push(position(start, ms, 1000 + ms));
        }
        assert_eq!(history.iter().len(), History::CAPACITY);
        assert_eq!(history.oldest(), Some(position(start, 0, 1000)));
        for age in [20, 200, 2_000, 20_000, 200_000, 2_000_000] {
            let (before, after) = history.around(Lsn(1000 + end - age));
            let gap = after.unwrap().lsn.0 - before.unwrap().lsn.0;
            assert!(gap <= age, "{gap} ms between points {age} ms ago");
        }
    }

    proptest! {
        #[test]
        fn it_stays_bounded_ordered_and_keeps_the_newest(
            steps in prop::collection::vec((0u64..50, 0u64..100, any::<bool>()), 1..400)
        ) {
            let start = start();
            let mut history = History::default();
            let (mut ms, mut lsn) = (0, 1_000_000);
            for (wait, write, back) in steps {
                ms += wait + 1;
                lsn = if back && write == 3 { lsn / 2 } else { lsn + write };
                history.push(position(start, ms, lsn));
                prop_assert!(history.iter().len() <= History::CAPACITY);
                prop_assert_eq!(history.newest(), Some(position(start, ms, lsn)));
                let all: Vec<_> = history.iter().collect();
                prop_assert!(all.windows(2).all(|w|
                    w[0].asked_at < w[1].asked_at && w[0].lsn <= w[1].lsn));
            }
        }
    }
}
