//! Variable byte integers (1.5.5): seven bits a byte, the lowest first.

/// The largest value, 268,435,455: what four bytes hold.
pub const MAX: u32 = 0x0FFF_FFFF;

/// How many bytes `value` takes: 1 to 4. Values above [`MAX`] cannot be encoded; they count as 4.
pub(super) const fn len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// What stands at the front of `input`.
pub(super) enum Read {
    /// The value and the number of bytes it took.
    Value(u32, usize),
    /// All bytes seen say that another one follows.
    Short,
    /// A fifth byte would follow.
    TooLong,
}

/// Reads one integer from the front of `input`. The caller judges whether a longer form than needed is allowed.
pub(super) fn read(input: &[u8]) -> Read {
    let mut value = 0;
    for (index, &byte) in input.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Read::Value(value, index + 1);
        }
    }
    if input.len() < 4 { Read::Short } else { Read::TooLong }
}
