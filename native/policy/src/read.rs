//! From nodes to a document: what stands where, each field checked by itself.

use crate::diagnostic::{Findings, Place, Reported, shorten};
use crate::document::{Draft, Effect, Placed, RuleDraft};
use crate::keys::{self, Word};
use crate::pattern::Pattern;
use crate::suggest;
use crate::yaml::{Field, Node, Value};

/// The longest name of a policy or rule, in characters.
pub const MAX_NAME: usize = 128;

/// The longest reason, in characters: it becomes part of what a model reads.
pub const MAX_REASON: usize = 1024;

/// Reads one document.
pub(crate) fn document(root: &Node, findings: &mut Findings) -> Result<Draft, Reported> {
    Reader { findings }.document(root)
}

struct Reader<'f> {
    findings: &'f mut Findings,
}

/// The fields of one mapping.
struct Fields<'n> {
    place: Place,
    fields: &'n [Field],
    /// The known names that unknown ones are probably meant to be: these are not missing as well.
    meant: Vec<(&'static str, Reported)>,
}

impl<'n> Fields<'n> {
    fn get(&self, name: &str) -> Option<&'n Field> {
        self.fields.iter().find(|field| field.key == name)
    }

    fn meant(&self, name: &str) -> Option<Reported> {
        self.meant.iter().find(|(meant, _)| *meant == name).map(|(_, reported)| *reported)
    }
}

