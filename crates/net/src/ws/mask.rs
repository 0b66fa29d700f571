//! Masking, section 5.3: each byte of a payload is combined with one of four.

/// Masks or unmasks, which is the same. `at` is where in the payload these bytes begin.
pub(super) fn apply(bytes: &mut [u8], mask: [u8; 4], at: u64) {
    let [a, b, c, d] = mask;
    let [a, b, c, d] = match at % 4 {
        0 => [a, b, c, d],
        1 => [b, c, d, a],
        2 => [c, d, a, b],
        _ => [d, a, b, c],
    };
    let eight = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ eight).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn masking_by_eights_is_masking_byte_by_byte(
            bytes in proptest::collection::vec(any::<u8>(), 0..100), mask: [u8; 4], at in 0..1u64 << 40,
        ) {
            let naive: Vec<u8> = bytes.iter().zip(at..).map(|(byte, at)| byte ^ mask[(at % 4) as usize]).collect();
            let mut masked = bytes.clone();
            apply(&mut masked, mask, at);
            prop_assert_eq!(&masked, &naive);
            apply(&mut masked, mask, at);
            prop_assert_eq!(masked, bytes);
        }
    }
}
