//! Rust source split into what is code and what is comment, by a small lexer.
//!
//! Rules ask for words in code or in comments; a word in a string is neither. The lexer knows strings (raw,
//! byte and C ones too), characters against lifetimes, and nested comments; it knows no grammar. What it
//! takes away becomes spaces, so that every line and column stays where it was.

use std::ops::Range;

/// One Rust file, split.
pub(crate) struct Source {
    /// The file with comments and the contents of strings blanked.
    pub code: String,
    /// The file with everything but comments blanked.
    pub comments: String,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub name: String,
    /// Its lines, counted from 0, from the one with `fn` to the closing brace.
    pub lines: Range<usize>,
}

impl Source {
    pub(crate) fn new(text: &str) -> Self {
        let mut split = Splitter { bytes: text.as_bytes(), at: 0, code: Vec::new(), comments: Vec::new() };
        split.run();
        // Only whole characters are kept or blanked, so the conversions lose nothing.
        Self {
            code: String::from_utf8_lossy(&split.code).into_owned(),
            comments: String::from_utf8_lossy(&split.comments).into_owned(),
        }
    }

    /// Every function with a body, outer ones before the ones inside them.
    pub(crate) fn functions(&self) -> Vec<Function> {
        words(&self.code)
            .filter(|&(_, word)| word == "fn")
            .filter_map(|(at, _)| {
                let after = &self.code[at + 2..];
                let (_, name) = words(after).next().filter(|_| after.starts_with(char::is_whitespace))?;
                let body = body_after(&self.code, at)?;
                let lines = line_of(&self.code, at)..line_of(&self.code, body.end) + 1;
                Some(Function { name: name.to_owned(), lines })
            })
            .collect()
    }

    /// The names in `mod NAME`, with or without a body.
    pub(crate) fn modules(&self) -> impl Iterator<Item = (usize, &str)> {
        words(&self.code).filter(|&(_, word)| word == "mod").filter_map(|(at, _)| {
            let after = &self.code[at + 3..];
            let name = after.trim_start().split(|c: char| !is_word(c)).next()?;
            (after.starts_with(char::is_whitespace) && !name.is_empty())
                .then(|| (line_of(&self.code, at), name))
        })
    }

    /// The lines (from 0) of modules under `#[cfg(test)]`.
    pub(crate) fn test_lines(&self) -> Vec<Range<usize>> {
        self.code
            .match_indices("#[cfg(test)]")
            .filter_map(|(at, _)| {
                let body = body_after(&self.code, at)?;
                Some(line_of(&self.code, at)..line_of(&self.code, body.end) + 1)
            })
            .collect()
    }
}

/// The words of `text` with where they begin; a word is what an identifier may consist of.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|c: char| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

