//! `homing top`.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{
    args::Top,
    client::Client,
    screen::{Interrupts, Screen, is_terminal, print_lines},
    show::{backend_table, only, print_json, summary},
    table::{bar, human_seconds},
    trouble::Trouble,
};
use crate::{
    admin::api::{BackendStatus, PoolStatus, Status},
    clock,
};

/// Requests of each backend at the last look, and when that was.
#[derive(Default)]
struct Rates {
    at: Option<Instant>,
    before: HashMap<(String, String), u64>,
    /// Requests a second since the look before.
    now: HashMap<(String, String), f64>,
}

/// Looks at the proxy until Ctrl-C.
pub(super) async fn top(args: &Top) -> Result<(), Trouble> {
    let client = Client::new(&args.connect)?;
    let mut interrupts = Interrupts::new()?;
    let mut rates = Rates::default();
    let drawing = !args.connect.json && is_terminal();
    // The first answer before the screen is taken: an error then stays readable.
    let mut status = look(&client, args, &mut interrupts).await?;
    let mut screen = if drawing { Some(Screen::whole()?) } else { None };
    let mut looks = 0;
    loop {
        rates.learn(&status.pools, clock::now());
        match &mut screen {
            Some(screen) => screen.draw(&picture(&status, &rates))?,
            None if args.connect.json => print_json(&status)?,
            None => print_lines(lines(&status, &rates))?,
        }
        looks += 1;
        if args.count.is_some_and(|count| looks >= count) {
            return Ok(());
        }
        let next = async {
            interrupts.sleep(args.interval.max(SHORTEST)).await?;
            look(&client, args, &mut interrupts).await
        };
        status = match next.await {
            // That is how it is meant to end.
            Err(Trouble::Interrupted) => return Ok(()),
            result => result?,
        };
    }
}

async fn look(client: &Client, args: &Top, interrupts: &mut Interrupts) -> Result<Status, Trouble> {
    let mut status: Status = interrupts.or(client.get("/api/v1/status")).await??;
    only(&mut status.pools, args.connect.pool.as_deref())?;
    Ok(status)
}

fn picture(status: &Status, rates: &Rates) -> Vec<String> {
    let (columns, _) = Screen::size();
    let mut lines = summary(status);
    for pool in &status.pools {
        let name = pool.backends.iter().map(|backend| backend.name.len()).max().unwrap_or(0);
        let most = pool.backends.iter().map(|backend| backend.live).max().unwrap_or(0).max(1);
        lines.push(String::new());
        lines.push(format!(
            "pool {}  {}  {} live sessions  skew {:.2}",
            pool.name,
            pool.balance,
            pool.backends.iter().map(|backend| backend.live).sum::<u64>(),
            pool.skew
        ));
        // Name, state, numbers and spaces take the rest.
        let width = columns.saturating_sub(name + 46).clamp(8, 60);
        for backend in &pool.backends {
            lines.push(format!(
                "  {:<name$}  {:<11}  {}  {:>6} live {:>3.0}%  {:>8.1}/s",
                backend.name,
                backend.state,
                bar(backend.live as f64 / most as f64, width),
                backend.live,
                backend.share * 100.0,
                rates.of(pool, backend),
            ));
        }
    }
    lines.push(String::new());
    lines.extend(backend_table(&status.pools).lines());
    lines.extend([String::new(), "Ctrl-C ends".to_owned()]);
    lines
}

fn lines(status: &Status, rates: &Rates) -> Vec<String> {
    let line = |pool: &PoolStatus, backend: &BackendStatus| {
        let mut line = format!(
            "{} {}/{} {} weight={} live={} share={:.0}% retained={} streams={} in_flight={} requests/s={:.1}",
            status.time,
            pool.name,
            backend.name,
            backend.state,
            backend.weight,
            backend.live,
            backend.share * 100.0,
            backend.retained,
            backend.streams,
            backend.in_flight,
            rates.of(pool, backend),
        );
        if let Some(eta) = backend.drain_eta_seconds {
            line.push_str(&format!(" eta={}", human_seconds(eta).replace(' ', "")));
        }
        line
    };
    let pools = status.pools.iter();
    pools
        .flat_map(|pool| pool.backends.iter().map(|backend| line(pool, backend)).collect::<Vec<_>>())
        .collect()
}

// === impl Rates ===

impl Rates {
    fn learn(&mut self, pools: &[PoolStatus], now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now - at).as_secs_f64();
        self.at = Some(now);
        for pool in pools {
            for backend in &pool.backends {
                let key = (pool.name.clone(), backend.name.clone());
                let before = self.before.insert(key.clone(), backend.requests_total);
                // Fewer than before: the proxy has restarted.
                let more = before.map_or(0, |before| backend.requests_total.saturating_sub(before));
                self.now.insert(key, if passed > 0.0 { more as f64 / passed } else { 0.0 });
            }
        }
    }

    fn of(&self, pool: &PoolStatus, backend: &BackendStatus) -> f64 {
        self.now.get(&(pool.name.clone(), backend.name.clone())).copied().unwrap_or_default()
    }
}

const SHORTEST: Duration = Duration::from_millis(100);
