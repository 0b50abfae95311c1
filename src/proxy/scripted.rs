//! Message sequences, byte for byte: the proxy between scripted clients and scripted nodes.
//!
//! Everything runs in one thread over in-memory connections with the clock paused: a test says what
//! each side sends, when, and what it must get, and time passes only while nobody has anything to
//! do. What arrives counts as arriving at once only if no timer was needed for it.

mod answers;
mod asides;
mod bed;
mod cancels;
mod copies;
mod failures;
mod holds;
mod limits;
mod losses;
mod message;
mod outcomes;
mod pauses;
mod postgres;
mod refusals;
mod seen;
mod transactions;
mod vanishing;
