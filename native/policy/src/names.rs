//! From a tool's name to the first rule that speaks of it, without asking each rule.

use std::borrow::Cow;
use std::collections::HashMap;

use globset::{Candidate, GlobSet, GlobSetBuilder};

use crate::pattern::{Pattern, Shape};

/// The patterns of all rules of one effect. Rules are known by their position in the document.
#[derive(Debug, Default)]
pub(crate) struct Names {
    everything: Option<usize>,
    exact: HashMap<String, usize>,
    ascii: Globs,
    wide: Globs,
}

#[derive(Debug, Default)]
struct Globs {
    set: GlobSet,
    /// The rule of each glob, in the order of the set.
    rules: Vec<usize>,
}

impl Names {
    /// Fails when the patterns are too complex together.
    pub fn new<'p>(patterns: impl Iterator<Item = (usize, &'p Pattern)>) -> Result<Names, globset::Error> {
        let mut everything = None;
        let mut exact = HashMap::new();
        let (mut ascii, mut wide) = (GlobsBuilder::new(), GlobsBuilder::new());
        for (rule, pattern) in patterns {
            match pattern.shape {
                Shape::Everything => {
                    everything.get_or_insert(rule);
                }
                Shape::Exact => {
                    exact.entry(pattern.text.clone()).or_insert(rule);
                }
                Shape::Prefix(_) | Shape::Suffix(_) | Shape::Other => {
                    let globs = if pattern.text.is_ascii() { &mut ascii } else { &mut wide };
                    globs.set.add(pattern.glob()?);
                    globs.rules.push(rule);
                }
            }
        }
        Ok(Names { everything, exact, ascii: ascii.build()?, wide: wide.build()? })
    }

    /// The first rule with a pattern that matches `name`.
    pub fn first(&self, name: &str) -> Option<usize> {
        let globs = [self.ascii.first(&fold(name)), self.wide.first(name)];
        [self.everything, self.exact.get(name).copied()].into_iter().chain(globs).flatten().min()
    }
}

struct GlobsBuilder {
    set: GlobSetBuilder,
    rules: Vec<usize>,
}

impl GlobsBuilder {
    fn new() -> GlobsBuilder {
        GlobsBuilder { set: GlobSetBuilder::new(), rules: Vec::new() }
    }

    fn build(self) -> Result<Globs, globset::Error> {
        Ok(Globs { set: self.set.build()?, rules: self.rules })
    }
}

impl Globs {
    fn first(&self, name: &str) -> Option<usize> {
        if self.rules.is_empty() {
            return None;
        }
        let matches = self.set.matches_candidate(&Candidate::new(name));
        matches.into_iter().filter_map(|glob| self.rules.get(glob)).min().copied()
    }
}

/// The name with each character outside ASCII as one control character, which no pattern contains. The library matches
/// `?` and `[!a]` against single bytes; so they see one where the name has one character.
fn fold(name: &str) -> Cow<'_, str> {
    if name.is_ascii() {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(|character| if character.is_ascii() { character } else { '\u{1a}' }).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(patterns: &[&str]) -> Names {
        let patterns: Vec<Pattern> = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        Names::new(patterns.iter().enumerate()).unwrap()
    }

    /// What patterns mean, one recursion, to compare the library with.
    fn matches(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
            (['?', rest @ ..], [_, name @ ..]) => matches(rest, name),
            ([first, rest @ ..], [letter, name @ ..]) => first == letter && matches(rest, name),
            _ => false,
        }
    }

    /// The star matches separators, dots and line ends; `?` and classes match one character, also outside ASCII.
    #[test]
    fn wildcards_know_no_separators() {
        for (pattern, name) in [
            ("fs*", "fs/read.txt"),
            ("*.txt", "a/b.txt"),
            ("*.txt", ".txt"),
            ("a*z", "a\nz"),
            ("a?c", "aéc"),
            ("a?c", "a/c"),
            ("a[!b]c", "aéc"),
            ("a[b-d]", "ac"),
            ("{read,write}_*", "write_file"),
            ("read{,_all}", "read"),
            ("é*", "éclair"),
            ("*é", "né"),
            ("[*]", "*"),
            ("a]", "a]"),
            ("*.", ".."),
            ("a*.", "a/.."),
            ("a*..", "a/.."),
        ] {
            assert_eq!(names(&[pattern]).first(name), Some(0), "{pattern} {name:?}");
        }
        for (pattern, name) in [
            ("read", "Read"),
            ("read*", "READ_file"),
            ("a?c", "ac"),
            ("a[!b]", "ab"),
            ("read", "read_file"),
            ("read_*", "xread_file"),
            ("é*", "è"),
        ] {
            assert_eq!(names(&[pattern]).first(name), None, "{pattern} {name:?}");
        }
    }

    /// Among several patterns that match, the first rule is the answer, whatever shape the patterns have.
    #[test]
    fn the_first_rule_wins() {
        let patterns = ["x", "delete_*", "*", "delete_file", "*file"];
        assert_eq!(names(&patterns).first("delete_file"), Some(1));
        assert_eq!(names(&patterns).first("file"), Some(2));
        assert_eq!(names(&["*_file", "delete_file"]).first("delete_file"), Some(0));
        assert_eq!(names(&["delete_file", "*_file"]).first("delete_file"), Some(0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever shortcut the library takes for a set of patterns, it agrees with each pattern's own expression.
        #[test]
        fn the_index_agrees_with_single_patterns(
            patterns in prop::collection::vec("[ab/.*?{},!\\[\\]-]{1,7}", 1..6),
            name in "[ab/.]{0,6}",
        ) {
            let parsed: Vec<Pattern> = patterns.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
            let expected = parsed.iter().position(|pattern| pattern.glob().unwrap().compile_matcher().is_match(&name));
            prop_assert_eq!(Names::new(parsed.iter().enumerate()).unwrap().first(&name), expected);
        }

        /// The index answers like each pattern asked alone.
        #[test]
        fn the_index_agrees_with_the_meaning(
            patterns in prop::collection::vec("[ab/.é*?]{1,5}", 1..6),
            name in "[ab/.é\n]{0,6}",
        ) {
            let parsed: Vec<Pattern> = patterns.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
            let letters: Vec<char> = name.chars().collect();
            let expected = parsed
                .iter()
                .position(|pattern| matches(&pattern.text.chars().collect::<Vec<_>>(), &letters));
            prop_assert_eq!(Names::new(parsed.iter().enumerate()).unwrap().first(&name), expected);
        }
    }
}
