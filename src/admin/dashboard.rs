//! The files of the dashboard, as they are built in.

/// A file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asset {
    /// Its Content-Type.
    pub(super) content_type: &'static str,
    pub(super) body: &'static [u8],
}

/// The file at this path, if there is one.
pub(super) fn asset(path: &str) -> Option<Asset> {
    match path {
        "/" => Some(Asset { content_type: "text/plain; charset=utf-8", body: INDEX }),
        _ => None,
    }
}

const INDEX: &[u8] = b"homing\n\n\
    /metrics        Prometheus metrics\n\
    /livez          the process runs\n\
    /readyz         it accepts clients\n\
    /api/v1/status  everything at a glance, as JSON\n";
