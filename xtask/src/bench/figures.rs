//! From runs to a table: medians, ratios within a turn, and who wins.
//!
//! Pure. Lower is better in every row. A ratio is ours divided by theirs, taken turn by turn, because a machine that
//! was busy in one turn was busy for both.

use std::fmt;

/// What one run gave.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) value: f64,
    /// What went wrong while it was measured: lost messages, connections that failed.
    pub(super) faults: Vec<String>,
}

/// A program that is measured.
#[derive(Clone, Debug)]
pub(super) struct Contestant {
    pub(super) name: String,
    pub(super) role: Role,
}

/// Why a contestant is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// We.
    Ours,
    /// The one that no row may lose to.
    Rival,
    /// For comparison.
    Peer,
    /// What remains without any contestant; the others are told by what they add to it.
    Nothing,
}

/// What a row must reach. A row without one must be no worse than the rival.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bar {
    /// At most this multiple of what the contestant of this name needs, in the middle of the turns.
    Times(f64, &'static str),
    /// At most this, in the row's unit.
    AtMost(f64),
}

/// A row: one question, its unit, and for each contestant what its runs gave.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What `--row` calls it.
    pub(super) name: &'static str,
    /// What a reader calls it.
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    /// How much worse than the rival still counts as equal: 0, but for latencies, where two runs of one program differ
    /// by more than programs do.
    pub(super) noise: f64,
    /// All of them must be reached.
    pub(super) bars: &'static [Bar],
    /// By contestant, by turn.
    pub(super) runs: Vec<Vec<Result<Measured, String>>>,
}

/// All rows of a suite.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) contestants: Vec<Contestant>,
    pub(super) rows: Vec<Row>,
}

/// A number with what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) what: String,
    pub(super) expected: String,
    pub(super) seen: String,
    pub(super) well: bool,
}

/// The smallest, the middle and the largest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

pub(super) fn ours(name: &str) -> Contestant {
    Contestant { name: name.to_owned(), role: Role::Ours }
}

pub(super) fn rival(name: &str) -> Contestant {
    Contestant { name: name.to_owned(), role: Role::Rival }
}

pub(super) fn peer(name: &str) -> Contestant {
    Contestant { name: name.to_owned(), role: Role::Peer }
}

pub(super) fn nothing(name: &str) -> Contestant {
    Contestant { name: name.to_owned(), role: Role::Nothing }
}

impl Measured {
    #[cfg(test)]
    pub(super) const fn of(value: f64) -> Self {
        Self { value, faults: Vec::new() }
    }
}

/// The best of some runs that follow each other, number by number: for latencies, which one stall of the machine spoils.
/// Every contestant gets the same number of tries. What went wrong in any of them is kept.
pub(super) fn best_of(
    tries: usize,
    mut run: impl FnMut() -> Result<Vec<Measured>, String>,
) -> Result<Vec<Measured>, String> {
    let mut best = run()?;
    for _ in 1..tries {
        for (best, next) in best.iter_mut().zip(run()?) {
            best.value = best.value.min(next.value);
            best.faults.extend(next.faults);
        }
    }
    Ok(best)
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&figure(self.value))?;
        if self.faults.is_empty() { Ok(()) } else { write!(f, " ({})", self.faults.join(", ")) }
    }
}

impl Spread {
    /// `None` without numbers.
    pub(super) fn of(mut numbers: Vec<f64>) -> Option<Self> {
        numbers.sort_by(f64::total_cmp);
        let (&min, &max) = (numbers.first()?, numbers.last()?);
        let middle = numbers.len() / 2;
        let median = if numbers.len() % 2 == 1 {
            numbers[middle]
        } else {
            (numbers[middle - 1] + numbers[middle]) / 2.0
        };
        Some(Self { min, median, max })
    }
}

impl Row {
    pub(super) const fn new(name: &'static str, what: &'static str, unit: &'static str) -> Self {
        Self { name, what, unit, noise: 0.0, bars: &[], runs: Vec::new() }
    }

    pub(super) const fn with_bars(mut self, bars: &'static [Bar]) -> Self {
        self.bars = bars;
        self
    }

