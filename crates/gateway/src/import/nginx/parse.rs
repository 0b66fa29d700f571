//! nginx's grammar: words, `;`, `{ }`, quotes, escapes, comments, `include`.
//!
//! As in nginx: quotes count at the beginning of a word only; in every word `\"`, `\'` and `\\` lose their backslash,
//! `\t`, `\r`, `\n` become what they name, other backslashes stay; `${` begins no block; relative includes start at the
//! folder of the main file. Must not know: what any directive means, but for `include` and Lua's blocks.

use std::sync::Arc;

use super::super::model::note;
use super::super::{Effect, ImportError, Include, MAX_BYTES, Note, Place, syntax};

/// Deepest nesting of blocks, and of includes.
const MAX_DEPTH: usize = 32;
/// Most files of one configuration.
const MAX_FILES: usize = 1_000;

/// A directive with its words and its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) place: Place,
    /// Its name and its arguments, at least the name.
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Self>>,
}

impl Directive {
    /// Its first word.
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Its words, without a block.
    pub(super) fn text(&self) -> String {
        self.words.join(" ")
    }

    /// Whether it is this directive with this one argument.
    pub(super) fn is(&self, name: &str, argument: &str) -> bool {
        self.name() == name && self.words.get(1).is_some_and(|word| word == argument)
    }

    /// An argument that has to be there; the first is 1.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn argument(&self, index: usize) -> Result<&str, ImportError> {
        self.words.get(index).map(String::as_str).ok_or_else(|| self.invalid())
    }

    /// All its arguments.
    pub(super) fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// What nginx says when arguments are missing.
    fn invalid(&self) -> ImportError {
        syntax(&self.place, format!("invalid number of arguments in \"{}\" directive", self.name()))
    }

    /// What nginx says of a directive that no module has, with the nearest of those that stand there.
    pub(super) fn unknown(&self, names: &[&'static str]) -> ImportError {
        let near = runtime::config::nearest(self.name(), names.iter().copied());
        let near = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
        syntax(&self.place, format!("unknown directive \"{}\"{near}", self.name()))
    }

    /// A value that nginx would refuse as well.
    pub(super) fn refuse(&self, value: &str) -> ImportError {
        syntax(&self.place, format!("invalid value \"{value}\" in \"{}\" directive", self.name()))
    }
}

/// Parses a file with everything it includes. What cannot be included is noted.
///
/// # Errors
/// One of the files is not nginx's grammar, or all of them are too much.
pub(super) fn load(
    file: &str,
    text: &str,
    include: &mut Include<'_>,
    notes: &mut Vec<Note>,
) -> Result<Vec<Directive>, ImportError> {
    let directives = parse(file, text)?;
    let mut loader = Loader { include, notes, files: 1, bytes: text.len() };
    loader.expand(directives, 0)
}

struct Loader<'a, 'b> {
    include: &'a mut Include<'b>,
    notes: &'a mut Vec<Note>,
    files: usize,
    bytes: usize,
}

impl Loader<'_, '_> {
    /// Puts the content of included files in the place of `include`. Blocks of other protocols are not looked into.
    fn expand(&mut self, directives: Vec<Directive>, depth: usize) -> Result<Vec<Directive>, ImportError> {
        let mut out = Vec::with_capacity(directives.len());
        for mut directive in directives {
            if directive.name() == "include" && directive.block.is_none() {
                out.extend(self.included(&directive, depth)?);
                continue;
            }
            if let Some(block) = directive.block.take() {
                let foreign = matches!(directive.name(), "http" | "mail");
                directive.block = Some(if foreign { Vec::new() } else { self.expand(block, depth)? });
            }
            out.push(directive);
        }
        Ok(out)
    }

    fn included(&mut self, directive: &Directive, depth: usize) -> Result<Vec<Directive>, ImportError> {
        let place = &directive.place;
        let pattern = directive.argument(1)?;
        if depth >= MAX_DEPTH {
            return Err(syntax(place, format!("files include each other more than {MAX_DEPTH} levels deep")));
        }
        let files = match (self.include)(pattern) {
            Ok(files) => files,
            Err(error) => {
                self.notes.push(note(place, directive.text(), Effect::LeftOut, error));
                return Ok(Vec::new());
            }
        };
        let mut out = Vec::new();
        for (name, text) in files {
            self.files += 1;
            self.bytes = self.bytes.saturating_add(text.len());
            if self.files > MAX_FILES || self.bytes > MAX_BYTES {
                let problem = format!("more than {MAX_FILES} files or {} MiB together", MAX_BYTES >> 20);
                return Err(syntax(place, problem));
            }
            out.extend(self.expand(parse(&name, &text)?, depth + 1)?);
        }
        Ok(out)
    }
}

/// Parses one file.
///
/// # Errors
/// It is not nginx's grammar.
pub(super) fn parse(file: &str, text: &str) -> Result<Vec<Directive>, ImportError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lexer = Lexer { file: file.into(), rest: text, line: 1 };
    // blocks that are open, each with the directive it belongs to
    let mut open: Vec<(Directive, Vec<Directive>)> = Vec::new();
    let mut directives = Vec::new();
    loop {
        let place = lexer.next_place();
        match lexer.statement()? {
            Statement::Simple(words) => directives.push(Directive { place, words, block: None }),
            Statement::Open(words) => {
                let directive = Directive { place, words, block: None };
                if directive.name().ends_with("_by_lua_block") {
                    lexer.skip_lua(&directive.place)?;
                    directives.push(Directive { block: Some(Vec::new()), ..directive });
                } else if open.len() >= MAX_DEPTH {
                    return Err(syntax(
                        &directive.place,
                        format!("blocks more than {MAX_DEPTH} levels deep"),
                    ));
                } else {
                    open.push((directive, std::mem::take(&mut directives)));
                }
            }
            Statement::Close => {
                let Some((directive, outer)) = open.pop() else {
                    return Err(syntax(&lexer.place(), "unexpected \"}\""));
                };
                let block = std::mem::replace(&mut directives, outer);
                directives.push(Directive { block: Some(block), ..directive });
            }
            Statement::End => {
                if let Some((directive, _)) = open.pop() {
                    let problem = format!(
                        "unexpected end of file, expecting \"}}\" of the block \"{}\" in line {}",
                        directive.name(),
                        directive.place.line
                    );
                    return Err(syntax(&lexer.place(), problem));
                }
                return Ok(directives);
            }
        }
    }
}

