//! The dashboard's files: embedded, so that the page needs no installation and no other server.
//!
//! They run under a Content-Security-Policy without inline script or style: whoever adds one here sees
//! it refused by the browser.

/// One file of the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asset {
    /// For the Content-Type field.
    pub(super) content_type: &'static str,
    /// What it holds.
    pub(super) body: &'static [u8],
}

/// The file at this path of the admin listener.
pub(super) fn asset(path: &str) -> Option<Asset> {
    let name = match path.strip_prefix('/')? {
        "" => "index.html",
        name => name,
    };
    let (name, body) = *FILES.iter().find(|(file, _)| *file == name)?;
    let content_type = match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    };
    Some(Asset { content_type, body })
}

const FILES: [(&str, &[u8]); 15] = [
    ("index.html", include_bytes!("dashboard/index.html")),
    ("dashboard.css", include_bytes!("dashboard/dashboard.css")),
    ("favicon.svg", include_bytes!("dashboard/favicon.svg")),
    ("dashboard.js", include_bytes!("dashboard/dashboard.js")),
    ("client.js", include_bytes!("dashboard/client.js")),
    ("backend.js", include_bytes!("dashboard/backend.js")),
    ("change.js", include_bytes!("dashboard/change.js")),
    ("chart.js", include_bytes!("dashboard/chart.js")),
    ("dom.js", include_bytes!("dashboard/dom.js")),
    ("explain.js", include_bytes!("dashboard/explain.js")),
    ("feed.js", include_bytes!("dashboard/feed.js")),
    ("format.js", include_bytes!("dashboard/format.js")),
    ("history.js", include_bytes!("dashboard/history.js")),
    ("pool.js", include_bytes!("dashboard/pool.js")),
    ("problems.js", include_bytes!("dashboard/problems.js")),
];
