//! Clusters that misbehave, and clients that check every answer they get meanwhile.
//!
//! The tests share one cluster and run one after the other (`arena`), so that what they measure is
//! disturbed by nothing of theirs. What they measure is printed; what they assert leaves room for a
//! busy machine.

mod arena;
mod board;
mod overload;
mod primary;
mod random;
mod readers;
mod replicas;
mod writers;