/// The line (from 0) of the byte at `at`.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The braces of the item that begins at `from`, unless it ends without any.
fn body_after(code: &str, from: usize) -> Option<Range<usize>> {
    let mut brackets = 0_i32;
    let mut open = None;
    let mut depth = 0_u32;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match (open, byte) {
            (None, b'(' | b'[') => brackets += 1,
            (None, b')' | b']') => brackets -= 1,
            (None, b';' | b'}') if brackets == 0 => return None,
            (None, b'{') if brackets == 0 => {
                open = Some(at);
                depth = 1;
            }
            (Some(_), b'{') => depth += 1,
            (Some(start), b'}') => {
                depth -= 1;
                if depth == 0 {
                    return Some(start..at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Walks the bytes once and writes each to one of the two outputs, a space to the other.
struct Splitter<'a> {
    bytes: &'a [u8],
    at: usize,
    code: Vec<u8>,
    comments: Vec<u8>,
}

impl Splitter<'_> {
    fn run(&mut self) {
        while self.at < self.bytes.len() {
            if self.rest().starts_with(b"//") {
                let length = self.rest().iter().take_while(|&&byte| byte != b'\n').count();
                self.comment(length);
            } else if self.rest().starts_with(b"/*") {
                self.comment(block_comment(self.rest()));
            } else if let Some(length) = self.raw_string() {
                self.blank(length);
            } else if self.bytes[self.at] == b'"' {
                self.blank(quoted(self.rest(), b'"'));
            } else if self.bytes[self.at] == b'\'' {
                match character(self.rest()) {
                    Some(length) => self.blank(length),
                    None => self.code(1), // a lifetime
                }
            } else {
                self.code(1);
            }
        }
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// The length of the raw string that begins here (`r"`, `r#"`, after an optional b or c), if one does.
    fn raw_string(&self) -> Option<usize> {
        let inside_a_word = self.at > 0 && is_word(char::from(self.bytes[self.at - 1]));
        let rest = self.rest();
        let prefix = usize::from(matches!(rest, [b'b' | b'c', b'r', ..]));
        if inside_a_word || rest.get(prefix) != Some(&b'r') {
            return None;
        }
        let hashes = rest[prefix + 1..].iter().take_while(|&&byte| byte == b'#').count();
        let start = prefix + 1 + hashes;
        if rest.get(start) != Some(&b'"') {
            return None;
        }
        let closing = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
        let length = rest[start + 1..].windows(closing.len()).position(|window| window == closing);
        Some(length.map_or(rest.len(), |inside| start + 1 + inside + closing.len()))
    }

    fn code(&mut self, length: usize) {
        self.emit(length, true, false);
    }

    fn comment(&mut self, length: usize) {
        self.emit(length, false, true);
    }

    fn blank(&mut self, length: usize) {
        self.emit(length, false, false);
    }

    fn emit(&mut self, length: usize, code: bool, comment: bool) {
        for &byte in &self.bytes[self.at..self.at + length] {
            let blank = if byte == b'\n' { b'\n' } else { b' ' };
            self.code.push(if code { byte } else { blank });
            self.comments.push(if comment { byte } else { blank });
        }
        self.at += length;
    }
}

/// The length of the block comment at the start of `rest`; they nest.
fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_u32;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of the string or character at the start of `rest`, both quotes included.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of the character literal at the start of `rest`, or nothing if it is a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    let length_of_character = match *rest.get(1)? {
        b'\\' => return Some(quoted(rest, b'\'')),
        0x00..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
    };
    (rest.get(1 + length_of_character) == Some(&b'\'')).then_some(length_of_character + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, code: &str, comments: &str) {
        let source = Source::new(text);
        assert_eq!(source.code.trim_end(), code, "code of {text:?}");
        assert_eq!(source.comments.trim(), comments, "comments of {text:?}");
        assert_eq!(source.code.len(), text.len());
    }

    #[test]
    fn comments_leave_the_code() {
        check("let a; // why", "let a;", "// why");
        check("a /* b /* c */ d */ e", "a                   e", "/* b /* c */ d */");
        check("a /* never closed", "a", "/* never closed");
    }

    #[test]
    fn strings_of_every_kind_leave_the_code() {
        check(r#"f("// no", 'x')"#, "f(       ,    )", "");
        check(r##"f(r#"a "quoted" b"#) // c"##, "f(                 )", "// c");
        check(r#"f(b"\"", br"\") // c"#, "f(b    ,      )", "// c");
        check("for r in 0..1 {}", "for r in 0..1 {}", "");
        check("\"never closed", "", "");
        check("r#\"never closed", "", "");
    }

    #[test]
    fn characters_and_lifetimes_are_told_apart() {
        check("fn f<'a>(x: &'a u8) -> char { '\\'' }", "fn f<'a>(x: &'a u8) -> char {      }", "");
        check("['é', '{', '\"']", "[    ,    ,    ]", "");
    }

    #[test]
    fn functions_are_found_with_their_lines() {
        let source = Source::new("trait T { fn a(&self); }\nfn b(x: [u8; 2]) -> u8 {\n  fn c() {}\n  1\n}\n");
        let expected = [("b", 1..5), ("c", 2..3)];
        let found: Vec<_> = source.functions().into_iter().map(|f| (f.name, f.lines)).collect();
        assert_eq!(found, expected.map(|(name, lines)| (name.to_owned(), lines)));
    }

    #[test]
    fn function_pointers_are_no_functions_with_a_body() {
        let source = Source::new("struct Step { run: fn(u8) -> u8, name: u8 }\nfn b() {}\n");
        let lines: Vec<_> = source.functions().into_iter().map(|f| f.lines).collect();
        assert_eq!(lines, vec![1..2]);
    }

    #[test]
    fn modules_and_the_lines_of_tests_are_found() {
        let source =
            Source::new("mod a;\npub(crate) mod b {\n}\n#[cfg(test)]\nmod tests {\n  // mod d;\n}\n");
        assert_eq!(source.modules().collect::<Vec<_>>(), [(0, "a"), (1, "b"), (4, "tests")]);
        assert_eq!(source.test_lines(), vec![3..7]);
        assert_eq!(Source::new("#[cfg(test)]\nmod tests;\nfn b() {\n}\n").test_lines(), []);
    }
}
