//! Health of backends: active checks on a schedule, and trials when passing requests raise a suspicion.

use std::{fmt::Display, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::sleep};

use crate::{
    backend::Backend,
    config::HealthCheck,
    upstream::{ConnectError, ProbeError, connect, probe},
    world::{Pool, World},
};

/// Trial connections of a backend that is down grow apart up to this many times the first wait.
const MAX_BACKOFF: u32 = 16;

/// Watches all backends of the current snapshot, whichever that is. Ends only when a watch does, which
/// none should.
pub async fn watch_health(world: Arc<World>) {
    let mut published = world.published();
    loop {
        published.borrow_and_update();
        let mut watches = JoinSet::new();
        for pool in &world.snapshot.load().pools {
            for backend in &pool.backends {
                watches.spawn_local(watch(Arc::clone(pool), Arc::clone(backend)));
            }
        }
        // What has been counted is in the backends: a watch that begins anew goes on where it was.
        tokio::select! {
            _ = published.changed() => {}
            // None at all when no backend is known yet.
            Some(_) = watches.join_next() => return,
        }
    }
}

async fn watch(pool: Arc<Pool>, backend: Arc<Backend>) {
    match &pool.health {
        Some(check) => check_actively(&pool, &backend, check).await,
        None => try_when_suspected(&backend, pool.timeouts.connect).await,
    }
}

async fn check_actively(pool: &Pool, backend: &Backend, check: &HealthCheck) {
    let mut last = None;
    loop {
        let result = probe(backend, check, pool.instance_header.as_ref()).await;
        if let Err(ProbeError::Connect(ConnectError::Local(_))) = &result {
            tracing::error!(pool = %backend.pool, backend = backend.name(), "health check not made: short of resources");
            sleep(check.interval).await;
            continue;
        }
        let ok = result.is_ok();
        let failed = result.as_ref().err();
        if let Err(error) = &result
            && last != Some(false)
        {
            tracing::info!(pool = %backend.pool, backend = backend.name(), %error, "health check failed");
        }
        if let Ok(Some(id)) = &result {
            pool.heard_instance(backend, id);
        }
        last = Some(ok);
        backend.checked(failed.map(|error| error as &dyn Display), check);
        // A suspicion is looked into at once; the pause keeps a failing backend from being hammered.
        tokio::select! {
            () = sleep(spread(check.interval)) => {}
            () = backend.suspected() => sleep(check.interval.min(SOON)).await,
        }
    }
}

async fn try_when_suspected(backend: &Backend, limit: Duration) {
    let mut backoff = 1;
    loop {
        if backend.member.is_up() {
            backoff = 1;
            backend.suspected().await;
        } else {
            sleep(backend.passive.retry * backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
        match connect(backend, limit).await {
            Ok(_) => backend.tried(None),
            // Not tried at all, if the fault is ours: again, when there is another reason to.
            Err(error) => {
                if let Some(evidence) = error.evidence() {
                    backend.tried(Some((evidence, &error)));
                }
                // A suspicion that is still open is looked into again, but not in a tight loop.
                sleep(SOON).await;
            }
        }
    }
}

const SOON: Duration = Duration::from_millis(100);

/// Up to a tenth more or less, so that checks of many backends do not fall together.
fn spread(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() * 0.2)
}
