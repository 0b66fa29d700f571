//! HAProxy's grammar: lines of words, gathered into sections.
//!
//! White space parts words, `#` begins a comment, `\` escapes, `'...'` is taken as it is, and `"..."` may have
//! `$NAME`, `${NAME}` and `${NAME-default}` of the environment. Must not know: what a keyword means, but for those that
//! begin a section.

use super::super::model::note;
use super::super::{Effect, Environment, ImportError, MAX_BYTES, Note, Place, syntax};

/// What begins a section.
const SECTIONS: &[&str] = &[
    "acme",
    "backend",
    "cache",
    "crt-store",
    "defaults",
    "fcgi-app",
    "frontend",
    "global",
    "http-errors",
    "listen",
    "log-forward",
    "log-profile",
    "mailers",
    "peers",
    "program",
    "resolvers",
    "ring",
    "traces",
    "userlist",
];

/// A line with its words, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) place: Place,
    pub(super) words: Vec<String>,
}

impl Line {
    /// Whether this is its first word.
    pub(super) fn is(&self, word: &str) -> bool {
        self.words.first().is_some_and(|first| first == word)
    }

    /// Whether these are its first words.
    pub(super) fn begins(&self, words: &[&str]) -> bool {
        self.words.len() >= words.len() && self.words.iter().zip(words).all(|(word, other)| word == other)
    }

    /// A word that has to be there; the keyword is 0.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn word(&self, index: usize) -> Result<&str, ImportError> {
        self.words
            .get(index)
            .map(String::as_str)
            .ok_or_else(|| syntax(&self.place, format!("\"{}\" needs more arguments", self.text())))
    }

    /// Its words from this one on.
    pub(super) fn rest(&self, from: usize) -> &[String] {
        self.words.get(from..).unwrap_or_default()
    }

    /// All its words.
    pub(super) fn text(&self) -> String {
        self.words.join(" ")
    }

    /// A value that HAProxy would refuse as well.
    pub(super) fn refuse(&self, value: &str) -> ImportError {
        let keyword = self.words.first().map_or("", String::as_str);
        syntax(&self.place, format!("\"{value}\" is no value of \"{keyword}\""))
    }
}

/// A section: the line that begins it and those that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) head: Line,
    pub(super) lines: Vec<Line>,
}

impl Section {
    pub(super) fn kind(&self) -> &str {
        self.head.words.first().map_or("", String::as_str)
    }

    /// Its name, where it has one.
    pub(super) fn name(&self) -> Option<&str> {
        self.head.words.get(1).map(String::as_str).filter(|name| *name != "from")
    }

    /// The `defaults` that it names.
    pub(super) fn from(&self) -> Option<&str> {
        let at = self.head.words.iter().skip(1).position(|word| word == "from")?;
        self.head.words.get(at + 2).map(String::as_str)
    }
}

/// Parses a file.
///
/// # Errors
/// It is not HAProxy's grammar.
pub(super) fn parse(
    file: &str,
    text: &str,
    environment: &Environment<'_>,
    notes: &mut Vec<Note>,
) -> Result<Vec<Section>, ImportError> {
    let file = file.into();
    let mut sections: Vec<Section> = Vec::new();
    let mut place = Place { file, line: 0 };
    if text.len() > MAX_BYTES {
        return Err(syntax(&place, format!("more than {} MiB", MAX_BYTES >> 20)));
    }
    for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
        place.line = place.line.saturating_add(1);
        let words = split(line, environment).map_err(|problem| syntax(&place, problem))?;
        let Some(first) = words.first() else { continue };
        let line = Line { place: place.clone(), words: words.clone() };
        if first.starts_with('.') {
            let why = "conditions are not judged; the lines of all branches are read";
            notes.push(note(&place, line.text(), Effect::Differs, why));
        } else if SECTIONS.contains(&first.as_str()) {
            sections.push(Section { head: line, lines: Vec::new() });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(line);
        } else {
            return Err(syntax(&place, format!("\"{first}\" stands before any section")));
        }
    }
    Ok(sections)
}

