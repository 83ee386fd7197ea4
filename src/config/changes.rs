//! What a reload changes, in words.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    ClientAuth, CloseCode, Config, Effect, LogFilter, Pool, Tls, backend_side,
    effective::{
        write_affinity, write_health, write_issue, write_limits, write_passive, write_pool_timeouts,
        write_state, write_timeouts,
    },
    format_balance, format_duration,
    renames::{Place, renames},
    session::format_leave,
};
use crate::affinity::Settings;

/// What differs between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What takes effect.
    pub applied: Vec<String>,
    /// What takes effect only after a restart.
    pub restart: Vec<String>,
    /// What deserves a second look.
    pub warnings: Vec<String>,
    /// What that does to sessions; in words, it is in `applied`.
    pub effects: Vec<Effect>,
}

impl Changes {
    /// What differs, the old one first.
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self::default();
        let restart = &mut changes.restart;
        words(restart, "listen.https", &old.listen.https, &new.listen.https, ToString::to_string);
        words(restart, "listen.http", &old.listen.http, &new.listen.http, address);
        words(restart, "listen.admin", &old.listen.admin, &new.listen.admin, address);
        words(restart, "admin.socket", &old.admin.socket, &new.admin.socket, |file| path(file.as_ref()));
        words(restart, "workers", &old.workers, &new.workers, ToString::to_string);
        words(restart, "secret_file", &old.secret_file, &new.secret_file, |file| path(file.as_ref()));
        let before = restart.len();
        keys(restart, "state.", &old.state, &new.state, write_state);
        if before == restart.len() && old.state != new.state {
            // A password in a URL is not written.
            restart.push("state.redis: another password".to_owned());
        }
        words(restart, "access_log", &old.access_log, &new.access_log, ToString::to_string);
        let filter = |filter: &LogFilter| filter.as_str().to_owned();
        words(restart, "access_log_filter", &old.access_log_filter, &new.access_log_filter, filter);

        let applied = &mut changes.applied;
        let names = |config: &Config| -> Vec<_> {
            config.certificates.iter().map(|files| files.cert.display().to_string()).collect()
        };
        list(applied, "certificates", &names(old), &names(new));
        let networks =
            |config: &Config| -> Vec<_> { config.trusted_proxies.iter().map(ToString::to_string).collect() };
        list(applied, "trusted_proxies", &networks(old), &networks(new));
        words(applied, "via", &old.via, &new.via, on_off);
        words(
            applied,
            "listen.redirect_port",
            &old.listen.redirect_port,
            &new.listen.redirect_port,
            |port| port.map_or_else(|| "the client's".to_owned(), |port| port.to_string()),
        );
        let senders = |config: &Config| -> Vec<_> {
            config.listen.proxy_protocol.iter().map(ToString::to_string).collect()
        };
        list(applied, "listen.proxy_protocol", &senders(old), &senders(new));
        words(applied, "admin.token_file", &old.admin.token_file, &new.admin.token_file, |file| {
            path(file.as_ref())
        });
        words(applied, "admin.allow_changes", &old.admin.allow_changes, &new.admin.allow_changes, on_off);
        let hosts =
            |config: &Config| -> Vec<_> { config.admin.hosts.iter().map(ToString::to_string).collect() };
        list(applied, "admin.hosts", &hosts(old), &hosts(new));
        let close =
            |code: &Option<CloseCode>| code.map_or_else(|| "none".to_owned(), |code| code.get().to_string());
        words(applied, "websocket_close", &old.websocket_close, &new.websocket_close, close);
        words(applied, "dns_refresh", &old.dns_refresh, &new.dns_refresh, |time| format_duration(*time));
        words(applied, "resolver", &old.resolver, &new.resolver, |resolver| {
            resolver.map_or_else(|| "the system's".to_owned(), |resolver| resolver.to_string())
        });
        words(applied, "log_query", &old.log_query, &new.log_query, on_off);
        words(applied, "hsts", &old.hsts, &new.hsts, time);
        keys(applied, "timeouts.", old, new, |config, out| write_timeouts(&config.timeouts, out));
        keys(applied, "limits.", old, new, |config, out| {
            write_limits(&config.limits, out).and_then(|()| config.edge.write(out))
        });
        let routes = |config: &Config| -> Vec<_> {
            let name = |index: usize| config.pools.get(index).map_or("", |pool| &*pool.name);
            let text = |route: &super::Route| {
                let host = super::address::format_host_pattern(&route.host);
                let mut text = format!("{host}{} -> {}", route.path, name(route.pool));
                if route.body_size != config.limits.body_size {
                    let size = route.body_size.map_or_else(|| "unlimited".to_owned(), super::format_size);
                    text.push_str(&format!(" (body_size {size})"));
                }
                text
            };
            config.routes.iter().map(text).collect()
        };
        list(applied, "routes", &routes(old), &routes(new));
        pools(applied, &old.pools, &new.pools);
        tls(applied, &old.tls, &new.tls);
        changes
    }

    /// Adds what that does to sessions.
    pub fn affect(&mut self, effects: Vec<Effect>) {
        self.applied.extend(effects.iter().map(ToString::to_string));
        self.effects.extend(effects);
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.restart.is_empty()
    }
}

