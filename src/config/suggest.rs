//! "Did you mean ...?"

/// The candidate that `word` most likely stands for, if any is near enough.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > WORD_MAX {
        return None;
    }
    let word = folded(word);
    let (distance, candidate) = candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &folded(candidate)), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= word.chars().count().div_ceil(4).max(1)).then_some(candidate)
}

/// ``, did you mean `x`?`` when there is such an `x`, else ``: use `a`, `b` or `c` ``.
pub(super) fn instead(word: &str, candidates: &[&str]) -> String {
    match nearest(word, candidates.iter().copied()) {
        Some(candidate) => format!(", did you mean `{candidate}`?"),
        None => format!(": use {}", alternatives(candidates)),
    }
}

/// `a`, `b` or `c`.
pub(super) fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

/// Dashes for underscores and capitals are not what makes a word another one.
fn folded(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

/// Longer words are no misspelt keys, and the distance costs time in the square of the length.
const WORD_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let words = ["affinity", "session_timeout", "ttl", "max_ttl"];
        assert_eq!(nearest("affinty", words), Some("affinity"));
        assert_eq!(nearest("Session-Timeout", words), Some("session_timeout"));
        assert_eq!(nearest("tll", words), Some("ttl"));
        assert_eq!(nearest("weight", words), None);
        assert_eq!(nearest("", []), None);
    }
}
