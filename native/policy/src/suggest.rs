//! "Did you mean": the known word nearest to an unknown one.

/// Longer words are nobody's typing error of a keyword, and would cost time.
const MAX_LENGTH: usize = 40;

/// The known word with the smallest distance to `word`, if it is near enough to be meant; the first of equals.
pub(crate) fn nearest(word: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let word: Vec<char> = word.chars().take(MAX_LENGTH + 1).flat_map(char::to_lowercase).collect();
    if word.len() > MAX_LENGTH {
        return None;
    }
    let mut best: Option<(usize, &'static str)> = None;
    for candidate in known {
        let letters: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        let distance = distance(&word, &letters);
        let beginning = word.iter().zip(&letters).take_while(|(left, right)| left == right).count();
        // Another form of the same word, as `denied` for `deny`, may differ by one more.
        let allowed = (word.len().max(letters.len()) / 3).max(1) + usize::from(beginning >= 3);
        let shared = word.iter().any(|letter| letters.contains(letter));
        if distance <= allowed && shared && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Edit distance in which swapping two neighbours is one edit (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    let mut left_before: Option<char> = None;
    for (row, &from) in left.iter().enumerate() {
        let mut current = Vec::with_capacity(previous.len());
        current.push(row + 1);
        let mut right_before: Option<char> = None;
        let mut beside = row + 1;
        // Columns of the previous row, pairwise: substitution comes from the left one, deletion from the right one.
        for (column, (&to, pair)) in right.iter().zip(previous.windows(2)).enumerate() {
            let &[substitute, delete] = pair else { continue };
            let mut least = (substitute + usize::from(from != to)).min(delete + 1).min(beside + 1);
            if left_before == Some(to)
                && right_before == Some(from)
                && let Some(&swap) = column.checked_sub(1).and_then(|index| before.get(index))
            {
                least = least.min(swap + 1);
            }
            current.push(least);
            beside = least;
            right_before = Some(to);
        }
        left_before = Some(from);
        before = previous;
        previous = current;
    }
    previous.last().copied().unwrap_or(left.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance_of(left: &str, right: &str) -> usize {
        distance(&left.chars().collect::<Vec<_>>(), &right.chars().collect::<Vec<_>>())
    }

    /// Insertion, deletion, substitution and a swap of neighbours cost one each.
    #[test]
    fn edits_are_counted() {
        assert_eq!(distance_of("", ""), 0);
        assert_eq!(distance_of("", "when"), 4);
        assert_eq!(distance_of("when", ""), 4);
        assert_eq!(distance_of("wen", "when"), 1);
        assert_eq!(distance_of("wheen", "when"), 1);
        assert_eq!(distance_of("whan", "when"), 1);
        assert_eq!(distance_of("wehn", "when"), 1);
        assert_eq!(distance_of("kitten", "sitting"), 3);
    }

    /// A word is suggested only when it is near; the first of equals wins.
    #[test]
    fn only_near_words_are_suggested() {
        let known = ["when", "effect", "match"];
        assert_eq!(nearest("wen", known.into_iter()), Some("when"));
        assert_eq!(nearest("Effect", known.into_iter()), Some("effect"));
        assert_eq!(nearest("efect", known.into_iter()), Some("effect"));
        assert_eq!(nearest("condition", known.into_iter()), None);
        assert_eq!(nearest("x", ["on", "id"].into_iter()), None);
        assert_eq!(nearest("denied", ["allow", "deny"].into_iter()), Some("deny"));
        assert_eq!(nearest("im", ["id", "in"].into_iter()), Some("id"));
        assert_eq!(nearest(&"e".repeat(1 << 20), known.into_iter()), None);
    }
}
