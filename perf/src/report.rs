//! Results as Markdown for people, JSON for programs and SVG for the eye.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde_json::json;

use crate::compare::{Measured, Round};
use crate::rivals::YARDSTICK;

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

/// Writes all three; true if every goal was met.
pub fn write(out: &Path, machine: &str, rounds: usize, all: &[Measured]) -> io::Result<bool> {
    std::fs::create_dir_all(out)?;
    let date = std::process::Command::new("date").arg("-uI").output()?;
    let date = String::from_utf8_lossy(&date.stdout).trim().to_owned();
    let mut text = format!(
        "# {date}\n\n{machine}. {rounds} rounds, all servers in turns, medians; the load generator on the same machine. CPU is the server's own, per GiB or per 1,000 requests.\n\n"
    );
    text.push_str("| scenario | server | /s (spread) | CPU s | p50 ms | p99 ms | p99.9 ms | first byte ms | peak, steady MiB | switches | throughput × | CPU × | goal |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    let mut met = true;
    let mut bars = BTreeMap::new();
    for Measured { scenario, rounds } in all {
        let yardstick = rounds.get(YARDSTICK);
        for (name, rounds) in rounds {
            let ratio = |pick| yardstick.map(|other| median(rounds, pick) / median(other, pick));
            let (throughput, cpu) = (ratio(|r| r.throughput), ratio(|r| r.cpu));
            let mut goal = String::new();
            if name == "packhouse" {
                bars.insert(scenario.name.clone(), (throughput, cpu));
                let reached =
                    scenario.goal_throughput.is_none_or(|goal| throughput.is_none_or(|x| x >= goal))
                        && scenario.goal_cpu.is_none_or(|goal| cpu.is_none_or(|x| x <= goal))
                        && scenario.goal_first_ms.is_none_or(|goal| median(rounds, |r| r.first_ms) <= goal)
                        && scenario.goal_peak_mib.is_none_or(|goal| median(rounds, |r| r.peak_mib) <= goal);
                met &= reached;
                let shown =
                    |goal: Option<f64>, sign| goal.map_or("–".into(), |goal| format!("{sign} {goal}"));
                goal = format!(
                    "{}, {}{}{}: {}",
                    shown(scenario.goal_throughput, '≥'),
                    shown(scenario.goal_cpu, '≤'),
                    scenario.goal_first_ms.map_or(String::new(), |goal| format!(", first ≤ {goal} ms")),
                    scenario.goal_peak_mib.map_or(String::new(), |goal| format!(", ≤ {goal} MiB")),
                    if reached { "met" } else { "**missed**" }
                );
            }
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
                met = false;
            }
        }
    }
    std::fs::write(out.join("results.md"), &text)?;
    std::fs::write(
        out.join("results.json"),
        json!({"date": date, "machine": machine, "rounds": rounds, "results": all}).to_string(),
    )?;
    std::fs::write(out.join("results.svg"), svg(&bars))?;
    Ok(met)
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