    pub(super) const fn with_noise(mut self, share: f64) -> Self {
        self.noise = share;
        self
    }

    fn values(&self, contestant: usize) -> Vec<f64> {
        let runs = self.runs.get(contestant).map_or(&[][..], Vec::as_slice);
        runs.iter().flatten().map(|measured| measured.value).collect()
    }

    /// Ours over theirs in each turn where both have a number.
    fn ratios(&self, ours: usize, theirs: usize) -> Option<Spread> {
        self.pairs(ours, theirs, |ours, theirs| (theirs > 0.0).then(|| ours / theirs))
    }

    /// What `of` makes of the two numbers of each turn that has both.
    fn pairs(&self, first: usize, second: usize, of: fn(f64, f64) -> Option<f64>) -> Option<Spread> {
        let turns = self.runs.get(first)?.iter().zip(self.runs.get(second)?);
        let both = turns.filter_map(|turn| match turn {
            (Ok(first), Ok(second)) => of(first.value, second.value),
            _ => None,
        });
        Spread::of(both.collect())
    }

    /// Everything that went wrong for a contestant, each thing once.
    fn faults(&self, contestant: usize) -> Vec<String> {
        let mut faults = Vec::new();
        for run in self.runs.get(contestant).into_iter().flatten() {
            match run {
                Ok(measured) => faults.extend(measured.faults.iter().cloned()),
                Err(reason) => faults.push(reason.clone()),
            }
        }
        faults.dedup();
        faults
    }
}

impl Table {
    pub(super) fn new(title: &str, contestants: Vec<Contestant>) -> Self {
        Self { title: title.to_owned(), contestants, rows: Vec::new() }
    }

    pub(super) fn record(&mut self, row: usize, contestant: usize, result: Result<Measured, String>) {
        let runs = &mut self.rows[row].runs;
        runs.resize(self.contestants.len().max(runs.len()), Vec::new());
        runs[contestant].push(result);
    }

    fn place_of(&self, role: Role) -> Option<usize> {
        self.contestants.iter().position(|contestant| contestant.role == role)
    }

    fn place_called(&self, name: &str) -> Option<usize> {
        self.contestants.iter().position(|contestant| contestant.name == name)
    }

    /// What a row must reach, in words; empty if nothing is asked of it.
    fn asked(&self, row: &Row) -> String {
        let one = |bar: &Bar| match *bar {
            Bar::Times(limit, name) => times(limit, name),
            Bar::AtMost(limit) => format!("≤ {}", short(limit)),
        };
        match (row.bars, self.place_of(Role::Rival)) {
            ([], None) => String::new(),
            ([], Some(rival)) => times(1.0 + row.noise, &self.contestants[rival].name),
            (bars, _) => bars.iter().map(one).collect::<Vec<_>>().join(", "),
        }
    }

