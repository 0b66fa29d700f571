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

/// Cycles from which a climb can be told from chance. The first one is not among them: in it the program finds its size.
const ENOUGH: usize = 4;

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

    /// Bytes for each cycle, by the median of all pairs of cycles: one that was odd does not count. `None`: too few cycles.
    pub(crate) fn climb(&self) -> Option<f64> {
        let floors = self.floors.get(1..).filter(|floors| floors.len() + 1 >= ENOUGH)?;
        let mut slopes: Vec<f64> = Vec::new();
        for (at, early) in floors.iter().enumerate() {
            for (later, late) in floors.iter().enumerate().skip(at + 1) {
                slopes.push((*late as f64 - *early as f64) / (later - at) as f64);
            }
        }
        slopes.sort_by(f64::total_cmp);
        slopes.get(slopes.len() / 2).copied()
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
