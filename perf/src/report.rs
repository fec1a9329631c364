//! Results as Markdown for people, JSON for programs and SVG for the eye.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::compare::{Measured, Round};
use crate::rivals::YARDSTICK;
use crate::scenario::Scenario;

/// What was measured, where and when.
#[derive(Debug, Serialize)]
pub struct About {
    pub date: String,
    pub machine: String,
    /// Of this repository.
    pub commit: String,
    /// What the servers say of their versions.
    pub servers: String,
    pub rounds: usize,
}

/// The middle of some figures.
fn median(rounds: &[Round], pick: fn(&Round) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(pick).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn spread(rounds: &[Round], pick: fn(&Round) -> f64) -> String {
    let all = rounds.iter().map(pick);
    format!("{:.0}–{:.0}", all.clone().fold(f64::MAX, f64::min), all.fold(0.0, f64::max))
}

/// What a run says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verdict {
    /// A goal was not met.
    pub missed: bool,
    /// Requests failed, or there is nothing to compare with: the figures mean nothing.
    pub failed: bool,
}

/// Every goal of packhouse in a scenario, and whether it was met. `other` is the yardstick.
fn goals(scenario: &Scenario, rounds: &[Round], other: Option<&[Round]>) -> Vec<(String, bool)> {
    let ratio = |pick: fn(&Round) -> f64| other.map(|other| median(rounds, pick) / median(other, pick));
    let least = |what: &str, goal: Option<f64>, reached: Option<f64>| {
        goal.map(|goal| (format!("{what} ≥ {goal}"), reached.is_some_and(|reached| reached >= goal)))
    };
    let most = |what: &str, goal: Option<f64>, reached: Option<f64>| {
        goal.map(|goal| (format!("{what} ≤ {goal}"), reached.is_some_and(|reached| reached <= goal)))
    };
    [
        least("throughput", scenario.goal_throughput, ratio(|r| r.throughput)),
        most("CPU", scenario.goal_cpu, ratio(|r| r.cpu)),
        most("p99", scenario.goal_p99, ratio(|r| r.p99_ms)),
        most("first byte ms", scenario.goal_first_ms, Some(median(rounds, |r| r.first_ms))),
        most("peak MiB", scenario.goal_peak_mib, Some(median(rounds, |r| r.peak_mib))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Writes all three.
pub fn write(out: &Path, about: &About, all: &[Measured]) -> io::Result<Verdict> {
    std::fs::create_dir_all(out)?;
    let About { date, machine, commit, servers, rounds } = about;
    let mut text = format!(
        "# {date}\n\n{machine}. {rounds} rounds, all servers in turns, medians; the load generator on the same machine. CPU is the server's own, per GiB or per 1,000 requests (lists: per million entries). Commit {commit}; {servers}.\n\n"
    );
    text.push_str("| scenario | server | /s (spread) | CPU s | p50 ms | p99 ms | p99.9 ms | first byte ms | peak, steady MiB | switches | throughput × | CPU × | goal |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    let mut verdict = Verdict::default();
    let mut bars = BTreeMap::new();
    for Measured { scenario, rounds } in all {
        let yardstick = rounds.get(YARDSTICK).map(Vec::as_slice);
        let own = rounds.get("packhouse").map(Vec::as_slice);
        verdict.failed |= yardstick.is_none();
        for (name, rounds) in rounds {
            let ratio = |pick| yardstick.map(|other| median(rounds, pick) / median(other, pick));
            let (throughput, cpu) = (ratio(|r| r.throughput), ratio(|r| r.cpu));
            let mut reached = Vec::new();
            if name == "packhouse" {
                bars.insert(scenario.name.clone(), (throughput, cpu));
                reached = goals(scenario, rounds, yardstick);
            }
            let variant =
                scenario.variants.iter().find(|variant| *name == format!("packhouse {}", variant.name));
            if let (Some(goal), Some(own)) = (variant.and_then(|variant| variant.goal_cpu), own) {
                let reached_cpu = median(rounds, |r| r.cpu) / median(own, |r| r.cpu);
                reached.push((
                    format!("CPU ≤ {goal} of its own without ({reached_cpu:.2})"),
                    reached_cpu <= goal,
                ));
            }
            verdict.missed |= reached.iter().any(|(_, met)| !met);
            let shown =
                |(text, met): &(String, bool)| format!("{text} {}", if *met { "met" } else { "**missed**" });
            let goal = reached.iter().map(shown).collect::<Vec<_>>().join(", ");
            let shown = |ratio: Option<f64>| ratio.map_or("–".into(), |ratio| format!("{ratio:.2}"));
            writeln!(
                text,
                "| {} | {name} | {:.0} ({}) | {:.3} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0}, {:.0} | {:.0} | {} | {} | {goal} |",
                scenario.title,
                median(rounds, |r| r.throughput),
                spread(rounds, |r| r.throughput),
                median(rounds, |r| r.cpu),
                median(rounds, |r| r.p50_ms),
                median(rounds, |r| r.p99_ms),
                median(rounds, |r| r.p999_ms),
                median(rounds, |r| r.first_ms),
                median(rounds, |r| r.peak_mib),
                median(rounds, |r| r.steady_mib),
                median(rounds, |r| r.switches as f64),
                shown(throughput),
                shown(cpu)
            )
            .ok();
            let failures: usize = rounds.iter().map(|round| round.failures).sum();
            if failures > 0 {
                writeln!(text, "| | {name} | **{failures} requests failed** | | | | | | | | | | |").ok();
                verdict.failed |= name == "packhouse" || name == YARDSTICK;
            }
        }
    }
    std::fs::write(out.join("results.md"), &text)?;
    std::fs::write(out.join("results.json"), json!({"about": about, "results": all}).to_string())?;
    std::fs::write(out.join("results.svg"), svg(&bars))?;
    Ok(verdict)
}

/// Two bars a scenario: throughput and processor time, as ratios to the yardstick, which is the line at 1.
fn svg(bars: &BTreeMap<String, (Option<f64>, Option<f64>)>) -> String {
    const ROW: usize = 44;
    const SCALE: f64 = 160.0;
    let height = bars.len() * ROW + 50;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n<text x=\"220\" y=\"16\">packhouse as a ratio to {YARDSTICK}: throughput (blue, more is better), processor time (red, less is better)</text>\n"
    );
    for (row, (name, (throughput, cpu))) in bars.iter().enumerate() {
        let y = row * ROW + 30;
        writeln!(out, "<text x=\"210\" y=\"{}\" text-anchor=\"end\">{name}</text>", y + 20).ok();
        for (at, (value, colour)) in [(throughput, "#3b6fb6"), (cpu, "#b64a3b")].into_iter().enumerate() {
            let Some(value) = value else { continue };
            let y = y + at * 18;
            writeln!(
                out,
                "<rect x=\"220\" y=\"{y}\" width=\"{:.1}\" height=\"15\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{value:.2}</text>",
                (value * SCALE).min(480.0),
                224.0 + (value * SCALE).min(480.0),
                y + 12
            )
            .ok();
        }
    }
    let x = 220.0 + SCALE;
    writeln!(
        out,
        "<line x1=\"{x}\" y1=\"24\" x2=\"{x}\" y2=\"{}\" stroke=\"#888\" stroke-dasharray=\"4\"/>\n</svg>",
        height - 16
    )
    .ok();
    out
}