fn tls(words: &mut Vec<String>, old: &Tls, new: &Tls) {
    self::words(words, "tls.min_version", &old.min_version, &new.min_version, |version| {
        version.as_str().to_owned()
    });
    self::words(words, "tls.strict_sni", &old.strict_sni, &new.strict_sni, on_off);
    let auth = |tls: &Tls| tls.clients.as_ref().map_or("off", ClientAuth::word);
    self::words(words, "tls.client_auth", &auth(old), &auth(new), ToString::to_string);
    let file = |tls: &Tls, of: fn(&ClientAuth) -> Option<PathBuf>| tls.clients.as_ref().and_then(of);
    for (name, of) in [
        ("tls.client_ca", (|clients| Some(clients.ca.clone())) as fn(&ClientAuth) -> _),
        ("tls.client_crl", |clients| clients.crl.clone()),
    ] {
        self::words(words, name, &file(old, of), &file(new, of), |file| path(file.as_ref()));
    }
    self::words(words, "tls.client_header", &old.client_header, &new.client_header, ToString::to_string);
    self::words(words, "tls.client_cert", &old.client_cert, &new.client_cert, on_off);
}

fn pools(words: &mut Vec<String>, old: &[Pool], new: &[Pool]) {
    let names = |pools: &[Pool]| -> Vec<_> { pools.iter().map(|pool| pool.name.to_string()).collect() };
    list(words, "pools", &names(old), &names(new));
    for new in new {
        if let Some(old) = old.iter().find(|old| old.name == new.name) {
            let changes = pool(old, new);
            if !changes.is_empty() {
                words.push(format!("pool {}: {}", new.name, changes.join(", ")));
            }
        }
    }
}

fn pool(old: &Pool, new: &Pool) -> Vec<String> {
    let mut words = Vec::new();
    let renamed = renames(&places(old), &places(new));
    let before = |index: usize, name: &str| {
        let from = renamed.iter().find(|(_, to)| *to == index).map(|(from, _)| *from);
        match from {
            Some(from) => old.backends.get(from),
            None => old.backends.iter().find(|old| &*old.name == name),
        }
    };
    for (index, backend) in new.backends.iter().enumerate() {
        match before(index, &backend.name) {
            None => words.push(format!("+ {}", backend.name)),
            Some(old) => {
                if old.name != backend.name {
                    words.push(format!("{} renamed to {}", old.name, backend.name));
                }
                if (&old.host, old.port) != (&backend.host, backend.port) {
                    words.push(format!(
                        "{} {}:{} -> {}:{}",
                        backend.name, old.host, old.port, backend.host, backend.port
                    ));
                }
                if old.weight != backend.weight {
                    words.push(format!("{} weight {} -> {}", backend.name, old.weight, backend.weight));
                }
                let name = |tls: &Option<Box<str>>| tls.as_deref().unwrap_or("off").to_owned();
                self::words(&mut words, &format!("{} tls", backend.name), &old.tls, &backend.tls, name);
                if old.discover != backend.discover {
                    let word = |discover: Option<_>| discover.map_or("off", super::address::format_discover);
                    let (old, new) = (word(old.discover), word(backend.discover));
                    words.push(format!("{} discover {old} -> {new}", backend.name));
                }
            }
        }
    }
    let taken = |name: &str| {
        let same = new.backends.iter().position(|backend| &*backend.name == name);
        same.filter(|index| !renamed.iter().any(|(_, to)| to == index)).is_some()
    };
    let gone = old
        .backends
        .iter()
        .enumerate()
        .filter(|(index, old)| !renamed.iter().any(|(from, _)| from == index) && !taken(&old.name));
    words.extend(gone.map(|(_, backend)| format!("- {}", backend.name)));
    settings(&mut words, &old.affinity, &new.affinity);
    keys(&mut words, "issue.", &old.issue, &new.issue, |issue, out| {
        issue.as_ref().map_or(Ok(()), |issue| write_issue(issue, out))
    });
    keys(&mut words, "health.", &old.health, &new.health, |health, out| {
        health.as_ref().map_or(Ok(()), |health| write_health(health, out))
    });
    keys(&mut words, "passive.", &old.passive, &new.passive, write_passive);
    keys(&mut words, "timeouts.", &old.timeouts, &new.timeouts, write_pool_timeouts);
    keys(&mut words, "tls.", &old.tls, &new.tls, backend_side::write_tls);
    keys(&mut words, "limits.", &old.limits, &new.limits, backend_side::write_limits);
    self::words(&mut words, "keep_alive", &old.keep_alive, &new.keep_alive, ToString::to_string);
    self::words(&mut words, "instance_header", &old.instance_header, &new.instance_header, |name| {
        name.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
    });
    self::words(&mut words, "leave", &old.leave, &new.leave, |leave| format_leave(*leave).to_owned());
    words
}

