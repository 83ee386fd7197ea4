//! The fuzz targets over their corpora: what a fuzzer found, or a person thought of, never comes back.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library where the fuzzer has it")]
mod targets;

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use self::targets::{
    chunked, config, cookies, frames, hpack, proxy_header, request, response, sealed_cookie, set_cookie,
    state_file,
};

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 11] = [
    ("chunked", chunked::run),
    ("config", config::run),
    ("cookies", cookies::run),
    ("frames", frames::run),
    ("hpack", hpack::run),
    ("proxy_header", proxy_header::run),
    ("request", request::run),
    ("response", response::run),
    ("sealed_cookie", sealed_cookie::run),
    ("set_cookie", set_cookie::run),
    ("state_file", state_file::run),
];

#[test]
fn no_input_of_a_corpus_breaks_its_target() {
    let mut broken = Vec::new();
    for (name, run) in TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() >= 4, "{name}: only {} inputs", corpus.len());
        for file in corpus {
            let data = fs::read(&file).expect("an input");
            if catch_unwind(AssertUnwindSafe(|| run(&data))).is_err() {
                broken.push(format!("{name}: {}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_target_is_a_program_of_the_fuzzer() {
    let programs = fs::read_dir(folder().join("fuzz_targets")).expect("programs").flatten();
    let programs: BTreeSet<String> = programs.map(|entry| stem(&entry.path())).collect();
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("a manifest");
    for (name, _) in TARGETS {
        assert!(programs.contains(name), "{name} has no program");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in the manifest");
    }
    assert_eq!(programs.len(), TARGETS.len(), "{programs:?}");
}

fn corpus(target: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join("corpus").join(target)).expect("a corpus");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a name").to_string_lossy().into_owned()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}
