//! `homing check`: every mistake in a configuration file, at once.

use std::{path::Path, process::ExitCode};

use super::args::CheckArgs;
use crate::config::{Config, describe_keys};

/// Checks a file and prints what it found. `deeper` looks into what the configuration refers to, such as
/// the contents of certificates, and returns one sentence for each mistake.
pub fn run(args: &CheckArgs, deeper: impl Fn(&Config) -> Vec<String>) -> ExitCode {
    match check(&args.config, deeper) {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path, deeper: impl Fn(&Config) -> Vec<String>) -> Result<String, String> {
    let config = Config::load(file).map_err(|errors| errors.to_string())?;
    let errors = deeper(&config);
    if errors.is_empty() {
        let mut text = format!("{}: ok ({})", file.display(), summary(&config));
        for pool in &config.pools {
            let key = match &pool.issue {
                Some(issue) => format!("the proxy's own cookie {}", issue.cookie),
                None => describe_keys(&pool.affinity.keys),
            };
            text.push_str(&format!("\npool {}: sessions by {key}", pool.name));
        }
        return Ok(text);
    }
    Err(errors.iter().map(|error| format!("error: {error}")).collect::<Vec<_>>().join("\n"))
}

fn summary(config: &Config) -> String {
    let backends = config.pools.iter().map(|pool| pool.backends.len()).sum();
    [count(config.pools.len(), "pool"), count(backends, "backend"), count(config.routes.len(), "route")]
        .join(", ")
}

/// So many of these.
pub(super) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        materials::{LoadErrors, Materials},
        tls::Ticketer,
    };

    const CONFIG: &str = r#"
        [[certificate]]
        cert = "cert.pem"
        key = "key.pem"
        [[pool]]
        name = "app"
        backend = [{ url = "http://127.0.0.1:3001" }, { url = "http://127.0.0.1:3002" }]
    "#;

    #[test]
    fn a_good_file_is_summed_up() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("homing.toml", CONFIG), ("cert.pem", ""), ("key.pem", "")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let file = folder.path().join("homing.toml");
        let summary = check(&file, |_| Vec::new()).unwrap();
        let keys = "cookie:session, cookie:JSESSIONID, cookie:PHPSESSID or 17 more well-known cookies";
        let first = format!("{}: ok (1 pool, 2 backends, 1 route)", file.display());
        assert_eq!(summary, format!("{first}\npool app: sessions by {keys}"));
        let errors = check(&file, |_| vec!["cert.pem is empty".to_owned()]).unwrap_err();
        assert_eq!(errors, "error: cert.pem is empty");
    }

    #[test]
    fn certificate_files_that_cannot_be_read_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("homing.toml"), CONFIG).unwrap();
        fs::create_dir(folder.path().join("key.pem")).unwrap();
        let named = |config: &Config| {
            let loaded = Materials::load(config, &Ticketer::new().unwrap());
            loaded.err().map_or_else(Vec::new, LoadErrors::into_vec)
        };
        let errors = check(&folder.path().join("homing.toml"), named).unwrap_err();
        assert_eq!(errors.lines().count(), 2, "{errors}");
        assert!(errors.contains("cert.pem") && errors.contains("key.pem"), "{errors}");
    }

    #[test]
    fn errors_of_the_file_are_passed_on() {
        let errors = check(Path::new("no/such.toml"), |_| Vec::new()).unwrap_err();
        assert!(errors.contains("no/such.toml"), "{errors}");
    }
}
