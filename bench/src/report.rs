//! Tables and plots of what was seen, for people: results.md, and SVG files beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::plot::{Series, distribution, lines};
use crate::record::{Record, thin};
use crate::scale::Scale;
use crate::sim::fleet::{Calibration, Fleet};
use crate::stock::Stock;

/// What a run of the bench has brought.
pub struct Findings<'f> {
    /// How large it was.
    pub scale: &'f Scale,
    /// What was distributed.
    pub stock: &'f Stock,
    /// What was measured of single transfers.
    pub calibration: Calibration,
    /// The contenders.
    pub measured: &'f [Record],
    /// The same, simulated.
    pub predicted: &'f [Record],
    /// Larger fleets.
    pub simulated: &'f [(Fleet, Vec<Record>)],
}

impl Findings<'_> {
    /// Writes everything into a folder, and returns the tables.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<String> {
        let mut text = self.measured_tables();
        text += &self.accuracy();
        for (fleet, records) in self.simulated {
            text += &simulated_table(fleet, records);
        }
        fs::write(folder.join("results.md"), &text)?;
        for (name, plot) in self.plots() {
            fs::write(folder.join(format!("{name}.svg")), plot)?;
        }
        Ok(text)
    }

    fn measured_tables(&self) -> String {
        let scale = self.scale;
        let mut out = format!(
            "# Fleet bench: {} nodes in {} stores\n\n\
             Window {} s; lines: {} to a store, {} from the data centre, {} ms, {} of a million frames lost; bundle {}, \
             of which a node needs {}; seed {}.\n\n",
            scale.nodes(),
            scale.stores,
            scale.window.as_secs(),
            rate(scale.store_rate as f64),
            rate(scale.uplink as f64),
            scale.round_trip.as_millis(),
            scale.loss_ppm,
            size(self.stock.bundle_bytes as f64),
            size(self.stock.needs()),
            scale.seed,
        );
        out += &table(self.measured);
        out
    }

    /// How far the simulation is from what was measured.
    fn accuracy(&self) -> String {
        let given = self.calibration;
        let mut out = format!(
            "\n## The simulation of the same fleet, beside it\n\n\
             Taken as given, measured of one node alone: {:.3} bytes on the line for each byte of content, {:.1} % of a \
             line used, {} of metadata and {:.2} s for each run of the agent. Each cell: simulated, measured, and by how much \
             the simulation is off.\n\n\
             | | peak load | bytes sent | half have everything | 95 % have | success |\n\
             | --- | ---: | ---: | ---: | ---: | ---: |\n",
            given.wire,
            given.usable * 100.0,
            size(given.metadata),
            given.run,
        );
        for predicted in self.predicted {
            let Some(measured) = self.measured.iter().find(|m| m.name == predicted.name) else { continue };
            let (is, should) = (predicted.figures(), measured.figures());
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                measured.name,
                beside(Some(is.peak), Some(should.peak), rate),
                beside(Some(is.sent), Some(should.sent), size),
                beside(is.half, should.half, seconds),
                beside(is.most, should.most, seconds),
                points(is.success, should.success),
            );
        }
        out
    }

    fn plots(&self) -> Vec<(&'static str, String)> {
        let both = || {
            let measured = self.measured.iter().enumerate().map(|(i, r)| (i, r, false));
            measured.chain(self.predicted.iter().enumerate().map(|(i, r)| (i, r, true)))
        };
        let names: Vec<String> = both()
            .map(|(_, r, dashed)| format!("{}{}", r.name, if dashed { ", simulated" } else { "" }))
            .collect();
        let series = |points: &dyn Fn(&Record) -> Vec<(f64, f64)>| -> Vec<Series<'_>> {
            both()
                .zip(&names)
                .map(|((colour, r, dashed), name)| Series { name, points: points(r), dashed, colour })
                .collect()
        };
        let measured = |points: &dyn Fn(&Record) -> Vec<(f64, f64)>| -> Vec<Series<'_>> {
            series(points).into_iter().filter(|s| !s.dashed).collect()
        };
        let title =
            |what: &str| format!("{what}, {} nodes in {} stores", self.scale.nodes(), self.scale.stores);
        let mega =
            |points: Vec<(f64, f64)>| points.into_iter().map(|(x, y)| (x, y / 1e6)).collect::<Vec<_>>();
        let mut out = vec![
            (
                "load",
                lines(
                    &title("Load of the data centre's line"),
                    "seconds",
                    "Mbit/s",
                    &series(&|r| mega(r.load(120))),
                ),
            ),
            (
                "completion",
                lines(
                    &title("Nodes that have everything"),
                    "seconds",
                    "part of all",
                    &series(&Record::completion),
                ),
            ),
            (
                "bytes",
                lines(
                    &title("Bytes to a store for each byte its nodes need"),
                    "bytes on the line / bytes needed",
                    "part of the stores",
                    &measured(&|r| thin(distribution(bytes_per_needed(r, self.scale.nodes_per_store)))),
                ),
            ),
            (
                "retries",
                lines(
                    &title("Tries beyond the first"),
                    "tries",
                    "part of the nodes",
                    &measured(&|r| {
                        thin(distribution(r.tries.iter().map(|t| f64::from(t.saturating_sub(1)))))
                    }),
                ),
            ),
        ];
        if let Some((fleet, records)) = self.simulated.first() {
            let hours = |points: Vec<(f64, f64)>| {
                points.into_iter().map(|(x, y)| (x / 3600.0, y)).collect::<Vec<_>>()
            };
            let of = |points: &dyn Fn(&Record) -> Vec<(f64, f64)>| -> Vec<Series<'_>> {
                let one = |(colour, r): (usize, _)| Series {
                    name: name_of(r),
                    points: hours(points(r)),
                    dashed: false,
                    colour,
                };
                records.iter().enumerate().map(one).collect()
            };
            let title = |what: &str| format!("{what}, {} nodes, simulated", fleet.nodes());
            let load = title("Load of the data centre's line");
            out.push(("load-simulated", lines(&load, "hours", "Mbit/s", &of(&|r| mega(r.load(240))))));
            let have = title("Nodes that have everything");
            out.push((
                "completion-simulated",
                lines(&have, "hours", "part of all", &of(&Record::completion)),
            ));
        }
        out
    }
}