/// The words of a line.
fn split(line: &str, environment: &Environment<'_>) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    let mut quote = None;
    while let Some(character) = rest.next() {
        match (quote, character) {
            (None, ' ' | '\t') => words.extend(word.take()),
            (None, '#') => break,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == character => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().push(escaped(&mut rest, quote)?),
            (Some('"'), '$') => {
                let (value, after) = variable(rest.as_str(), environment)?;
                word.get_or_insert_default().push_str(&value);
                rest = after.chars();
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("the quote {quote} is not closed"));
    }
    words.extend(word);
    Ok(words)
}

/// What follows a backslash.
fn escaped(rest: &mut std::str::Chars<'_>, quote: Option<char>) -> Result<char, String> {
    let wrong = || "a backslash at the end of a line, or \\x without two hexadecimal digits".to_owned();
    match (rest.next().ok_or_else(wrong)?, quote) {
        ('n', None) => Ok('\n'),
        ('r', None) => Ok('\r'),
        ('t', None) => Ok('\t'),
        ('x', None) => {
            let digits: String = rest.by_ref().take(2).collect();
            let byte =
                u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2).ok_or_else(wrong)?;
            Ok(char::from(byte))
        }
        (character, _) => Ok(character),
    }
}

/// A variable after its `$`: its value, and what follows.
fn variable<'a>(text: &'a str, environment: &Environment<'_>) -> Result<(String, &'a str), String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let (inside, after) = match text.strip_prefix('{') {
        Some(text) => text.split_once('}').ok_or("a variable without its closing brace")?,
        None => text.split_at(text.find(|character| !is_part(character)).unwrap_or(text.len())),
    };
    let (name, default) = match inside.split_once('-') {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    // "${NAME[*]}" is a list of words; it is one word here, as in a place that wants one
    let name = name.strip_suffix("[*]").unwrap_or(name);
    if name.is_empty() || !name.chars().all(is_part) {
        return Err(format!("\"${inside}\" is no variable"));
    }
    match environment(name).or_else(|| default.map(str::to_owned)) {
        Some(value) => Ok((value, after)),
        None => Err(format!("the variable {name} is not in the environment of this import")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Result<Vec<String>, String> {
        split(line, &|name| (name == "PORT").then(|| "1883".to_owned()))
    }

    #[test]
    fn words_are_parted_quoted_and_escaped() {
        for (line, expected) in [
            ("  bind :1883 # comment", vec!["bind", ":1883"]),
            ("a 'b c'd \"e 'f\"", vec!["a", "b cd", "e 'f"]),
            (r"a\ b \# \\ \x41 \t", vec!["a b", "#", "\\", "A", "\t"]),
            (r#""\"$PORT\$" '$PORT' $PORT"#, vec!["\"1883$", "$PORT", "$PORT"]),
            (r#""${PORT}x" "${GONE-7}" "$PORT:1""#, vec!["1883x", "7", "1883:1"]),
            ("a ''", vec!["a", ""]),
            ("#", vec![]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        for (line, problem) in [
            ("a 'b", "not closed"),
            ("a \\", "backslash"),
            ("\\x4", "hexadecimal"),
            ("\"$GONE\"", "GONE is not in the environment"),
            ("\"${PORT\"", "closing brace"),
            ("\"$ \"", "no variable"),
        ] {
            let found = words(line).unwrap_err();
            assert!(found.contains(problem), "{line}: {found}");
        }
    }

    #[test]
    fn sections_have_names_and_defaults() {
        let text = "global\n maxconn 5\ndefaults tcp from base\nfrontend f from tcp\n bind :1\n\nbackend b\n";
        let mut notes = Vec::new();
        let sections = parse("h", text, &|_| None, &mut notes).unwrap();
        let heads: Vec<_> = sections.iter().map(|one| (one.kind(), one.name(), one.from())).collect();
        assert_eq!(
            heads,
            [
                ("global", None, None),
                ("defaults", Some("tcp"), Some("base")),
                ("frontend", Some("f"), Some("tcp")),
                ("backend", Some("b"), None),
            ]
        );
        assert_eq!((sections[2].lines[0].text(), sections[2].lines[0].place.line), ("bind :1".to_owned(), 5));
        let error = parse("h", "\nbind :1\n", &|_| None, &mut notes).unwrap_err();
        assert_eq!(error.to_string(), "h:2: \"bind\" stands before any section");
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text: String) {
            let _ = parse("h", &text, &|_| None, &mut Vec::new());
        }

        #[test]
        fn no_mixture_of_signs_is_too_strange(line in "[a\\\\\"'#${}x -]{0,40}") {
            let _ = words(&line);
        }
    }
}