enum Statement {
    /// Ended by `;`.
    Simple(Vec<String>),
    /// Ended by `{`.
    Open(Vec<String>),
    Close,
    End,
}

struct Lexer<'a> {
    file: Arc<str>,
    rest: &'a str,
    line: u32,
}

impl Lexer<'_> {
    fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line }
    }

    /// Where the next word begins.
    fn next_place(&mut self) -> Place {
        self.skip_blank();
        self.place()
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let character = characters.next()?;
        self.rest = characters.as_str();
        if character == '\n' {
            self.line = self.line.saturating_add(1);
        }
        Some(character)
    }

    /// White space and comments.
    fn skip_blank(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r' | '\n') => {
                    self.take();
                }
                Some('#') => while !matches!(self.take(), Some('\n') | None) {},
                _ => return,
            }
        }
    }

    fn statement(&mut self) -> Result<Statement, ImportError> {
        let mut words = Vec::new();
        loop {
            self.skip_blank();
            match self.peek() {
                None if words.is_empty() => return Ok(Statement::End),
                None => {
                    return Err(syntax(&self.place(), "unexpected end of file, expecting \";\" or \"}\""));
                }
                Some(end @ (';' | '{')) => {
                    self.take();
                    if words.is_empty() {
                        return Err(syntax(&self.place(), format!("unexpected \"{end}\"")));
                    }
                    return Ok(if end == ';' { Statement::Simple(words) } else { Statement::Open(words) });
                }
                Some('}') => {
                    self.take();
                    if !words.is_empty() {
                        return Err(syntax(&self.place(), "unexpected \"}\""));
                    }
                    return Ok(Statement::Close);
                }
                Some(quote @ ('"' | '\'')) => {
                    self.take();
                    words.push(self.quoted(quote)?);
                }
                Some(_) => words.push(self.bare()),
            }
        }
    }

    /// A word that began with a quote.
    fn quoted(&mut self, quote: char) -> Result<String, ImportError> {
        let begin = self.place();
        let mut word = String::new();
        loop {
            match self.take() {
                None => return Err(syntax(&begin, format!("the quote {quote} is not closed"))),
                Some('\\') => self.escaped(&mut word),
                Some(character) if character == quote => break,
                Some(character) => word.push(character),
            }
        }
        match self.peek() {
            None | Some(' ' | '\t' | '\r' | '\n' | ';' | '{' | ')') => Ok(word),
            Some(other) => Err(syntax(&self.place(), format!("unexpected \"{other}\" after a quote"))),
        }
    }

    /// A word up to white space, `;` or `{`, but for the brace of `${`.
    fn bare(&mut self) -> String {
        let mut word = String::new();
        let mut after_dollar = false;
        while let Some(character) = self.peek() {
            let ends =
                matches!(character, ' ' | '\t' | '\r' | '\n' | ';') || (character == '{' && !after_dollar);
            if ends {
                break;
            }
            self.take();
            after_dollar = character == '$';
            if character == '\\' {
                self.escaped(&mut word);
            } else {
                word.push(character);
            }
        }
        word
    }

    /// What follows a backslash.
    fn escaped(&mut self, word: &mut String) {
        match self.take() {
            None => word.push('\\'),
            Some(character @ ('"' | '\'' | '\\')) => word.push(character),
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(other) => word.extend(['\\', other]),
        }
    }

    /// Lua up to the brace that closes its block: strings, long strings and comments may have braces of their own.
    fn skip_lua(&mut self, begin: &Place) -> Result<(), ImportError> {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.take() {
                None => return Err(syntax(begin, "the block of Lua is not closed")),
                Some('{') => depth = depth.saturating_add(1),
                Some('}') => depth -= 1,
                Some(quote @ ('"' | '\'')) => self.skip_lua_string(quote),
                Some('-') if self.rest.starts_with("-[[") || self.rest.starts_with("-[=") => {
                    self.take();
                    self.take();
                    self.skip_lua_long();
                }
                Some('-') if self.rest.starts_with('-') => {
                    while !matches!(self.peek(), Some('\n') | None) {
                        self.take();
                    }
                }
                Some('[') if self.rest.starts_with(['[', '=']) => self.skip_lua_long(),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn skip_lua_string(&mut self, quote: char) {
        while let Some(character) = self.take() {
            match character {
                '\\' => {
                    self.take();
                }
                _ if character == quote || character == '\n' => return,
                _ => {}
            }
        }
    }

    /// After `[`: `==[ ... ]==]`, with as many signs on both sides; anything else is no long string.
    fn skip_lua_long(&mut self) {
        let signs = self.rest.len() - self.rest.trim_start_matches('=').len();
        if !self.rest[signs..].starts_with('[') {
            return;
        }
        let close = format!("]{}]", "=".repeat(signs));
        while !self.rest.is_empty() && !self.rest.starts_with(&close) {
            self.take();
        }
        for _ in 0..close.len() {
            self.take();
        }
    }
}

#[cfg(test)]
mod tests;
