//! The affinity core against a shadow model, under a virtual clock.
//!
//! A seed makes a pool, its settings, its clients and everything that happens to them. After each step the
//! core and the shadow must agree on every number; on the way, on every decision. `SEEDS=100000 cargo test
//! --test simulation` sweeps widely, `SEED=7` replays one seed.

#[path = "simulation/answers.rs"]
mod answers;
#[path = "simulation/browsers.rs"]
mod browsers;
#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/jar.rs"]
mod jar;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/scenes.rs"]
mod scenes;
#[path = "simulation/upgrade.rs"]
mod upgrade;
#[path = "simulation/world.rs"]
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use world::World;

/// Seeds in the normal run, and steps for each.
const SEEDS: u64 = 400;
const STEPS: usize = 400;
/// Steps shown of a run that failed.
const TAIL: usize = 30;

#[test]
fn the_core_agrees_with_its_shadow() {
    if let Some(seed) = number("SEED") {
        return run(seed, true);
    }
    for seed in 0..number("SEEDS").unwrap_or(SEEDS) {
        run(seed, false);
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn run(seed: u64, all: bool) {
    let mut world = World::new(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..STEPS {
            world.step();
        }
        world.finish();
    }));
    if let Err(panic) = outcome {
        let skip = if all { 0 } else { world.log.len().saturating_sub(TAIL) };
        for line in &world.log[skip..] {
            eprintln!("{line}");
        }
        eprintln!("replay by: SEED={seed} cargo test --test simulation");
        resume_unwind(panic);
    }
}