fn places(pool: &Pool) -> Vec<Place<'_>> {
    pool.backends.iter().map(Place::from).collect()
}

fn settings(words: &mut Vec<String>, old: &Settings, new: &Settings) {
    let before = words.len();
    self::words(words, "balance", &old.balance, &new.balance, |balance| format_balance(*balance).to_owned());
    self::words(words, "slow_start", &old.slow_start, &new.slow_start, |time| format_duration(*time));
    keys(words, "", old, new, |settings, out| write_affinity(settings, true, out));
    if before == words.len() && old != new {
        // A setting that is not named above must not change in silence.
        words.push("affinity changed".to_owned());
    }
}

fn words<T: PartialEq>(list: &mut Vec<String>, name: &str, old: &T, new: &T, say: impl Fn(&T) -> String) {
    if old != new {
        list.push(format!("{name} {} -> {}", say(old), say(new)));
    }
}

/// What differs between two sections, key by key, as they are written in the configuration.
fn keys<T>(
    list: &mut Vec<String>,
    section: &str,
    old: &T,
    new: &T,
    write: impl Fn(&T, &mut String) -> fmt::Result,
) {
    let text = |of: &T| {
        let mut text = String::new();
        write(of, &mut text).expect("writing to a String cannot fail");
        text
    };
    let (old, new) = (text(old), text(new));
    let value = |text: &str, key: &str| {
        let value = text.lines().find_map(|line| line.split_once(" = ").filter(|(name, _)| *name == key));
        value.map_or_else(|| "none".to_owned(), |(_, value)| plain(value))
    };
    let names = |text: &'_ str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once(" = ")?.0.to_owned())).collect()
    };
    let mut all = names(&new);
    all.extend(names(&old).into_iter().filter(|name| !all.contains(name)).collect::<Vec<_>>());
    for name in all {
        words(list, &format!("{section}{name}"), &value(&old, &name), &value(&new, &name), Clone::clone);
    }
}

/// A value of TOML without its quotes and brackets.
fn plain(value: &str) -> String {
    let text = |text: &str| text.trim_matches('"').replace("\\\"", "\"").replace("\\\\", "\\");
    match value.strip_prefix('[').and_then(|items| items.strip_suffix(']')) {
        Some("") => "none".to_owned(),
        Some(items) => items.split(", ").map(text).collect::<Vec<_>>().join(", "),
        None => text(value),
    }
}

fn address(address: &Option<SocketAddr>) -> String {
    address.map_or_else(|| "off".to_owned(), |address| address.to_string())
}

fn path(path: Option<&PathBuf>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}

fn on_off(on: &bool) -> String {
    if *on { "on" } else { "off" }.to_owned()
}

fn time(time: &Option<Duration>) -> String {
    time.map_or_else(|| "none".to_owned(), format_duration)
}

