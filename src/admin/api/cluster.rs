//! What the replicas that share sessions know of one another.

use serde::{Deserialize, Serialize};

use crate::{
    admin::reply::{Failure, Reply, json},
    store::redis::{Census, Summary},
    world::World,
};

/// The cluster, as this replica was told lately.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// This replica's name.
    pub replica: String,
    /// Where Redis is, without a password.
    pub redis: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// `closed` while requests ask Redis, `open` or `half-open` while they go on without it.
    pub breaker: String,
    /// Changes of sessions that Redis has yet to be told of.
    pub pending: usize,
    /// What Redis says while it refuses to keep sessions.
    pub refusal: Option<String>,
    /// Whether the other replicas have another `secret_file`, so that nothing is shared.
    pub secret_differs: bool,
    /// Replicas that have told of themselves lately, by name; this one as it is now.
    pub replicas: Vec<Summary>,
    /// How many sessions live where, each counted once; none when nobody has counted.
    pub census: Option<Census>,
    /// Why nobody has.
    pub census_missing: Option<String>,
}

/// Shows the cluster.
pub(in crate::admin) fn cluster(world: &World) -> Result<Reply, Failure> {
    let Some(shared) = &world.shared else {
        return Err(Failure::Conflict(
            "this proxy shares its sessions with nobody: see `redis` in `[state]`".into(),
        ));
    };
    let known = shared.cluster(world);
    let census_missing = known.census.is_none().then(|| {
        if shared.counts() {
            "no replica has counted yet".to_owned()
        } else {
            "sessions in a Redis Cluster are not counted: its keys cannot be walked over".to_owned()
        }
    });
    Ok(json(&ClusterStatus {
        replica: shared.replica().to_owned(),
        redis: shared.url(),
        connected: shared.is_connected(),
        breaker: shared.state().as_str().to_owned(),
        pending: shared.pending(),
        refusal: shared.refusal().map(Into::into),
        secret_differs: shared.secret_differs(),
        replicas: known.replicas,
        census: known.census,
        census_missing,
    }))
}
