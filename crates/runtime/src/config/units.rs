//! Durations, sizes and rates: a number with a unit, both ways.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];
const RATE_UNITS: [(&str, f64); 3] = [("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// `"500ms"`, `"10s"`, `"1h"`; also several parts from great to small, `"1m30s"`. Nothing where it is no duration.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis: u64 = 0;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, factor) = DURATION_UNITS.into_iter().find(|(name, _)| *name == unit)?;
        if factor >= smallest {
            return None; // "30s1m" and "1s1s" are more likely an error than a wish
        }
        smallest = factor;
        millis = millis.checked_add(number.checked_mul(factor)?)?;
        rest = after;
    }
    (smallest != u64::MAX).then(|| Duration::from_millis(millis))
}

/// `"512B"`, `"64KiB"`, `"10MB"`. Nothing where it is no size.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let (_, factor) = SIZE_UNITS.into_iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(factor)
}

/// `"2000/s"`, `"10/m"`, `"1/h"` as a number per second; zero is not a rate.
pub(super) fn parse_rate(text: &str) -> Option<f64> {
    let (number, unit) = split_number(text)?;
    let unit = unit.strip_prefix('/')?;
    let (_, seconds) = RATE_UNITS.into_iter().find(|(name, _)| *name == unit)?;
    // Above 2^53 a double has no more single steps; nobody means such a rate.
    let number = u32::try_from(number).ok().filter(|number| *number > 0)?;
    Some(f64::from(number) / seconds)
}

/// Decimal digits (at least one) and what follows.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// A duration as one would write it in the file, in whole milliseconds: `1m30s`.
pub fn duration_text(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in DURATION_UNITS {
        let count = left / factor;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            left %= factor;
        }
    }
    text
}

/// A size as one would write it in the file: in the greatest unit that divides it, powers of 1024 first.
pub fn size_text(bytes: u64) -> String {
    let binary = SIZE_UNITS.into_iter().filter(|(name, _)| name.len() != 2);
    let decimal = SIZE_UNITS.into_iter().filter(|(name, _)| name.len() == 2);
    let fits = |(_, factor): &(&str, u64)| bytes > 0 && bytes.is_multiple_of(*factor);
    let chosen = binary.clone().filter(|(name, _)| *name != "B").chain(decimal).find(fits);
    let (unit, factor) = chosen.unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        let millis = |text| parse_duration(text).map(|duration| duration.as_millis());
        for (text, expected) in [
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1m", 60_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("1d1h1m1s1ms", 90_061_001),
            ("90s", 90_000),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "10 s",
            " 10s",
            "10s ",
            "1.5s",
            "-1s",
            "10S",
            "10sec",
            "30s1m",
            "1s1s",
            "1us",
            "٣s",
            "99999999999999999999s",
            "18446744073709551615d",
            "1m30",
        ] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_know_both_kilos() {
        for (text, expected) in [
            ("0B", 0),
            ("512B", 512),
            ("64KiB", 65_536),
            ("1MiB", 1_048_576),
            ("10MB", 10_000_000),
            ("1KB", 1_000),
            ("2GiB", 2_147_483_648),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(parse_size(text), Some(expected), "{text}");
        }
        for text in
            ["", "64", "KiB", "64 KiB", "64kib", "64K", "1.5MiB", "-1B", "18446744073709551615KiB", "1MiB1B"]
        {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn rates_are_per_second() {
        for (text, expected) in [("2000/s", 2000.0), ("60/m", 1.0), ("3600/h", 1.0), ("30/m", 0.5)] {
            assert_eq!(parse_rate(text), Some(expected), "{text}");
        }
        for text in ["", "0/s", "10", "10/", "/s", "10/d", "10 / s", "1.5/s", "-1/s", "5000000000/s"] {
            assert_eq!(parse_rate(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_written_in_the_greatest_unit_that_divides() {
        for (bytes, expected) in [
            (0, "0B"),
            (1, "1B"),
            (1000, "1KB"),
            (1024, "1KiB"),
            (1536, "1536B"),
            (1 << 30, "1GiB"),
            (5_000_000, "5MB"),
        ] {
            assert_eq!(size_text(bytes), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(millis: u64, bytes: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&duration_text(duration)), Some(duration));
            prop_assert_eq!(parse_size(&size_text(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_is_too_strange(text: String) {
            let _ = (parse_duration(&text), parse_size(&text), parse_rate(&text));
        }
    }
}
