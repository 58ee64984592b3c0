//! This build against another one of ours, row by row, in turn: has it become slower?
//!
//! The other build first runs against itself, which shows how far two runs of the same differ on
//! this machine at this time. A row fails if it is clear that this build is slower.

use std::path::Path;

use crate::contestant::{Contestant, Lab};
use crate::error::Error;
use crate::process;
use crate::rows::{Bar, Row};
use crate::table::{self, Spread, Verdict};

/// How many pairs of rounds there are unless told otherwise.
pub const PAIRS: usize = 10;

/// A row fails if its whole interval lies below this.
const AT_LEAST: f64 = 0.95;

/// The first two lines of the table.
pub const HEAD: &str = "\
| what | connections × in flight | other / other: median (interval) | this / other: median (interval) | |
|---|---|---|---|---|
";

/// What stands below the table.
pub const NOTES: &str = "\
Each ratio is that of a pair of rounds, one of each build; more is better. The interval is all of them but
the least and the greatest: of ten, it has the true median in it 98 times in 100. A row is missed if its
whole interval lies below 0.95.
";

/// Measures one row; its line, and the verdict.
pub fn measure(lab: &Lab, row: &Row, other: &Path) -> (String, Verdict) {
    let measured = || -> Result<[Spread; 2], Error> {
        let this = process::own_folder()?;
        let noise = compare(lab, row, [other, other])?;
        Ok([noise, compare(lab, row, [&this, other])?])
    };
    line(row, measured())
}

/// Each build in turn, the first one's figures divided by the second one's.
fn compare(lab: &Lab, row: &Row, builds: [&Path; 2]) -> Result<Spread, Error> {
    let mut sides = Vec::new();
    for build in builds {
        process::use_programs_in(build);
        let side = (row.ours)(lab, row.clients)?;
        sides.push((build, side));
    }
    let mut ratios = Vec::new();
    for pair in 0..lab.scale.rounds {
        let mut values = [0.0; 2];
        // Neither is always the first.
        for turn in [pair % 2, 1 - pair % 2] {
            let (build, side): &mut (&Path, Box<dyn Contestant>) = &mut sides[turn];
            process::use_programs_in(build);
            values[turn] = side.round()?.value;
        }
        ratios.push(match row.bar {
            Bar::Ratio(_) => values[0] / values[1],
            Bar::AtMost(..) => values[1] / values[0],
        });
    }
    for (_, side) in &mut sides {
        side.finish()?;
    }
    Ok(interval(ratios))
}

/// All but the least and the greatest, if there are enough of them.
fn interval(mut ratios: Vec<f64>) -> Spread {
    ratios.sort_by(f64::total_cmp);
    let ends = usize::from(ratios.len() > 2);
    let inner = ratios[ends..ratios.len() - ends].iter().copied();
    Spread::of(inner).expect("there is a pair at least")
}

fn line(row: &Row, measured: Result<[Spread; 2], Error>) -> (String, Verdict) {
    let load = table::load(row);
    let (cells, verdict) = match measured {
        Ok(spreads) => {
            let verdict = match spreads[1].max < AT_LEAST {
                true => Verdict::Missed,
                false => Verdict::Met,
            };
            let [noise, ratio] = spreads.map(|spread| spread.to_string());
            (format!("{noise} | {ratio}"), verdict)
        }
        Err(error) => {
            let (text, verdict) = table::why_not(&error);
            (format!("{text} | "), verdict)
        }
    };
    let text = format!("| {} | {load} | {cells} | {verdict} |\n", row.name());
    (text, verdict)
}

/// Each row of ours once: what it is against does not matter here.
pub fn only_ours(rows: Vec<Row>) -> Vec<Row> {
    let mut ours: Vec<Row> = Vec::new();
    for mut row in rows {
        let key = |row: &Row| (row.what.clone(), row.clients);
        if !ours.iter().any(|other| key(other) == key(&row)) {
            row.theirs = None;
            ours.push(row);
        }
    }
    ours
}