    /// Whether every bar of the row is reached and nothing went wrong in our runs; `None` if that cannot be said.
    fn reached(&self, row: &Row) -> Option<bool> {
        let ours = self.place_of(Role::Ours)?;
        if !row.faults(ours).is_empty() {
            return Some(false);
        }
        let within = |theirs: Option<usize>, limit: f64| Some(row.ratios(ours, theirs?)?.median <= limit);
        if row.bars.is_empty() {
            return within(self.place_of(Role::Rival), 1.0 + row.noise);
        }
        let mut all = Some(true);
        for bar in row.bars {
            let one = match *bar {
                Bar::Times(limit, name) => within(self.place_called(name), limit),
                Bar::AtMost(limit) => Spread::of(row.values(ours)).map(|spread| spread.median <= limit),
            };
            all = match (all, one) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            };
        }
        all
    }

    /// The table and, below it, what went wrong in its runs.
    pub(super) fn markdown(&self) -> String {
        let ours = self.place_of(Role::Ours).unwrap_or(0);
        let others = |wanted: fn(Role) -> bool| -> Vec<usize> {
            (0..self.contestants.len())
                .filter(|&place| place != ours && wanted(self.contestants[place].role))
                .collect()
        };
        let (others, compared) = (others(|_| true), others(|role| role != Role::Nothing));
        let name = |place: usize| self.contestants[place].name.clone();
        let mut head = ["", "row", "unit", "bar"].map(str::to_owned).to_vec();
        head.push(name(ours));
        head.extend(others.iter().map(|&place| name(place)));
        head.extend(compared.iter().map(|&place| format!("ours / {}", name(place))));
        head.push(super::tables::NAME.to_owned());
        let mut lines = vec![head];
        for row in &self.rows {
            let sign = self.reached(row).map_or("", sign);
            let mut cells = vec![sign.to_owned(), row.what.to_owned(), row.unit.to_owned(), self.asked(row)];
            let places = std::iter::once(&ours).chain(&others);
            cells.extend(places.map(|&place| {
                Spread::of(row.values(place)).map_or_else(|| "–".to_owned(), |spread| figure(spread.median))
            }));
            cells.extend(compared.iter().map(|&place| ratio(row.ratios(ours, place))));
            cells.push(row.name.to_owned());
            lines.push(cells);
        }
        format!("### {}\n\n{}{}{}", self.title, grid(&lines), self.additions(), self.notes())
    }

    /// A line for each row: what `--row` calls it, what it is, its bar.
    pub(super) fn list(&self) -> String {
        let line = |row: &Row| {
            let bar = self.asked(row);
            let bar = if bar.is_empty() { bar } else { format!(", {bar}") };
            format!("    {:<20} {} ({}{bar})\n", row.name, row.what, row.unit)
        };
        self.rows.iter().map(line).collect()
    }

    /// What each contestant adds to nothing, where nothing was measured.
    fn additions(&self) -> String {
        let Some(nothing) = self.place_of(Role::Nothing) else { return String::new() };
        let mut text = String::new();
        for row in &self.rows {
            let added = |place: usize| {
                let spread = row.pairs(place, nothing, |with, without| Some(with - without))?;
                Some(format!("{} {}", self.contestants[place].name, figure(spread.median)))
            };
            let all: Vec<_> = (0..nothing).filter_map(added).collect();
            if !all.is_empty() {
                text += &format!(
                    "\n{}, added to {}, in {}: ",
                    row.what, self.contestants[nothing].name, row.unit
                );
                text += &format!("{}.\n", all.join(", "));
            }
        }
        text
    }

    fn notes(&self) -> String {
        let mut notes = String::new();
        for row in &self.rows {
            for (place, contestant) in self.contestants.iter().enumerate() {
                let faults = row.faults(place);
                if !faults.is_empty() {
                    notes += &format!("- {}, {}: {}\n", row.what, contestant.name, faults.join("; "));
                }
            }
        }
        if notes.is_empty() { notes } else { format!("\nWhat went wrong in these runs:\n\n{notes}") }
    }
}

/// The verdicts as a table.
pub(super) fn verdicts_markdown(title: &str, verdicts: &[Verdict]) -> String {
    let mut lines = vec![["", "what", "must be", "is"].map(str::to_owned).to_vec()];
    lines.extend(verdicts.iter().map(|Verdict { what, expected, seen, well }| {
        vec![sign(*well).to_owned(), what.clone(), expected.clone(), seen.clone()]
    }));
    format!("### {title}\n\n{}", grid(&lines))
}

const fn sign(well: bool) -> &'static str {
    if well { "✓" } else { "✗" }
}

/// `median (min–max)`; the median alone where there was one turn.
fn ratio(spread: Option<Spread>) -> String {
    let Some(Spread { min, median, max }) = spread else { return "–".to_owned() };
    if min == max {
        figure(median)
    } else {
        format!("{} ({}–{})", figure(median), figure(min), figure(max))
    }
}

/// `≤ mosquitto / 40 (0.0250)`, `≤ 1.1 × relay`, `≤ nginx`.
fn times(limit: f64, name: &str) -> String {
    let parts = (1.0 / limit).round();
    if limit == 1.0 {
        format!("≤ {name}")
    } else if limit < 0.5 && (1.0 / limit - parts).abs() < 1e-6 {
        format!("≤ {name} / {parts} ({})", figure(limit))
    } else {
        format!("≤ {} × {name}", short(limit))
    }
}

