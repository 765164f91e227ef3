//! Every field and closed value of the document, and whether this version supports it.
//!
//! Known words that are not supported yet are refused by name, so that no protection that was asked for is ignored.

/// A field's name or a value of a closed set.
#[derive(Debug)]
pub(crate) struct Word {
    pub name: &'static str,
    pub supported: bool,
}

const fn supported(name: &'static str) -> Word {
    Word { name, supported: true }
}

const fn not_yet(name: &'static str) -> Word {
    Word { name, supported: false }
}

pub(crate) const API_VERSION: &str = "agent-assembly/v1";
pub(crate) const KIND: &str = "Policy";

pub(crate) static DOCUMENT: &[Word] = &[
    supported("apiVersion"),
    supported("kind"),
    supported("metadata"),
    not_yet("scope"),
    supported("default"),
    supported("rules"),
    not_yet("redact"),
    not_yet("budget"),
    not_yet("schedule"),
];

pub(crate) static METADATA: &[Word] = &[supported("name"), supported("description")];

pub(crate) static RULE: &[Word] = &[
    supported("id"),
    supported("on"),
    supported("match"),
    not_yet("when"),
    supported("effect"),
    not_yet("approve"),
    not_yet("limit"),
    supported("reason"),
];

pub(crate) static MATCH: &[Word] = &[supported("tool"), not_yet("framework"), not_yet("server"), not_yet("host")];

/// Values of `on`.
pub(crate) static ON: &[Word] =
    &[supported("tool"), not_yet("llm"), not_yet("network"), not_yet("exec"), not_yet("file"), not_yet("spawn")];

/// Values of `effect`.
pub(crate) static EFFECT: &[Word] = &[supported("allow"), supported("deny"), not_yet("approve"), not_yet("redact")];

/// Values of `default`.
pub(crate) static DEFAULT: &[Word] = &[supported("allow"), supported("deny")];

pub(crate) fn find(words: &'static [Word], name: &str) -> Option<&'static Word> {
    words.iter().find(|word| word.name == name)
}

pub(crate) fn names(words: &'static [Word]) -> impl Iterator<Item = &'static str> {
    words.iter().map(|word| word.name)
}
