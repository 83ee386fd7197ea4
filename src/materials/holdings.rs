//! What each file that the configuration names holds, and what became of it at a reload, in words.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use aws_lc_rs::digest::{SHA256, digest};
use humantime::format_rfc3339_seconds;

use crate::{
    config::{Changes, Config},
    tls::{Held, Validity},
};

/// A file, what it is for, and what it held when it was read. Nothing in it can be printed that is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// `certificate`, `client CA`, `token file`.
    what: String,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// Certificates or lists.
    Open(Held),
    /// Something secret: a digest that is never shown, none while there is no file.
    Secret { file: PathBuf, digest: Option<[u8; 32]>, only_at_start: bool },
}

// === impl Holding ===

impl Holding {
    pub(super) fn open(what: impl Into<String>, held: Held) -> Self {
        Self { what: what.into(), content: Content::Open(held) }
    }

    fn secret(what: impl Into<String>, file: &Path, only_at_start: bool) -> Self {
        let content = Content::Secret { file: file.to_owned(), digest: digest_of(file), only_at_start };
        Self { what: what.into(), content }
    }

    fn file(&self) -> &Path {
        match &self.content {
            Content::Open(held) => &held.file,
            Content::Secret { file, .. } => file,
        }
    }

    fn is_of_start(&self) -> bool {
        matches!(self.content, Content::Secret { only_at_start: true, .. })
    }
}

/// The files that hold secrets.
pub(super) fn secrets(config: &Config) -> Vec<Holding> {
    let mut secrets = Vec::new();
    for pool in &config.pools {
        if let Some(file) = pool.issue.as_ref().and_then(|issue| issue.key_file.as_deref()) {
            secrets.push(Holding::secret(format!("keys of `issue` in pool {}", pool.name), file, false));
        }
    }
    secrets.extend(config.admin.token_file.as_deref().map(|file| Holding::secret("token file", file, false)));
    secrets.extend(config.secret_file.as_deref().map(|file| Holding::secret("secret file", file, true)));
    if let Some(redis) = &config.state.redis {
        for (what, file) in [("password file of Redis", &redis.password_file), ("CA of Redis", &redis.ca)] {
            secrets.extend(file.as_deref().map(|file| Holding::secret(what, file, true)));
        }
    }
    secrets
}

/// Adds to `changes` what became of files between two loads. What only a start reads is compared to what it was at the
/// start, and stays so in `new`.
pub fn compare(old: &[Holding], new: &mut [Holding], now: SystemTime, changes: &mut Changes) {
    for holding in new.iter_mut() {
        let before = old.iter().find(|old| (&old.what, old.file()) == (&holding.what, holding.file()));
        let name = format!("{} {}", holding.what, holding.file().display());
        match (before.map(|before| &before.content), &holding.content) {
            (None, Content::Open(held)) => {
                changes.applied.push(format!("{name}: {}", in_words(held)));
                changes.warnings.extend(soon(&name, held, now));
            }
            (Some(Content::Open(before)), Content::Open(held)) if before != held => {
                changes.applied.push(format!(
                    "{name}: {} (before: {})",
                    in_words(held),
                    earlier(before, held)
                ));
                changes.warnings.extend(shorter(&name, before, held));
                changes.warnings.extend(soon(&name, held, now));
            }
            (Some(Content::Secret { digest: before, .. }), Content::Secret { digest, only_at_start, .. })
                if before != digest =>
            {
                match (only_at_start, before, digest) {
                    (true, Some(_), None) => changes.restart.push(format!("{name}: is missing")),
                    (true, Some(_), Some(_)) => changes.restart.push(format!("{name}: changed")),
                    // It was made at the start.
                    (true, None, _) => {}
                    (false, ..) => changes.applied.push(format!("{name}: changed")),
                }
            }
            _ => {}
        }
        if let Some(before) = before.filter(|before| before.is_of_start() && before.has_content()) {
            holding.content = before.content.clone();
        }
    }
}