/// A limit as people write it: `1`, `0.025`.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Three digits that count, which are more than such a machine can promise; a bar of 1/40 and what misses it by a
/// hundredth differ in the third.
fn figure(value: f64) -> String {
    /// Digits behind the point, where a number is smaller than anything that is measured.
    const MOST: i32 = 6;
    if value == 0.0 {
        return "0".to_owned();
    }
    let behind_point = (2 - value.abs().log10().floor() as i32).clamp(0, MOST);
    format!("{value:.*}", behind_point as usize)
}

/// A markdown table whose columns also stand in line when it is read as plain text. The first line is the head.
pub(super) fn grid(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        let cells = widths.iter().enumerate().map(|(column, &width)| {
            let cell = line.get(column).map_or("", String::as_str);
            format!(" {cell:<width$} ")
        });
        text += &format!("|{}|\n", cells.collect::<Vec<_>>().join("|"));
        if at == 0 {
            let rule = widths.iter().map(|&width| "-".repeat(width + 2));
            text += &format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ours_runs: &[f64], rival_runs: &[f64]) -> Table {
        let mut table = Table::new("t", vec![ours("we"), rival("they"), peer("others")]);
        table.rows = vec![Row::new("r", "a row", "s")];
        for &value in ours_runs {
            table.record(0, 0, Ok(Measured::of(value)));
        }
        for &value in rival_runs {
            table.record(0, 1, Ok(Measured::of(value)));
        }
        table
    }

    #[test]
    fn the_spread_of_numbers_is_their_least_middle_and_greatest() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0]), Some(Spread { min: 1.0, median: 2.5, max: 4.0 }));
    }

    #[test]
    fn a_ratio_compares_within_a_turn() {
        let table = table(&[1.0, 10.0, 3.0], &[2.0, 20.0, 3.0]);
        assert_eq!(table.rows[0].ratios(0, 1), Some(Spread { min: 0.5, median: 0.5, max: 1.0 }));
        assert_eq!(table.rows[0].ratios(0, 2), None);
    }

    #[test]
    fn a_turn_without_a_number_is_left_out() {
        let mut table = table(&[1.0, 8.0], &[0.0, 4.0]);
        table.record(0, 0, Err("it died".to_owned()));
        table.record(0, 1, Ok(Measured::of(1.0)));
        assert_eq!(table.rows[0].ratios(0, 1), Some(Spread { min: 2.0, median: 2.0, max: 2.0 }));
    }

    #[track_caller]
    fn check_reached(
        ours_runs: &[f64],
        rival_runs: &[f64],
        change: impl Fn(Row) -> Row,
        reached: Option<bool>,
    ) {
        let table = table(ours_runs, rival_runs);
        assert_eq!(table.reached(&change(table.rows[0].clone())), reached);
    }

    #[test]
    fn as_good_wins_and_worse_loses() {
        check_reached(&[2.0], &[2.0], |row| row, Some(true));
        check_reached(&[2.1], &[2.0], |row| row, Some(false));
        check_reached(&[2.0], &[], |row| row, None);
        check_reached(&[2.1], &[2.0], |row| row.with_noise(0.1), Some(true));
        check_reached(&[2.3], &[2.0], |row| row.with_noise(0.1), Some(false));
    }

    #[test]
    fn a_bar_stands_in_place_of_the_rival_and_every_one_must_be_reached() {
        check_reached(&[1.0], &[2.0], |row| row.with_bars(&[Bar::Times(0.5, "they")]), Some(true));
        check_reached(&[1.1], &[2.0], |row| row.with_bars(&[Bar::Times(0.5, "they")]), Some(false));
        check_reached(&[3.0], &[2.0], |row| row.with_bars(&[Bar::AtMost(3.0)]), Some(true));
        let both: &[Bar] = &[Bar::AtMost(3.0), Bar::Times(1.0, "they")];
        check_reached(&[2.0], &[2.0], |row| row.with_bars(both), Some(true));
        check_reached(&[2.5], &[2.0], |row| row.with_bars(both), Some(false));
        check_reached(&[3.5], &[4.0], |row| row.with_bars(both), Some(false));
        check_reached(&[2.0], &[], |row| row.with_bars(both), None);
        check_reached(&[4.0], &[], |row| row.with_bars(both), Some(false));
        let table = table(&[1.0], &[1.0]);
        assert_eq!(table.asked(&table.rows[0].clone().with_bars(both)), "≤ 3, ≤ they");
        assert_eq!(table.asked(&table.rows[0].clone().with_noise(0.1)), "≤ 1.1 × they");
        let part: &[Bar] = &[Bar::Times(1.0 / 44.0, "they")];
        assert_eq!(table.asked(&table.rows[0].clone().with_bars(part)), "≤ they / 44 (0.0227)");
    }

    #[test]
    fn a_fault_of_ours_loses_the_row_and_is_told() {
        let mut table = table(&[1.0], &[2.0, 2.0]);
        table.record(0, 0, Ok(Measured { value: 1.0, faults: vec!["lost 3 of 9".to_owned()] }));
        assert_eq!(table.reached(&table.rows[0]), Some(false));
        assert!(table.markdown().ends_with("\n- a row, we: lost 3 of 9\n"), "{}", table.markdown());
    }

    #[test]
    fn the_table_is_markdown_that_can_be_read_as_text() {
        let expected = "\
### t

|   | row   | unit | bar    | we   | they | others | ours / they         | ours / others | --row |
|---|-------|------|--------|------|------|--------|---------------------|---------------|-------|
| ✓ | a row | s    | ≤ they | 1.50 | 12.0 | –      | 0.125 (0.100–0.150) | –             | r     |
";
        assert_eq!(table(&[1.0, 2.0], &[10.0, 2.0 / 0.15]).markdown().replace("11.7", "12.0"), expected);
    }

    #[test]
    fn the_best_run_counts_and_no_fault_is_forgotten() {
        let mut runs = [(3.0, "a"), (1.0, "b"), (2.0, "c")].into_iter();
        let best = best_of(3, || {
            let (value, fault) = runs.next().ok_or("too many")?;
            let faults = vec![fault.to_owned()];
            Ok(vec![Measured { value, faults }, Measured::of(-value)])
        });
        let first = Measured { value: 1.0, faults: vec!["a".into(), "b".into(), "c".into()] };
        assert_eq!(best.unwrap(), [first, Measured::of(-3.0)]);
        assert_eq!(best_of(2, || Err("no".to_owned())), Err("no".to_owned()));
    }

    #[test]
    fn what_a_contestant_adds_to_nothing_is_told_below() {
        let mut table = Table::new("t", vec![ours("we"), peer("others"), nothing("nothing")]);
        table.rows = vec![Row::new("a", "row a", "s"), Row::new("b", "row b", "µs")];
        for (contestant, value) in [(0, 5.0), (1, 7.5), (2, 4.0)] {
            table.record(1, contestant, Ok(Measured::of(value)));
        }
        let text = table.markdown();
        assert!(text.ends_with("\nrow b, added to nothing, in µs: we 1.00, others 3.50.\n"), "{text}");
        assert!(!text.contains("ours / nothing") && text.contains("ours / others"), "{text}");
    }

    #[test]
    fn one_turn_has_no_spread() {
        assert_eq!(ratio(Spread::of(vec![0.5])), "0.500");
        assert_eq!(ratio(Spread::of(vec![0.5, 0.25, 1.0])), "0.500 (0.250–1.00)");
        assert_eq!(ratio(None), "–");
    }

    #[test]
    fn a_list_has_every_row_with_its_bar() {
        assert_eq!(table(&[], &[]).list(), "    r                    a row (s, ≤ they)\n");
    }

    #[test]
    fn figures_have_three_digits_that_count() {
        let all = [0.0, 0.002534, 0.02534, 0.1234, 1.234, 12.34, 123.4, 1234.5].map(figure);
        assert_eq!(all, ["0", "0.00253", "0.0253", "0.123", "1.23", "12.3", "123", "1234"]);
    }
}
