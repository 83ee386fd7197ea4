//! The configuration files that come with the program, and what wrong ones are answered.

use std::{
    fs,
    path::{Path, PathBuf},
};

use homing::config::Config;

#[test]
fn the_shipped_files_load() {
    for name in ["homing.toml", "minimal.toml", "demo.toml"] {
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

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder("tests/config")).unwrap();
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    cases.sort();
    cases
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
