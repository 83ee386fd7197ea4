//! The configuration files that come with the program, and what wrong ones are answered.

use std::{
    fs,
    path::{Path, PathBuf},
};

use homing::config::{BackendFlag, CertificateFiles, Config, Flags, format_duration, format_size};
use proptest::{
    prelude::{Just, Strategy as _, prop_compose, prop_oneof, proptest},
    sample::select,
};

const SHIPPED: [&str; 4] = ["homing.toml", "minimal.toml", "demo.toml", "compose/homing.toml"];

#[test]
fn the_shipped_files_load() {
    for name in SHIPPED {
        let path = folder("config").join(name);
        let config = Config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(config.pools.len(), 1, "{name}");
    }
}

/// Each `tests/config/NAME.toml` is refused with the text of `NAME.stderr`. With `BLESS=1` that file is
/// written instead.
#[test]
fn wrong_files_are_refused_with_all_their_errors() {
    let cases = cases();
    assert!(cases.len() >= 10, "the case files are missing");
    let mut wrong = Vec::new();
    for case in cases {
        let name = case.file_name().and_then(|name| name.to_str()).expect("case names are UTF-8");
        let text = fs::read_to_string(&case).unwrap();
        let shown = match Config::parse(&text, name, Path::new("")) {
            Ok(_) => "no error\n".to_owned(),
            Err(errors) => format!("{errors}\n"),
        };
        let expected = case.with_extension("stderr");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &shown).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != shown {
            wrong.push(format!("{name}:\n{shown}"));
        }
    }
    assert!(wrong.is_empty(), "unexpected output (BLESS=1 accepts it):\n{}", wrong.join("\n"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let errors = Config::load(Path::new("no/such.toml")).unwrap_err();
    assert_eq!(errors.to_string(), "error: cannot read no/such.toml: there is no such file");
}

#[test]
fn paths_are_relative_to_the_folder_of_the_file() {
    let config = Config::load(&folder("config").join("minimal.toml")).unwrap();
    assert_eq!(config.certificates[0].cert, folder("config").join("../certs/localhost.pem"));
}

#[test]
fn flags_make_what_the_minimal_file_says() {
    let file = Config::load(&folder("config").join("minimal.toml")).unwrap();
    let flags = Flags {
        certificates: vec![CertificateFiles {
            cert: file.certificates[0].cert.clone(),
            key: file.certificates[0].key.clone(),
        }],
        backends: ["http://127.0.0.1:3001", "http://127.0.0.1:3002"].map(BackendFlag::from).into(),
        ..Flags::default()
    };
    assert_eq!(Config::from_flags(&flags).unwrap(), file);
}

#[test]
fn the_effective_configuration_of_the_shipped_files_reads_as_the_same() {
    for name in SHIPPED {
        assert_same_again(&Config::load(&folder("config").join(name)).unwrap());
    }
}

proptest! {
    #[test]
    fn any_effective_configuration_reads_as_the_same(text in config_text()) {
        let config = Config::parse(&text, "any.toml", Path::new("")).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_same_again(&config);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,200}") {
        let _ = Config::parse(&text, "any.toml", Path::new("")).map_err(|errors| errors.to_string());
    }

    #[test]
    fn no_damage_to_a_file_makes_the_reader_panic(at in 0.0..1.0, cut in 0usize..40, put in "[\\[\\]{}=\"'\n#.,a0é\\\\]{0,6}") {
        let text = fs::read_to_string(folder("config").join("homing.toml")).unwrap();
        let text: Vec<char> = text.chars().collect();
        let at = (at * text.len() as f64) as usize;
        let rest = &text[(at + cut).min(text.len())..];
        let text: String = text[..at].iter().copied().chain(put.chars()).chain(rest.iter().copied()).collect();
        let _ = Config::parse(&text, "any.toml", Path::new("")).map_err(|errors| errors.to_string());
    }
}