impl Holding {
    fn has_content(&self) -> bool {
        !matches!(self.content, Content::Secret { digest: None, .. })
    }
}

fn in_words(held: &Held) -> String {
    match held.dates {
        Some((_, end)) => format!("{}, valid until {}", held.content, format_rfc3339_seconds(end)),
        None => held.content.clone(),
    }
}

/// What was before, as far as it was another.
fn earlier(before: &Held, held: &Held) -> String {
    match before.dates {
        _ if before.content != held.content => in_words(before),
        Some((_, end)) if before.dates != held.dates => format!("until {}", format_rfc3339_seconds(end)),
        Some(_) => "the same names and dates, another key or chain".to_owned(),
        None => "as many, others among them".to_owned(),
    }
}

fn shorter(name: &str, before: &Held, held: &Held) -> Option<String> {
    let ((_, before), (_, end)) = before.dates.zip(held.dates)?;
    let (end, before) =
        (end < before).then(|| (format_rfc3339_seconds(end), format_rfc3339_seconds(before)))?;
    Some(format!("{name} ends at {end}, earlier than the one before it ({before})"))
}

fn soon(name: &str, held: &Held, now: SystemTime) -> Option<String> {
    let (start, end) = held.dates?;
    if now < start {
        Some(format!("{name} is not valid before {}", format_rfc3339_seconds(start)))
    } else if end < now {
        Some(format!("{name} has expired at {}", format_rfc3339_seconds(end)))
    } else if end < now + Validity::NOTICE {
        Some(format!("{name} expires soon, at {}", format_rfc3339_seconds(end)))
    } else {
        None
    }
}

fn digest_of(file: &Path) -> Option<[u8; 32]> {
    let mut bytes = Vec::new();
    // What is wrong with it is told by those who use it.
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    File::open(file).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
    digest(&SHA256, bytes.trim_ascii()).as_ref().try_into().ok()
}

/// More than any of the files has.
const LIMIT: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    fn load(config: &str, folder: &Path) -> Vec<Holding> {
        let text = format!(
            "certificate = [{{ cert = \"c\", key = \"k\" }}]\nsecret_file = \"secret\"\n[[pool]]\nname = \"app\"\n\
             backend = [{{ url = \"http://a:1\" }}]\n{config}"
        );
        secrets(&Config::parse(&text, "test", folder).unwrap())
    }

    fn reload(old: &[Holding], new: &mut [Holding]) -> Changes {
        let mut changes = Changes::default();
        compare(old, new, SystemTime::UNIX_EPOCH + Duration::from_hours(1), &mut changes);
        changes
    }

    #[test]
    fn a_secret_that_changed_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let config = "[admin]\ntoken_file = \"token\"";
        fs::write(&file, "hunter2hunter2hunter2").unwrap();
        let old = load(config, folder.path());
        let mut same = load(config, folder.path());
        assert_eq!(reload(&old, &mut same), Changes::default());
        fs::write(&file, "hunter3hunter3hunter3").unwrap();
        let mut new = load(config, folder.path());
        let changes = reload(&old, &mut new);
        assert_eq!(changes.applied, [format!("token file {}: changed", file.display())]);
        assert!(!format!("{new:?}").contains("hunter"));
    }

    #[test]
    fn what_only_a_start_reads_is_told_until_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let first = load("", folder.path());
        fs::write(&file, "made at the start").unwrap();
        let mut made = load("", folder.path());
        assert_eq!(reload(&first, &mut made), Changes::default());
        fs::write(&file, "another one").unwrap();
        let mut second = load("", folder.path());
        let told = [format!("secret file {}: changed", file.display())];
        assert_eq!(reload(&made, &mut second).restart, told);
        let mut third = load("", folder.path());
        assert_eq!(reload(&second, &mut third).restart, told);
        fs::write(&file, "made at the start").unwrap();
        let mut back = load("", folder.path());
        assert_eq!(reload(&third, &mut back), Changes::default());
    }
}
