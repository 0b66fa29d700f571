//! Behaviour of the broker by clause: one worker or two, packets in, packets out, time by hand.

mod access;
mod bounds;
mod capabilities;
mod clauses;
mod delayed;
mod failure;
mod life;
mod limits;
mod pieces;
mod properties;
mod protocol;
mod retained;
mod rig;
mod run;
mod shared;
mod shared_durable;
mod system;
mod topics;
mod will;
