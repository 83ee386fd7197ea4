//! The direction of imports and the size of files, as ARCHITECTURE.md promises them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a folder of `src/` may import of ours.
struct Layer {
    folder: &'static str,
    may: May,
}

enum May {
    /// These and itself.
    Only(&'static [&'static str]),
    /// Everything but these.
    AllBut(&'static [&'static str]),
}

const LAYERS: [Layer; 9] = [
    Layer { folder: "http1", may: May::Only(&[]) },
    Layer { folder: "http2", may: May::Only(&["http1"]) },
    Layer { folder: "affinity", may: May::Only(&[]) },
    Layer { folder: "backend", may: May::Only(&["affinity", "config", "clock", "error", "tls"]) },
    Layer { folder: "store", may: May::AllBut(&["proxy", "control", "admin", "handover"]) },
    Layer { folder: "proxy", may: May::AllBut(&["control", "admin"]) },
    Layer { folder: "control", may: May::AllBut(&["proxy", "admin"]) },
    Layer { folder: "admin", may: May::AllBut(&["proxy", "control"]) },
    Layer { folder: "handover", may: May::AllBut(&["proxy", "control", "admin"]) },
];

/// Imports that break a rule for a reason: file, module, reason.
const EXCEPTIONS: [(&str, &str, &str); 1] =
    [("src/store/testing.rs", "control", "tests need a snapshot, whose backends control lists")];

/// Lines of a file, at most.
const LONGEST: usize = 500;

#[test]
fn imports_point_in_one_direction() {
    let mut broken = Vec::new();
    for layer in &LAYERS {
        for file in layer.files() {
            let shown = file.strip_prefix(root()).expect("ours").display().to_string();
            let text = fs::read_to_string(&file).expect("a source file");
            for (number, module) in imports(&text) {
                let excepted = EXCEPTIONS.iter().any(|(file, m, _)| *file == shown && *m == module);
                if !excepted && !layer.may_import(&module) {
                    broken.push(format!("{shown}:{number}: {} must not import {module}", layer.folder));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_layer_has_files() {
    for layer in &LAYERS {
        assert!(!layer.files().is_empty(), "src/{}: no file seen, so nothing is checked there", layer.folder);
    }
}

#[test]
fn no_file_is_longer_than_five_hundred_lines() {
    let mut files = sources(&root().join("src"));
    files.extend(sources(&root().join("tests")));
    assert!(files.len() > 20, "only {} files seen", files.len());
    for file in files {
        let lines = fs::read_to_string(&file).expect("a source file").lines().count();
        assert!(lines <= LONGEST, "{}: {lines} lines", file.display());
    }
}

#[test]
fn every_exception_is_still_needed() {
    for (file, module, reason) in EXCEPTIONS {
        let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(imports(&text).iter().any(|(_, found)| found == module), "{file} imports no {module}");
        assert!(!reason.is_empty(), "{file}: {module}: why?");
    }
}

#[test]
fn imports_are_found_however_they_are_written() {
    let text = "
        use crate::affinity::Tick;
        //! [`crate::commented`] does not count
        use crate::{
            backend::{Backend, Pool},
            clock,
            config::Config as Settings,
        };
        pub(crate) use crate::proxy::service;
        fn f() { crate::control::reload(&crate::app::X) }
        pub(in crate::tls) fn g() {}
    ";
    let modules: Vec<String> = imports(text).into_iter().map(|(_, module)| module).collect();
    assert_eq!(modules, ["affinity", "backend", "clock", "config", "proxy", "control", "app", "tls"]);
}

// === impl Layer ===

impl Layer {
    fn may_import(&self, module: &str) -> bool {
        module == self.folder
            || match self.may {
                May::Only(modules) => modules.contains(&module),
                May::AllBut(modules) => !modules.contains(&module),
            }
    }

    /// The folder's files, and the file of its name when it is a single one.
    fn files(&self) -> Vec<PathBuf> {
        let source = root().join("src");
        let mut files = sources(&source.join(self.folder));
        files.extend(Some(source.join(format!("{}.rs", self.folder))).filter(|file| file.exists()));
        files
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files under a directory; none when it does not exist.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return files };
    for entry in entries {
        let path = entry.expect("a directory that can be read").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The modules of ours that a file names by `crate::`, with the line; comments left out.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        // `$crate::` and `some_crate::` are not ours.
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c == '$' || c == '_' || c.is_alphanumeric()) {
            continue;
        }
        let number = code[..at].matches('\n').count() + 1;
        let rest = &code[at + prefix.len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => heads(group),
            None => vec![identifier(rest)],
        };
        found.extend(names.into_iter().map(|name| (number, name)));
    }
    found
}

/// The first segment of every path of an import group, whose opening brace has been read.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let mut heads = Vec::new();
    let mut expecting = true;
    for (at, next) in group.char_indices() {
        match next {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expecting = true,
            c if expecting && (c.is_alphanumeric() || c == '_') => {
                heads.push(identifier(&group[at..]));
                expecting = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