fn name_of(record: &Record) -> &str {
    &record.name
}

/// Of each store.
fn bytes_per_needed(record: &Record, nodes_per_store: usize) -> Vec<f64> {
    let needs = record.needs.chunks(nodes_per_store).map(|nodes| nodes.iter().sum::<f64>());
    record.stores.iter().zip(needs).map(|(bytes, needs)| bytes / needs.max(1.0)).collect()
}

/// A row for each contender.
fn table(records: &[Record]) -> String {
    let all_at_once = records.iter().find(|r| r.name == "curl").map(|r| r.figures().peak);
    let mut out = String::from(
        "| | peak load | of all at once | success | hit by a fault | of these, recovered without hands | need hands | \
         half / 95 % have everything | bytes sent / needed | retries of a node |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for record in records {
        let f = record.figures();
        let hands = record.done.iter().filter(|done| done.is_none()).count();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {hands} | {} / {} | {:.2} | {:.2} |",
            record.name,
            rate(f.peak),
            all_at_once.map_or("-".into(), |all| percent(f.peak / all)),
            percent(f.success),
            percent(f.hit),
            f.recovered.map_or("-".into(), percent),
            f.half.map_or("never".into(), seconds),
            f.most.map_or("never".into(), seconds),
            f.bytes_per_needed,
            f.retries,
        );
    }
    out
}

fn simulated_table(fleet: &Fleet, records: &[Record]) -> String {
    let mut out = format!(
        "\n## {} nodes in {} stores, simulated\n\n\
         Window {}; lines: {} to a store, {} from the data centre; bundle {}, of which a node needs {}, at {}; turns within {}, where no other time is said.\n\n",
        fleet.nodes(),
        fleet.stores,
        seconds(fleet.window),
        rate(fleet.store_rate),
        rate(fleet.uplink),
        size(fleet.bundle),
        size(fleet.needs_of(0)),
        rate(fleet.rate),
        seconds(fleet.pace.spread_over as f64),
    );
    out += &table(records);
    out
}

/// A value, the one that it should be, and the difference to it.
fn beside(is: Option<f64>, should: Option<f64>, show: fn(f64) -> String) -> String {
    let text = |value: Option<f64>| value.map_or("never".into(), show);
    let off = match (is, should) {
        (Some(is), Some(should)) if should > 0.0 => format!(" ({:+.1} %)", (is / should - 1.0) * 100.0),
        _ => String::new(),
    };
    format!("{}, {}{off}", text(is), text(should))
}

fn points(is: f64, should: f64) -> String {
    format!("{}, {} ({:+.1} points)", percent(is), percent(should), (is - should) * 100.0)
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn rate(bits: f64) -> String {
    format!("{:.1} Mbit/s", bits / 1e6)
}

fn size(bytes: f64) -> String {
    match bytes {
        b if b >= 1e12 => format!("{:.2} TB", b / 1e12),
        b if b >= 1e9 => format!("{:.2} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.2} MB", b / 1e6),
        b => format!("{:.1} kB", b / 1e3),
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s >= 7200.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_said_and_not_divided_by() {
        assert_eq!(beside(None, Some(3.0), seconds), "never, 3.0 s");
        assert_eq!(beside(Some(4.4), Some(4.0), seconds), "4.4 s, 4.0 s (+10.0 %)");
        assert_eq!(beside(Some(1.0), None, seconds), "1.0 s, never");
        let nobody = Record {
            name: "x".into(),
            done: vec![None],
            hit: vec![false],
            tries: vec![0],
            ..Record::default()
        };
        let text = table(&[nobody]);
        assert!(text.contains("never / never") && !text.contains("NaN"), "{text}");
    }
}