impl Reader<'_> {
    fn document(&mut self, root: &Node) -> Result<Draft, Reported> {
        if let Value::Null = root.value {
            let message = "this document is empty; write a policy or remove the `---`";
            return Err(self.findings.report(root.place, "", message));
        }
        let fields = self.fields(root, "a policy", keys::DOCUMENT)?;
        self.constant(&fields, "apiVersion", keys::API_VERSION);
        self.constant(&fields, "kind", keys::KIND);
        let name = self.name(&fields);
        let default = match fields.get("default") {
            Some(field) => self.word(field, keys::DEFAULT).and_then(|word| self.effect(field, word)).map(Some),
            None => fields.meant("default").map_or(Ok(None), Err),
        };
        let rules = match fields.get("rules") {
            Some(field) => self.rules(&field.value),
            None => fields.meant("rules").map_or(Ok(Placed { value: Vec::new(), place: fields.place }), Err),
        };
        if matches!((&rules, &default), (Ok(rules), Ok(None)) if rules.value.is_empty()) {
            let message = "this policy says nothing: give it `rules`, or a `default` of `allow` or `deny`";
            self.findings.report(fields.place, "", message);
        }
        Ok(Draft { name, default, rules })
    }

    fn name(&mut self, document: &Fields<'_>) -> Result<Placed<String>, Reported> {
        let metadata = self.required(document, "metadata", "write `metadata: {name: …}`")?;
        let fields = self.fields(&metadata.value, "`metadata`", keys::METADATA)?;
        if let Some(description) = fields.get("description") {
            // Only for people, so all that matters is that it is text.
            let _: Result<&str, Reported> = self.text(description);
        }
        let name = self.required(&fields, "name", "a policy needs a name")?;
        self.label(name)
    }

    fn rules(&mut self, node: &Node) -> Result<Placed<Vec<Result<RuleDraft, Reported>>>, Reported> {
        match &node.value {
            Value::List(items) => {
                let value = items.iter().map(|item| self.rule(item)).collect();
                Ok(Placed { value, place: node.place })
            }
            _ => Err(self.wrong_type(node, "`rules`", "a list")),
        }
    }

    fn rule(&mut self, node: &Node) -> Result<RuleDraft, Reported> {
        let fields = self.fields(node, "a rule", keys::RULE)?;
        let id = self.required(&fields, "id", "each rule needs a name of its own").and_then(|field| self.label(field));
        let on = self
            .required(&fields, "on", "write `on: tool`")
            .and_then(|field| self.word(field, keys::ON))
            .map(|_tool| ());
        let tools = self
            .required(&fields, "match", "say what the rule is about, `match: {tool: …}`")
            .and_then(|field| self.tools(field));
        let effect = self
            .required(&fields, "effect", "say `allow` or `deny`")
            .and_then(|field| self.word(field, keys::EFFECT).and_then(|word| self.effect(field, word)));
        let reason = fields.get("reason").map(|field| self.reason(field)).transpose();
        Ok(RuleDraft { id, effect, tools, reason, on })
    }

    fn tools(&mut self, field: &Field) -> Result<Placed<Vec<Pattern>>, Reported> {
        let fields = self.fields(&field.value, "`match`", keys::MATCH)?;
        let tool = self.required(&fields, "tool", "write `tool: name`, or `tool: \"*\"` for every tool")?;
        let place = tool.value.place;
        let value = match &tool.value.value {
            Value::Text(_) => vec![self.pattern(&tool.value)?],
            Value::List(items) if items.is_empty() => {
                let message = "`tool` must not be an empty list; `\"*\"` stands for every tool";
                return Err(self.findings.report(place, "", message));
            }
            Value::List(items) => {
                let patterns = items.iter().map(|item| self.pattern(item)).collect::<Vec<_>>();
                patterns.into_iter().collect::<Result<Vec<_>, _>>()?
            }
            _ => return Err(self.wrong_type(&tool.value, "`tool`", "text or a list of texts")),
        };
        Ok(Placed { value, place })
    }

    fn pattern(&mut self, node: &Node) -> Result<Pattern, Reported> {
        match &node.value {
            Value::Text(text) => {
                Pattern::parse(text).map_err(|message| self.findings.report(node.place, text, message))
            }
            _ => Err(self.wrong_type(node, "a pattern", "text")),
        }
    }

    /// One line of a sentence, however it was wrapped.
    fn reason(&mut self, field: &Field) -> Result<String, Reported> {
        let text = self.text(field)?;
        let reason = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if reason.is_empty() {
            let message = "`reason` must not be empty; say why, or remove it";
            return Err(self.findings.report(field.value.place, text, message));
        }
        if reason.chars().nth(MAX_REASON).is_some() {
            let message = format!("`reason` must not have more than {MAX_REASON} characters");
            return Err(self.findings.report(field.value.place, text, message));
        }
        Ok(reason)
    }

    /// The name of a policy or a rule.
    fn label(&mut self, field: &Field) -> Result<Placed<String>, Reported> {
        let text = self.text(field)?;
        let place = field.value.place;
        let complaint = if text.trim().is_empty() {
            "must not be empty".to_owned()
        } else if text.chars().nth(MAX_NAME).is_some() {
            format!("must not have more than {MAX_NAME} characters")
        } else if text.trim() != text || text.chars().any(char::is_control) {
            "must be one line that neither begins nor ends with white space".to_owned()
        } else {
            return Ok(Placed { value: text.to_owned(), place });
        };
        Err(self.findings.report(place, text, format!("`{}` {complaint}", field.key)))
    }

    /// A field with one possible value.
    fn constant(&mut self, fields: &Fields<'_>, name: &str, value: &str) {
        let Ok(field) = self.required(fields, name, &format!("write `{name}: {value}`")) else { return };
        let Ok(text) = self.text(field) else { return };
        if text != value {
            let message = format!("`{name}` must be `{value}`, this is `{}`", shown(text));
            self.findings.report(field.value.place, text, message);
        }
    }

    /// A field with a value of a closed set.
    fn word(&mut self, field: &Field, words: &'static [Word]) -> Result<&'static Word, Reported> {
        let text = self.text(field)?;
        let place = field.value.place;
        match keys::find(words, text) {
            Some(word) if word.supported => Ok(word),
            Some(word) => {
                let message = format!("`{}: {}` is not supported yet", field.key, word.name);
                Err(self.findings.report(place, text, message))
            }
            None => {
                let list = keys::names(words).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                let message = format!("unknown `{}` `{}`; it must be one of {list}", field.key, shown(text));
                Err(self.findings.suggest(place, text, message, suggest::nearest(text, keys::names(words))))
            }
        }
    }

    fn effect(&mut self, field: &Field, word: &Word) -> Result<Effect, Reported> {
        match word.name {
            "allow" => Ok(Effect::Allow),
            "deny" => Ok(Effect::Deny),
            name => {
                let message = format!("`{}: {name}` is not supported yet", field.key);
                Err(self.findings.report(field.value.place, name, message))
            }
        }
    }

    fn text<'n>(&mut self, field: &'n Field) -> Result<&'n str, Reported> {
        match &field.value.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.wrong_type(&field.value, &format!("`{}`", field.key), "text")),
        }
    }

    /// The fields of a mapping, after reporting those that are unknown or not supported yet.
    fn fields<'n>(&mut self, node: &'n Node, what: &str, words: &'static [Word]) -> Result<Fields<'n>, Reported> {
        let Value::Map(fields) = &node.value else { return Err(self.wrong_type(node, what, "a mapping")) };
        let mut meant = Vec::new();
        for Field { key, place, .. } in fields {
            match keys::find(words, key) {
                Some(word) if word.supported => {}
                Some(word) => {
                    self.findings.report(*place, key, format!("`{}` is not supported yet", word.name));
                }
                None => {
                    let message = format!("unknown field `{}` of {what}", shown(key));
                    let nearest = suggest::nearest(key, keys::names(words));
                    let reported = self.findings.suggest(*place, key, message, nearest);
                    meant.extend(nearest.map(|name| (name, reported)));
                }
            }
        }
        Ok(Fields { place: node.place, fields, meant })
    }

    fn required<'n>(&mut self, fields: &Fields<'n>, name: &str, remedy: &str) -> Result<&'n Field, Reported> {
        match (fields.get(name), fields.meant(name)) {
            (Some(field), _) => Ok(field),
            (None, Some(reported)) => Err(reported),
            (None, None) => Err(self.findings.report(fields.place, "", format!("`{name}` is missing: {remedy}"))),
        }
    }

    fn wrong_type(&mut self, node: &Node, what: &str, wanted: &str) -> Reported {
        match &node.value {
            Value::Refused(reported) => *reported,
            value => {
                let quote = match value {
                    Value::Bool(_) | Value::Number(_) => "; put it in quotes if it is meant as text",
                    _ => "",
                };
                let message = format!("{what} must be {wanted}, this is {}{quote}", value.describe());
                self.findings.report(node.place, value.text(), message)
            }
        }
    }
}

/// A word of the document inside a message.
fn shown(text: &str) -> String {
    shorten(text, MAX_NAME)
}
