//! From host and path to a pool: the most specific route wins, whatever their order in the file.

use std::collections::HashMap;

use crate::{
    config::{HostPattern, Route},
    path::{Disagree, Path},
};

/// All routes, arranged for look-up.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<Box<str>, Paths>,
    /// By suffix with its leading dot; the longest first.
    wildcard: Vec<(Box<str>, Paths)>,
    any: Paths,
}

/// The routes of one host, the longest prefix first.
#[derive(Debug, Default)]
struct Paths(Vec<(Box<str>, usize)>);

// === impl Routes ===

impl Routes {
    /// Arranges routes.
    pub fn new(routes: &[Route]) -> Self {
        let mut this = Self::default();
        for (index, route) in routes.iter().enumerate() {
            let paths = match &route.host {
                HostPattern::Any => &mut this.any,
                HostPattern::Exact(host) => this.exact.entry(host.clone()).or_default(),
                HostPattern::Wildcard(suffix) => {
                    let at = this.wildcard.iter().position(|(known, _)| known == suffix);
                    let at = at.unwrap_or_else(|| {
                        this.wildcard.push((suffix.clone(), Paths::default()));
                        this.wildcard.len() - 1
                    });
                    &mut this.wildcard[at].1
                }
            };
            paths.0.push((route.path.clone(), index));
        }
        this.wildcard.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        let all = this.exact.values_mut().chain(this.wildcard.iter_mut().map(|(_, paths)| paths));
        for paths in all.chain([&mut this.any]) {
            paths.0.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        }
        this
    }

    /// The index of the route for a host (in its canonical spelling) and a path (without query), whichever way that is
    /// read.
    ///
    /// # Errors
    ///
    /// [`Disagree`] when it may be another one for another reader.
    pub fn decide(&self, host: &str, path: &Path<'_>) -> Result<Option<usize>, Disagree> {
        path.decide(|path| self.find(host, path), || self.whole(host).map(Some))
    }

    /// The index of the route for a host and a path as it is. A host whose routes do not cover the path falls back to
    /// the next less specific host.
    fn find(&self, host: &str, path: &str) -> Option<usize> {
        self.of(host).find_map(|paths| paths.find(path))
    }

    /// The route that takes every path of a host, if there is only one.
    fn whole(&self, host: &str) -> Option<usize> {
        match self.of(host).find(|paths| !paths.0.is_empty())?.0[..] {
            [(ref prefix, route)] if &**prefix == "/" => Some(route),
            _ => None,
        }
    }

    /// Those of a host, the most specific first.
    fn of(&self, host: &str) -> impl Iterator<Item = &Paths> {
        let wildcard = self.wildcard.iter();
        let wildcard =
            wildcard.filter(move |(suffix, _)| host.len() > suffix.len() && host.ends_with(&**suffix));
        self.exact.get(host).into_iter().chain(wildcard.map(|(_, paths)| paths)).chain([&self.any])
    }
}

// === impl Paths ===

impl Paths {
    fn find(&self, path: &str) -> Option<usize> {
        self.0.iter().find(|(prefix, _)| covers(prefix, path)).map(|&(_, route)| route)
    }
}

/// Whether `prefix` covers `path` on a segment boundary.
fn covers(prefix: &str, path: &str) -> bool {
    if prefix == "/" {
        return true;
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(list: &[(&str, &str)]) -> Routes {
        let routes: Vec<_> = list
            .iter()
            .enumerate()
            .map(|(pool, (host, path))| Route {
                host: match host.strip_prefix('*') {
                    Some("") => HostPattern::Any,
                    Some(suffix) => HostPattern::Wildcard(suffix.into()),
                    None => HostPattern::Exact((*host).into()),
                },
                path: (*path).into(),
                pool,
                body_size: None,
            })
            .collect();
        Routes::new(&routes)
    }

    #[test]
    fn an_exact_host_beats_a_wildcard_and_a_wildcard_beats_any() {
        let routes = routes(&[("*", "/"), ("*.example.org", "/"), ("shop.example.org", "/")]);
        assert_eq!(routes.find("shop.example.org", "/"), Some(2));
        assert_eq!(routes.find("www.example.org", "/"), Some(1));
        assert_eq!(routes.find("example.org", "/"), Some(0));
    }

    #[test]
    fn the_longest_wildcard_wins() {
        let routes = routes(&[("*.org", "/"), ("*.example.org", "/")]);
        assert_eq!(routes.find("a.example.org", "/"), Some(1));
        assert_eq!(routes.find("example.org", "/"), Some(0));
    }

    #[test]
    fn a_prefix_matches_on_segment_boundaries_only() {
        let routes = routes(&[("*", "/api"), ("*", "/api/v2/")]);
        assert_eq!(routes.find("x", "/api"), Some(0));
        assert_eq!(routes.find("x", "/api/v1"), Some(0));
        assert_eq!(routes.find("x", "/api/v2/users"), Some(1));
        assert_eq!(routes.find("x", "/apix"), None);
    }

    #[test]
    fn a_host_that_does_not_cover_the_path_falls_back() {
        let routes = routes(&[("shop.example.org", "/cart"), ("*", "/")]);
        assert_eq!(routes.find("shop.example.org", "/cart"), Some(0));
        assert_eq!(routes.find("shop.example.org", "/news"), Some(1));
    }

    #[test]
    fn a_path_that_may_be_read_as_anything_has_a_route_only_where_all_have() {
        let routes = routes(&[("*", "/"), ("shop.test", "/public"), ("api.test", "/"), ("api.test", "/v1")]);
        let path = Path::of("/public/..%2fx");
        assert_eq!(routes.decide("any.test", &path), Ok(Some(0)));
        assert_eq!(routes.decide("shop.test", &path), Err(Disagree));
        assert_eq!(routes.decide("api.test", &path), Err(Disagree));
    }
}