prop_compose! {
    /// A valid file with many of the keys.
    fn config_text()(
        listen in select(vec!["http = false", "http = \":0\"\nadmin = false", "https = \"127.0.0.1:1\""]),
        admin in select(vec!["", "[admin]\ntoken_file = \"t\"\nallow_changes = true", "[admin]\nhosts = [\"Ops.example.\", \"ops\"]\nsocket = \"/run/a.sock\""]),
        top in select(vec!["", "access_log = true", "access_log = \"a\\\"b\\\\ \\u0001é.log\"", "hsts = \"365d\"\nresolver = \"[::1]:53\""]),
        proxies in select(vec!["[]", "[\"10.0.0.0/8\", \"::1\"]"]),
        body_size in prop_oneof![Just("unlimited".to_owned()), (0u64..1 << 40).prop_map(format_size)],
        key in select(vec![
            "key = \"cookie:a\"", "key = []", "key = [\"header:X-Session\", \"bearer\", \"address/24,64\"]",
            "key = \"address\"", "issue = {}",
            "issue = { cookie = \"__Secure-a\", key_file = \"a b.keys\", same_site = \"none\" }",
        ]),
        session_timeout in 1u64..1_000_000_000,
        more in 1u64..1_000_000_000,
        on_down in select(vec!["move", "wait:1m 30s", "refuse"]),
        affinity in select(vec!["", "max_age = \"7d\"", "skip = [\"/a/\", \"/b*\", \"*.css\", \"/c\"]"]),
        health in select(vec!["", "[pool.health]\npath = \"/up?x=1\"", "[pool.health]\npath = \"/\"\nhost = \"[::1]:80\"\nexpect = [204, \"2xx\", \"200-399\"]"]),
        host in select(vec!["*", "Shop.example", "*.shop.example", "[::1]"]),
        path in select(vec!["/", "/api", "/a%20b/"]),
        url in select(vec![
            "http://[::1]:3001", "http://app", "http://10.0.0.1:80/", "https://[::1]", "https://App.internal:8443",
            "https://app\"\nserver_name = \"Other.internal",
        ]),
        tls in select(vec!["", "[pool.tls]\nca = \"ca.pem\"", "[pool.tls]\nserver_name = \"b.internal\"\ncert = \"c\"\nkey = \"k\""]),
        pool_limits in select(vec!["", "[pool.limits]\nconnections = 10\nqueue = 0\nretry_budget = \"0%\"", "[pool.limits]\nconnections = \"unlimited\"\nqueue_timeout = \"1m\"\nretry_budget = \"unlimited\""]),
        weight in 1u32..=1000,
        discover in select(vec!["", "discover = \"dns\""]),
    ) -> String {
        let duration = |millis| format_duration(std::time::Duration::from_millis(millis));
        let (session_timeout, ttl) = (duration(session_timeout), duration(session_timeout + more));
        let tls = if url.starts_with("https") { tls } else { "" };
        format!(r#"
{top}
trusted_proxies = {proxies}
[listen]
{listen}
{admin}
[limits]
body_size = "{body_size}"
[[certificate]]
cert = "a b.pem"
key = "k.pem"
[[route]]
host = "{host}"
path = "{path}"
pool = "one"
[[route]]
path = "/two"
pool = "two"
[[pool]]
name = "one"
[pool.affinity]
{key}
session_timeout = "{session_timeout}"
ttl = "{ttl}"
on_down = "{on_down}"
{affinity}
{health}
{pool_limits}
{tls}
[[pool.backend]]
url = "{url}"
weight = {weight}
[[pool]]
name = "two"
balance = "round-robin"
[[pool.backend]]
url = "http://two"
{discover}
"#)
    }
}

fn assert_same_again(config: &Config) {
    let text = config.to_toml();
    let again = Config::parse(&text, "effective.toml", Path::new(""));
    assert_eq!(&again.unwrap_or_else(|errors| panic!("{errors}\n{text}")), config);
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder("tests/config")).expect("the folder of cases is there");
    let mut cases: Vec<PathBuf> =
        entries.map(|entry| entry.expect("its entries can be read").path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    cases.sort();
    cases
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
