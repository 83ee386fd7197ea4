//! What a path means, so that routes and `skip` are decided on that rather than on how it is spelled. What goes to a
//! backend are the client's bytes.
//!
//! RFC 3986 §6.2.2 says which spellings are one path; those have one [reading](Path). But servers differ in what else they
//! make of a path before they look it up: they decode `%2f`, decode twice, take `\` for `/`, cut at `;`, NUL or `?`,
//! take what follows `//` for a host.
//! Then it has several readings, and a decision counts only if all of them agree; and what has dot segments beside
//! any of that may be read as anything.

use std::borrow::Cow;

/// A path and how it may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    /// The normal form (RFC 3986 §6.2.2): unreserved characters decoded, dot segments removed; slashes merged, and
    /// segments without their parameters.
    normal: Cow<'a, str>,
    other: Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Other {
    /// There is no other way to read it.
    None,
    /// As servers read it that decode whatever can be decoded; and as those do that take its first segment for a host.
    Wide(String, Option<String>),
    /// Nobody can tell.
    Anything,
}

/// The readings of a path do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagree;

// === impl Path ===

impl<'a> Path<'a> {
    /// Reads a path without its query. Most are their own normal form, and cost a look at each byte.
    pub fn of(path: &'a str) -> Self {
        if is_plain(path.as_bytes()) {
            return Self { normal: path.into(), other: Other::None };
        }
        let wide = Wide::of(path.as_bytes());
        let normal = segments(&spelled(path));
        let other = match wide {
            Wide { odd: false, .. } => Other::None,
            Wide { dots: true, .. } => Other::Anything,
            Wide { path, behind_host: None, .. } if path == normal => Other::None,
            Wide { path, behind_host, .. } => Other::Wide(path, behind_host),
        };
        Self { normal: if normal == path { path.into() } else { normal.into() }, other }
    }

    /// What `decide` says of every reading.
    ///
    /// # Errors
    ///
    /// [`Disagree`] when that is not always the same, or if nobody can tell how the path is read; then it is what
    /// `whatever` says, which holds for every path.
    pub fn decide<T: PartialEq>(
        &self,
        decide: impl Fn(&str) -> T,
        whatever: impl FnOnce() -> Option<T>,
    ) -> Result<T, Disagree> {
        match &self.other {
            Other::None => Ok(decide(&self.normal)),
            Other::Wide(wide, behind_host) => {
                let decided = decide(&self.normal);
                let mut others = [wide].into_iter().chain(behind_host);
                if others.all(|other| decide(other) == decided) {
                    Ok(decided)
                } else {
                    whatever().ok_or(Disagree)
                }
            }
            Other::Anything => whatever().ok_or(Disagree),
        }
    }

    /// The normal form, if there is no other way to read it.
    pub fn only_reading(self) -> Option<Cow<'a, str>> {
        (self.other == Other::None).then_some(self.normal)
    }
}

/// Whether a path is its own normal form for certain.
fn is_plain(path: &[u8]) -> bool {
    let mut last = 0;
    path.iter().all(|&byte| {
        let plain = match byte {
            b'%' | b'\\' | b';' | 0x80.. => false,
            b'/' | b'.' => last != b'/',
            _ => true,
        };
        last = byte;
        plain
    })
}

/// The path with its characters in one spelling: decoded what stands for itself, everything else encoded.
pub fn spelled(path: &str) -> Cow<'_, str> {
    if path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%') {
        return path.into();
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let encoded = escaped(rest);
        match encoded {
            Some(byte) if byte.is_ascii_graphic() && !b"/\\;?#%".contains(&byte) => out.push(byte.into()),
            None if first.is_ascii_graphic() => out.push(char::from(*first)),
            _ => encode(&mut out, encoded.unwrap_or(*first)),
        }
        rest = if encoded.is_some() { &rest[3..] } else { tail };
    }
    out.into()
}

fn encode(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// The byte that a path begins with in percent-encoding.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    Some(digit(*high)? << 4 | digit(*low)?)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Removes dot segments (RFC 3986 §5.2.4), parameters of segments and empty segments. What is no path from the
/// root stays as it is (`*`).
fn segments(path: &str) -> String {
    let Some(rest) = path.strip_prefix('/') else { return path.to_owned() };
    let mut out = String::with_capacity(path.len());
    let mut directory = false;
    for segment in rest.split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        directory = matches!(name, "" | "." | "..");
        match name {
            "" | "." => {}
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            name => {
                out.push('/');
                out.push_str(name);
            }
        }
    }
    if directory || out.is_empty() {
        out.push('/');
    }
    out
}

/// A path as it is read by servers that decode whatever can be decoded, as often as it can.
struct Wide {
    path: String,
    /// What is left if it begins with a host, as after `//`.
    behind_host: Option<String>,
    /// Whether there is more to decode than RFC 3986 says, or anything that servers are known to read in two ways.
    odd: bool,
    /// Whether anything in it may be a dot segment.
    dots: bool,
}

// === impl Wide ===

impl Wide {
    fn of(path: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(path.len());
        // Empty segments are taken out first or last, and what follows one at the beginning may be taken for a host.
        let mut odd = memchr::memmem::find(path, b"//").is_some();
        for &byte in path {
            odd |= matches!(byte, b'\\' | b';');
            bytes.push(byte);
            while let Some((length, decoded)) = last_decoded(&bytes) {
                let at = bytes.len() - length;
                // Characters that divide paths, `%`, which may be decoded once more, and what is overlong.
                odd |= bytes[at] != b'%' || b"/\\;?#%\0".contains(&decoded);
                bytes.truncate(at);
                bytes.push(decoded);
            }
        }
        bytes.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
        let mut dots = false;
        for segment in bytes.split(|byte| matches!(byte, b'/' | b'?' | b'#' | 0)) {
            let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
            // Some file systems take white space off the end of a name.
            let trimmed = name.trim_ascii();
            if matches!(trimmed, b"." | b"..") {
                dots = true;
                odd |= trimmed.len() < name.len();
            }
        }
        let end = memchr::memchr3(b'?', b'#', 0, &bytes).unwrap_or(bytes.len());
        let read = |path: &[u8]| spelled(&segments(&String::from_utf8_lossy(path))).into_owned();
        let path = &bytes[..end];
        let behind_host = path.starts_with(b"//").then(|| {
            let host = path.iter().position(|byte| *byte != b'/').unwrap_or(end);
            memchr::memchr(b'/', &path[host..]).map_or_else(|| "/".to_owned(), |at| read(&path[host + at..]))
        });
        Self { path: read(path), behind_host, odd, dots }
    }
}

/// What the last bytes are the encoding of, and how many they are: a character in percent-encoding, or an ASCII
/// character in an overlong form of UTF-8.
fn last_decoded(bytes: &[u8]) -> Option<(usize, u8)> {
    if let [.., b'%', _, _] = bytes {
        return escaped(&bytes[bytes.len() - 3..]).map(|byte| (3, byte));
    }
    let ascii = |lead: u8, last: u8| (lead & 1) << 6 | last & 0x3f;
    match bytes {
        [.., 0xf0, 0x80, lead @ 0x80..=0x81, last @ 0x80..=0xbf] => Some((4, ascii(*lead, *last))),
        [.., 0xe0, lead @ 0x80..=0x81, last @ 0x80..=0xbf] => Some((3, ascii(*lead, *last))),
        [.., lead @ 0xc0..=0xc1, last @ 0x80..=0xbf] => Some((2, ascii(*lead, *last))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
