//! Prints how long one verdict takes, by the number of rules: `cargo run --release -p aasm-policy --example evaluate_speed`.

use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use aasm_policy::{Call, Kind, PolicySet, Source, evaluate, load};
use serde_json::value::RawValue;

const SAMPLES: usize = 201;
const CALLS_A_SAMPLE: u32 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:<28}{:>8}{:>16}{:>16}{:>16}", "patterns", "rules", "load", "allowed", "denied by none");
    for (what, pattern) in PATTERNS {
        for rules in [1, 100, 1000] {
            let text = policy(rules, *pattern);
            let start = Instant::now();
            let set = load(&[Source { name: "speed.yaml", text: &text }])?;
            let load = start.elapsed();
            let allowed = median_nanos(&set, &format!("tool_{:04}_run", rules / 2))?;
            let denied = median_nanos(&set, "another_tool_altogether")?;
            println!("{what:<28}{rules:>8}{load:>16.1?}{allowed:>13} ns{denied:>13} ns");
        }
    }
    Ok(())
}

type Pattern = fn(usize) -> String;

const PATTERNS: &[(&str, Pattern)] = &[
    ("exact names", |number| format!("tool_{number:04}_run")),
    ("prefixes", |number| format!("tool_{number:04}_*")),
    ("star in the middle", |number| format!("tool*{number:04}*run")),
    ("a third of each", |number| match number % 3 {
        0 => format!("tool_{number:04}_run"),
        1 => format!("tool_{number:04}_*"),
        _ => format!("tool*{number:04}*run"),
    }),
];

/// Every tenth rule denies.
fn policy(rules: usize, pattern: Pattern) -> String {
    let head = "apiVersion: agent-assembly/v1\nkind: Policy\nmetadata: {name: speed}\nrules:\n";
    let mut text = head.to_owned();
    for number in 0..rules {
        let effect = if number % 10 == 9 { "deny" } else { "allow" };
        let tool = pattern(number);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  - {{id: rule-{number}, on: tool, match: {{tool: \"{tool}\"}}, effect: {effect}}}");
    }
    text
}

fn median_nanos(set: &PolicySet, tool: &str) -> Result<u128, Box<dyn Error>> {
    let args: Box<RawValue> = RawValue::from_string(r#"{"path":"/workspace/a.txt","limit":20,"all":true}"#.to_owned())?;
    let call = Call { kind: Kind::Tool, tool, framework: Some("langchain"), server: None, args: &args };
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let start = Instant::now();
        for _ in 0..CALLS_A_SAMPLE {
            black_box(evaluate(black_box(&[set]), black_box(&call)));
        }
        samples.push(start.elapsed().as_nanos() / u128::from(CALLS_A_SAMPLE));
    }
    samples.sort_unstable();
    Ok(samples.get(SAMPLES / 2).copied().unwrap_or_default())
}
