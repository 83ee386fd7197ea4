//! `homing print-config`: the configuration with all defaults filled in.

use std::{
    io::{self, Write as _},
    path::{self, PathBuf},
    process::ExitCode,
};

use super::args::ServeArgs;
use crate::config::{AccessLog, Config};

/// Prints what `homing serve` with these arguments would run.
pub fn run(args: &ServeArgs) -> ExitCode {
    match args.to_config() {
        Ok(config) => match io::stdout().lock().write_all(text(config).as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::FAILURE
        }
    }
}

/// Paths become absolute, so that the text means the same wherever it is saved.
fn text(mut config: Config) -> String {
    let mut paths: Vec<&mut PathBuf> = Vec::new();
    for files in &mut config.certificates {
        paths.extend([&mut files.cert, &mut files.key]);
    }
    if let AccessLog::File(file) = &mut config.access_log {
        paths.push(file);
    }
    paths.extend(&mut config.admin.token_file);
    paths.extend(&mut config.admin.socket);
    for path in paths {
        if let Ok(absolute) = path::absolute(&*path) {
            *path = absolute;
        }
    }
    config.to_toml()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_printed_means_the_same_in_any_folder() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo.toml");
        let config = Config::load(&file).unwrap();
        let printed = Config::parse(&text(config.clone()), "printed", Path::new("/elsewhere")).unwrap();
        assert_eq!(printed, config);
    }
}
