//! What the program keeps when everybody has gone, cycle after cycle: a program that loses a little of what each client had
//! climbs, and one that does not stays level, whatever it takes at its busiest.

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Floors {
    /// Bytes before the first client.
    before: usize,
    bounds: Bounds,
    /// Bytes after each cycle.
    floors: Vec<usize>,
}

/// What is too much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes above what there was before the first client, after any cycle.
    pub(crate) kept: usize,
    /// Bytes for each cycle, between the second and the last.
    pub(crate) climb: usize,
}

/// Cycles from which a climb can be told from chance. The first one is not judged: in it the program finds its size.
const ENOUGH: usize = 5;

impl Floors {
    pub(crate) fn new(before: usize, bounds: Bounds) -> Self {
        Self { before, bounds, floors: Vec::new() }
    }

    /// Bytes that may be kept.
    pub(crate) fn most(&self) -> usize {
        self.before + self.bounds.kept
    }

    /// So much was kept after a cycle.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), String> {
        self.floors.push(bytes);
        if bytes <= self.most() {
            return Ok(());
        }
        Err(format!("{} KiB are kept when everybody has gone, bound {} KiB", bytes >> 10, self.most() >> 10))
    }

    /// Bytes for each cycle, by the repeated median: for each cycle the median of the slopes to all others, and the median of
    /// those. `None`: too few cycles.
    ///
    /// One odd floor among four neither makes a climb nor hides one, wherever it stands (up to half of them may be odd). The
    /// median of all pairs bears fewer than three in ten: half of the pairs of four floors have the odd one in them.
    pub(crate) fn climb(&self) -> Option<f64> {
        let floors = self.floors.get(1..).filter(|floors| floors.len() + 1 >= ENOUGH)?;
        let slopes = |from: usize| {
            let others = floors.iter().enumerate().filter(move |(at, _)| *at != from);
            others.map(move |(at, floor)| (*floor as f64 - floors[from] as f64) / (at as f64 - from as f64))
        };
        median((0..floors.len()).filter_map(|from| median(slopes(from))))
    }

    /// Whether the floors are level. An error: they climb.
    pub(crate) fn level(&self) -> Result<(), String> {
        let climb = self.climb().unwrap_or(0.0);
        if climb <= self.bounds.climb as f64 {
            return Ok(());
        }
        let floors: Vec<_> = self.floors.iter().map(|bytes| bytes >> 10).collect();
        Err(format!(
            "what is kept grows by {:.0} KiB a cycle, bound {} KiB: {floors:?} KiB",
            climb / 1024.0,
            self.bounds.climb >> 10
        ))
    }
}

/// The middle one, or what lies between the middle two.
fn median(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let low = numbers.get(numbers.len().checked_sub(1)? / 2)?;
    let high = numbers.get(numbers.len() / 2)?;
    Some(f64::midpoint(*low, *high))
}