fn list(words: &mut Vec<String>, name: &str, old: &[String], new: &[String]) {
    let added = new.iter().filter(|item| !old.contains(item)).map(|item| format!("+ {item}"));
    let gone = old.iter().filter(|item| !new.contains(item)).map(|item| format!("- {item}"));
    let changes: Vec<_> = added.chain(gone).collect();
    if !changes.is_empty() {
        words.push(format!("{name}: {}", changes.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        let certificate = "certificate = [{ cert = \"c\", key = \"k\" }]\n";
        Config::parse(&format!("{certificate}{text}"), "test", Path::new("")).unwrap()
    }

    fn between(old: &str, new: &str) -> Changes {
        Changes::between(&config(old), &config(new))
    }

    #[test]
    fn the_same_configuration_changes_nothing() {
        let text = "[[pool]]\nname = \"app\"\nbackend = [{ url = \"http://a:1\" }]";
        assert!(between(text, text).is_empty());
    }

    #[test]
    fn backends_come_go_and_change_in_words() {
        let old = "[[pool]]\nname = \"app\"\nbackend = [{ name = \"app-1\", url = \"http://a:1\" }, \
                   { name = \"app-2\", url = \"http://a:2\" }]";
        let new = "[[pool]]\nname = \"app\"\nbackend = [{ name = \"app-2\", url = \"http://a:2\", weight = 2 }, \
                   { name = \"app-4\", url = \"http://a:4\" }]";
        assert_eq!(between(old, new).applied, ["pool app: app-2 weight 1 -> 2, + app-4, - app-1"]);
    }

    #[test]
    fn no_change_is_told_in_a_form_of_the_programs_own() {
        let pool = |top: &str, affinity: &str, more: &str| {
            format!(
                "{top}\n[[pool]]\nname = \"app\"\nbackend = [{{ url = \"http://a:1\" }}]\n{more}\n\
                 [pool.affinity]\n{affinity}\n"
            )
        };
        let old = pool("", "", "");
        let new = pool(
            "hsts = \"1d\"\nlog_query = true\naccess_log = true",
            "max_age = \"2h\"\nskip = [\"/a/*\", \"*.css\"]\nkey = [\"cookie:a\", \"header:x-b\"]",
            "balance = \"round-robin\"\n[pool.health]\npath = \"/up\"\n[pool.passive]\nretry = \"7s\"\n\
             [pool.timeouts]\nhead = \"8s\"",
        ) + "[state]\nfile = \"s.redb\"\n[admin]\ntoken_file = \"t\"\nsocket = \"a.sock\"";
        let changes = between(&old, &new);
        let all = [changes.applied, changes.restart].concat().join("\n");
        for form in ["Some(", "None", "{", "[", "\"", "Duration", "000s", "true"] {
            assert!(!all.contains(form), "{form} in\n{all}");
        }
        for words in [
            "hsts none -> 1d",
            "log_query off -> on",
            "health.path none -> /up",
            "retry 1s -> 7s",
            "state.file none -> s.redb",
        ] {
            assert!(all.contains(words), "no {words} in\n{all}");
        }
    }

    #[test]
    fn a_url_under_another_name_is_a_backend_that_was_renamed() {
        let text = |backends: &[(&str, u16)]| {
            let list: Vec<_> = backends
                .iter()
                .map(|(name, port)| format!("{{ name = \"{name}\", url = \"http://a:{port}\" }}"))
                .collect();
            format!("[[pool]]\nname = \"app\"\nbackend = [{}]", list.join(", "))
        };
        let of = |old: &[(&str, u16)], new: &[(&str, u16)]| between(&text(old), &text(new)).applied;
        assert_eq!(of(&[("a", 1), ("b", 2)], &[("c", 1), ("b", 2)]), ["pool app: a renamed to c"]);
        assert_eq!(
            of(&[("a", 1), ("b", 2)], &[("a", 2), ("b", 1)]),
            ["pool app: b renamed to a, a renamed to b"]
        );
        assert_eq!(
            of(&[("a", 1), ("b", 2)], &[("a", 2), ("b", 3)]),
            ["pool app: b renamed to a, b a:2 -> a:3, - a"],
        );
    }

    #[test]
    fn listeners_need_a_restart() {
        let pool = "[[pool]]\nname = \"app\"\nbackend = [{ url = \"http://a:1\" }]\n";
        let changes = between(&format!("workers = 2\n{pool}"), &format!("workers = 3\n{pool}"));
        assert_eq!(changes.restart, ["workers 2 -> 3"]);
        assert!(changes.applied.is_empty());
    }

    #[test]
    fn of_limits_only_those_that_differ_are_told() {
        let text = |top: &str, pool: &str| {
            format!("{top}\n[[pool]]\nname = \"app\"\nbackend = [{{ url = \"http://a:1\" }}]\n{pool}")
        };
        let old = text("[limits]\nrate = \"5/s\"", "[pool.limits]\nqueue = 5");
        let new = text("[limits]\nrequests = 7\n[timeouts]\nidle = \"9s\"", "[pool.limits]\nqueue = 6");
        assert_eq!(
            between(&old, &new).applied,
            [
                "timeouts.idle 1m 15s -> 9s",
                "limits.requests 20000 -> 7",
                "limits.rate 5/s -> none",
                "limits.rate_burst 5 -> none",
                "pool app: limits.queue 5 -> 6",
            ]
        );
    }

    #[test]
    fn durations_are_shown_as_they_are_written() {
        let pool = |timeout: &str| {
            format!(
                "[[pool]]\nname = \"app\"\nbackend = [{{ url = \"http://a:1\" }}]\n\
                 [pool.affinity]\nsession_timeout = \"{timeout}\"\nttl = \"1h\""
            )
        };
        assert_eq!(between(&pool("30m"), &pool("20m")).applied, ["pool app: session_timeout 30m -> 20m"]);
    }
}
