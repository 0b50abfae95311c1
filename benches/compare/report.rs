//! Samples, medians, the table and its JSON.

use serde_json::{Value, json};

use super::targets::Kind;

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// pgsplit's divided by PgBouncer's.
    OfPgBouncer(f64),
    AtMost(f64),
    /// Shown without a goal.
    None,
}

#[derive(Debug)]
struct Row {
    case: String,
    metric: &'static str,
    goal: Goal,
    samples: Vec<(Kind, f64)>,
}

impl Row {
    fn of(&self, kind: Kind) -> Vec<f64> {
        let mine = self.samples.iter().filter(|(k, _)| *k == kind);
        mine.map(|(_, sample)| *sample).collect()
    }

    fn median(&self, kind: Kind) -> Option<f64> {
        median(self.of(kind))
    }

    /// Median of the ratios within a round: what else the machine did is in both.
    fn ratio(&self, to: Kind) -> Option<f64> {
        let (ours, theirs) = (self.of(Kind::Pgsplit), self.of(to));
        median(ours.iter().zip(theirs).map(|(a, b)| a / b).collect())
    }

    /// None: nothing to judge.
    fn reached(&self) -> Option<bool> {
        match self.goal {
            Goal::OfPgBouncer(limit) => Some(self.ratio(Kind::PgBouncer)? <= limit),
            Goal::AtMost(limit) => Some(self.median(Kind::Pgsplit)? <= limit),
            Goal::None => None,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        case: &str,
        metric: &'static str,
        goal: Goal,
        kind: Kind,
        sample: Option<f64>,
    ) {
        let place = self
            .rows
            .iter()
            .position(|row| row.case == case && row.metric == metric);
        let samples = sample.map(|sample| (kind, sample));
        match place.and_then(|place| self.rows.get_mut(place)) {
            Some(row) => row.samples.extend(samples),
            None => {
                let row = Row {
                    case: case.to_owned(),
                    metric,
                    goal,
                    samples: samples.into_iter().collect(),
                };
                // A case's rows stay together.
                let last = self.rows.iter().rposition(|row| row.case == case);
                let place = last.map_or(self.rows.len(), |last| last + 1);
                self.rows.insert(place, row);
            }
        }
    }

    pub(crate) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<24} {:<22} {:>9} {:>9} {:>9}  {:>9} {:>8}  {}\n",
            "", "median", "no proxy", "PgBouncer", "pgsplit", "/PgBouncer", "/no proxy", "goal"
        );
        let mut last = "";
        for row in &self.rows {
            let case = if row.case == last { "" } else { &row.case };
            last = &row.case;
            let goal = match row.goal {
                Goal::OfPgBouncer(limit) => format!("<= {limit:.2} of PgBouncer's"),
                Goal::AtMost(limit) => format!("<= {limit}"),
                Goal::None => String::new(),
            };
            let verdict = match row.reached() {
                Some(true) => "  reached",
                Some(false) => "  MISSED",
                None => "",
            };
            let line = format!(
                "{case:<24} {:<22} {:>9} {:>9} {:>9}  {:>10} {:>9}  {goal}{verdict}",
                row.metric,
                figure(row.median(Kind::Direct)),
                figure(row.median(Kind::PgBouncer)),
                figure(row.median(Kind::Pgsplit)),
                ratio(row.ratio(Kind::PgBouncer)),
                ratio(row.ratio(Kind::Direct)),
            );
            text += line.trim_end();
            text.push('\n');
        }
        for note in &self.notes {
            text += &format!("- {note}\n");
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "case": row.case,
                    "metric": row.metric,
                    "direct": row.of(Kind::Direct),
                    "pgbouncer": row.of(Kind::PgBouncer),
                    "pgsplit": row.of(Kind::Pgsplit),
                    "ratio_to_pgbouncer": row.ratio(Kind::PgBouncer),
                    "ratio_to_direct": row.ratio(Kind::Direct),
                    "goal_reached": row.reached(),
                })
            })
            .collect();
        json!({ "rows": rows, "notes": self.notes })
    }
}

pub(crate) fn median(mut samples: Vec<f64>) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    let upper = samples.get(middle).copied()?;
    if samples.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(samples.get(middle - 1).copied()?, upper))
}

fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 1_000.0 => format!("{value:.0}"),
        Some(value) if value >= 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}
