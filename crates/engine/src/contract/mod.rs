//! The suite that every engine passes, and tools for testing what is built on one.
//!
//! - [`contract_tests!`](crate::contract_tests) makes one `#[test]` of each behaviour, for an engine that a function makes.
//! - [`Probe`] is a port that a test can ask and wait for, with a deadline on every wait.
//! - [`Faulty`] wraps an engine and fails as the trait allows.
//!
//! The suite assumes no kind of engine: answers that the trait allows at any time (Unavailable, Unknown, Busy) are repeated
//! by the probe, or judged by reading back.
//!
//! Must not know: any implementation.

mod faulty;
pub mod lane;
pub mod lease;
pub mod log;
pub mod order;
mod probe;
pub mod register;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;
use std::time::Duration;

pub use faulty::{Faults, Faulty};
pub use probe::{LaneEvent, PATIENCE, Probe, WatchEvent};

use crate::{DedupeId, Engine, Key};

/// What a behaviour wants of the engine it is run on. An engine takes the nearest it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// At least so many log shards.
    pub shards: u16,
    /// The queue's bound in operations: small, for behaviours about Busy.
    pub queue: usize,
    /// The bound of frames on their way to a port, likewise.
    pub lane_queue: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self { shards: 2, queue: 65_536, lane_queue: 65_536 }
    }
}

/// Makes an engine for one behaviour: empty, and used by nothing else.
pub type Make<'a> = &'a dyn Fn(Setup) -> Arc<dyn Engine>;

/// How long the leases of the suite last that are meant to run out.
const SHORT: Duration = Duration::from_millis(500);
/// How long the others last.
const LONG: Duration = Duration::from_secs(3600);

/// A seed for randomness, printed so that a failure can be repeated: that of the environment variable `TIDEGATE_SEED`, or a
/// new one.
pub fn seed() -> u64 {
    let given = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TIDEGATE_SEED={seed}");
    seed
}

/// Keys of the suite.
fn key(name: &str) -> Key {
    Key::of("contract", &[name.as_bytes()])
}

/// The `n`th dedupe id of an appender.
fn id(appender: u64, n: u64) -> DedupeId {
    DedupeId((u128::from(appender) << 64) | u128::from(n))
}

/// Generates a `#[test]` for each behaviour of the contract. The argument is a function or closure
/// `Fn(engine::contract::Setup) -> Arc<dyn engine::Engine>` that makes an empty engine. Call it in a module of its own.
#[macro_export]
macro_rules! contract_tests {
    ($make:expr) => {
        $crate::contract_tests! { @ $make;
            log:
                appends_get_ascending_sequences_from_one
                a_repeated_append_gets_the_first_sequence_and_has_no_effect
                a_dedupe_id_counts_in_its_shard_only
                a_shard_that_does_not_exist_is_refused
                a_frame_of_the_largest_size_is_taken_and_a_larger_one_is_not
                the_head_follows_the_last_append
                a_read_pages_through_the_log_in_order
                a_read_gives_at_least_one_frame
                a_read_at_the_end_is_empty
                a_read_below_the_trim_is_truncated
                a_trim_keeps_the_frame_of_its_position
                a_trim_beyond_the_head_does_not_move_the_head
                two_tails_see_one_order
                a_tail_begins_after_its_position
                a_tail_waits_for_the_first_append
                a_tail_during_appends_has_no_gap_and_no_duplicate
                a_tail_below_the_trim_is_told_and_goes_on
                a_second_tail_call_moves_the_tail
                a_long_log_is_tailed_in_pieces;
            register:
                a_record_is_read_back_with_its_revision
                a_missing_record_is_none
                revisions_grow_over_all_records
                a_record_that_must_be_absent_is_made_once
                a_write_at_an_old_revision_conflicts_and_has_no_effect
                increments_of_many_threads_add_up
                a_batch_happens_as_a_whole_or_not_at_all
                a_key_twice_in_a_batch_conflicts
                a_deleted_record_is_gone_and_deleting_it_again_succeeds
                a_value_of_the_largest_size_is_taken_and_a_larger_one_is_not
                a_scan_pages_in_the_order_of_keys
                a_scan_keeps_to_its_prefix_exactly
                a_scan_goes_on_after_a_key_that_is_gone
                a_watch_gives_the_records_then_ready_then_changes
                a_watch_keeps_to_its_prefix_exactly
                a_long_snapshot_comes_in_pieces
                a_watch_gives_changes_in_the_order_of_revisions
                a_watch_during_writes_misses_nothing
                a_barrier_is_answered_after_the_watchers_were_given_everything
                a_barrier_covers_what_was_acknowledged;
            lease:
                a_lease_has_one_holder
                a_renewal_keeps_the_epoch_and_outlives_the_first_ttl
                a_lease_runs_out_its_holder_is_told_and_the_next_epoch_is_higher
                a_released_lease_can_be_taken_with_a_higher_epoch
                a_release_by_a_stranger_has_no_effect
                a_held_fence_lets_appends_and_writes_pass
                an_append_with_a_lost_fence_has_no_effect
                a_batch_with_a_lost_fence_has_no_effect
                a_fence_is_lost_when_the_lease_runs_out;
            lane:
                frames_arrive_in_order_with_their_sender
                a_frame_reaches_its_destination_only
                every_accepted_frame_arrives_or_is_told_missing
                an_unknown_destination_is_no_disaster;
            order:
                the_guarantees_are_within_range
                every_token_is_answered_exactly_once
                a_large_batch_is_answered_to_the_last
                the_effects_of_a_port_come_in_the_order_submitted
                a_busy_operation_has_had_no_effect
                shutdown_answers_what_was_submitted
                what_is_submitted_after_shutdown_is_answered_unavailable;
        }
    };
    (@ $make:expr; $($module:ident: $($name:ident)+;)+) => {
        $($(
            #[test]
            fn $name() {
                $crate::contract::$module::$name(&|setup| $make(setup));
            }
        )+)+
    };
}
