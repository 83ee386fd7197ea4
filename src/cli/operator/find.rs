//! From what a user writes to the backend that is meant.

use super::{client::Client, trouble::Trouble};
use crate::admin::api::{PoolStatus, Status};

/// A backend that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) pool: String,
    pub(super) backend: String,
}

// === impl Found ===

impl Found {
    /// Asks the proxy which backend `name` is: `NAME` or `POOL/NAME`.
    pub(super) async fn find(client: &Client, name: &str, pool: Option<&str>) -> Result<Self, Trouble> {
        let status: Status = client.get("/api/v1/status").await?;
        Self::among(&status.pools, name, pool)
    }

    fn among(pools: &[PoolStatus], name: &str, pool: Option<&str>) -> Result<Self, Trouble> {
        let (within, backend) = match name.split_once('/') {
            Some((within, backend)) => (Some(within), backend),
            None => (pool, name),
        };
        let all = || {
            pools.iter().flat_map(|pool| pool.backends.iter().map(|backend| (&*pool.name, &*backend.name)))
        };
        let found: Vec<_> =
            all().filter(|(p, b)| *b == backend && within.is_none_or(|within| within == *p)).collect();
        let list = |pairs: &mut dyn Iterator<Item = (&str, &str)>| {
            pairs.map(|(pool, backend)| format!("{pool}/{backend}")).collect::<Vec<_>>().join(", ")
        };
        match found[..] {
            [(pool, backend)] => Ok(Self { pool: pool.to_owned(), backend: backend.to_owned() }),
            [] => Err(Trouble::NotFound(format!(
                "there is no backend `{}`; there are {}",
                name.escape_debug(),
                list(&mut all())
            ))),
            _ => Err(Trouble::Usage(format!(
                "several pools have a backend `{backend}`: write one of {}",
                list(&mut found.iter().copied())
            ))),
        }
    }

    /// The path of something about it.
    pub(super) fn path(&self, action: &str) -> String {
        format!("/api/v1/pools/{}/backends/{}/{action}", self.pool, self.backend)
    }

    /// As messages call it.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.pool, self.backend)
    }
}
