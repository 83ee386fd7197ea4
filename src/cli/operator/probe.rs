//! `homing probe`: health checks where there is no other HTTP client, as in a small container image.

use std::time::Duration;

use http::{Method, StatusCode};

use super::{
    client::Client,
    screen::{print, print_lines},
    show::text,
    trouble::Trouble,
};

/// Prints what `url` answers (`/readyz` of the admin listener, without one).
///
/// # Errors
///
/// When nothing answers there, or something else than 2xx.
pub(super) async fn probe(url: Option<&str>) -> Result<(), Trouble> {
    let (base, path) = match url {
        Some(url) => split(url).map(|(base, path)| (Some(base), path))?,
        None => (None, "/readyz"),
    };
    let client = Client::without_token(base)?;
    let (status, body) = match client.answer(Method::GET, path, None, Duration::ZERO).await {
        Err(Trouble::Unreachable { place, error }) => {
            return Err(Trouble::Failed(format!("cannot reach {place}: {error}")));
        }
        Err(Trouble::Strange { place, why }) => return Err(Trouble::Failed(format!("{place}: {why}"))),
        answer => answer?,
    };
    if status.is_success() {
        return if body.is_empty() { print_lines([String::from("ok")]) } else { print(&text(&body)) };
    }
    Err(refused(status, &text(&body)))
}

/// The listener and the path of a URL.
fn split(url: &str) -> Result<(&str, &str), Trouble> {
    let wrong =
        || Trouble::Usage(format!("`{}` is not such as http://127.0.0.1:3000/healthz", url.escape_debug()));
    let authority = url.strip_prefix("http://").ok_or_else(wrong)?;
    let at = url.len() - authority.len() + authority.find('/').ok_or_else(wrong)?;
    let (base, path) = url.split_at(at);
    // What is no request target is no part of one, either.
    path.parse::<http::Uri>().map_err(|_| wrong())?;
    Ok((base, path))
}

fn refused(status: StatusCode, said: &str) -> Trouble {
    let said = said.trim_end();
    Trouble::Failed(if said.is_empty() {
        format!("status {status}")
    } else {
        format!("status {status}: {said}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_listener_and_a_path() {
        for (url, parts) in [
            ("http://127.0.0.1:3000/healthz", ("http://127.0.0.1:3000", "/healthz")),
            ("http://[::1]:80/", ("http://[::1]:80", "/")),
            ("http://app/up?deep=1", ("http://app", "/up?deep=1")),
        ] {
            assert_eq!(split(url).unwrap(), parts, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_asked_for_is_wrong_usage() {
        for url in ["https://a/b", "http://a", "a/b", "/readyz", "http://a/b c"] {
            assert!(matches!(split(url), Err(Trouble::Usage(_))), "{url}");
        }
    }
}
