//! What the soak holds against the broker, without a socket or a clock: what was sent, who must have got it, how often and in
//! which order. `tests/it` compiles this folder too and tests it there: an oracle that never objects proves nothing.

pub(crate) mod book;
pub(crate) mod floors;
pub(crate) mod groups;
pub(crate) mod letter;
pub(crate) mod retained;
pub(crate) mod trimmings;
pub(crate) mod wills;

#[cfg(test)]
mod tests;
