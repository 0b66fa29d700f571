//! Words, blocks, includes and what is refused.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn words(text: &str) -> Vec<Vec<String>> {
    parse("t", text).unwrap().into_iter().map(|directive| directive.words).collect()
}

#[test]
fn words_end_at_white_space_and_quotes_hold_them_together() {
    for (text, expected) in [
        ("a b c;", vec!["a", "b", "c"]),
        ("a 'b c' \"d;{}#\";", vec!["a", "b c", "d;{}#"]),
        ("a\n\tb # comment ; {\n c;", vec!["a", "b", "c"]),
        ("a b#c d\"e;", vec!["a", "b#c", "d\"e"]),
        ("a ${b}c $d;", vec!["a", "${b}c", "$d"]),
        (r#"a \" \' \\ \t x\;y "\"q\"" '\q';"#, vec!["a", "\"", "'", "\\", "\t", "x\\;y", "\"q\"", "\\q"]),
        ("a '';", vec!["a", ""]),
        ("\u{feff}a\r\n b;\r\n", vec!["a", "b"]),
        ("größe 'für 3';", vec!["größe", "für 3"]),
    ] {
        assert_eq!(words(text), [expected], "{text}");
    }
    assert!(words(" # nothing\n").is_empty());
}

#[test]
fn blocks_nest_and_know_their_lines() {
    let directives = parse("f.conf", "a;\nb {\n  c d;\n  e { }\n}\nf;").unwrap();
    let names: Vec<_> = directives.iter().map(|one| (one.name(), one.place.line)).collect();
    assert_eq!(names, [("a", 1), ("b", 2), ("f", 6)]);
    let block = directives[1].block.as_deref().unwrap();
    assert_eq!((block[0].place.line, block[0].text()), (3, "c d".to_owned()));
    assert_eq!(block[1].block.as_deref(), Some(&[][..]));
    assert_eq!(directives[0].block, None);
}

#[test]
fn lua_may_have_braces_of_its_own() {
    for lua in [
        "ngx.say('}') -- }\n local t = { a = \"\\\"}\" }",
        "--[[ } ]] x = [[ } ]] y = [==[ }]] ]==] z = a[1] --[=[ ]] } ]=]",
        "if x then return { {}, {} } end",
    ] {
        let text = format!("content_by_lua_block {{ {lua} }} after;");
        let names: Vec<_> = parse("t", &text).unwrap().iter().map(|one| one.name().to_owned()).collect();
        assert_eq!(names, ["content_by_lua_block", "after"], "{lua}");
    }
}

#[test]
fn what_is_no_grammar_is_refused_at_its_line() {
    for (text, line, problem) in [
        ("a {\n b;\n", 3, "expecting \"}\" of the block \"a\" in line 1"),
        ("a;\n}\n", 2, "unexpected \"}\""),
        ("a\nb }\n", 2, "unexpected \"}\""),
        ("a b", 1, "expecting \";\""),
        (";", 1, "unexpected \";\""),
        ("\n{ }", 2, "unexpected \"{\""),
        ("a 'b;\n", 1, "not closed"),
        ("a 'b'c;", 1, "unexpected \"c\" after a quote"),
        ("x_by_lua_block { '", 1, "Lua is not closed"),
    ] {
        let Err(ImportError::Syntax { place, problem: found }) = parse("t", text) else { panic!("{text}") };
        assert!(found.contains(problem), "{text}: {found}");
        assert_eq!(place.line, line, "{text}: {found}");
    }
    let deep = "a { ".repeat(MAX_DEPTH + 1);
    assert!(parse("t", &deep).unwrap_err().to_string().contains("levels deep"));
    let fine = format!("{}{}", "a { ".repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH));
    assert!(parse("t", &fine).is_ok());
}

/// Loads with files by pattern.
fn load_with(text: &str, files: &[(&str, &[(&str, &str)])]) -> (Result<Vec<String>, String>, Vec<Note>) {
    let files: HashMap<_, _> = files.iter().copied().collect();
    let mut notes = Vec::new();
    let mut include = |pattern: &str| {
        let found = files.get(pattern).ok_or_else(|| format!("cannot read {pattern}"))?;
        Ok(found.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    };
    let loaded = load("main", text, &mut include, &mut notes);
    let flat = |directives: Vec<Directive>| {
        directives.iter().map(|one| format!("{} {}", one.place, one.text())).collect()
    };
    (loaded.map(flat).map_err(|error| error.to_string()), notes)
}

#[test]
fn included_files_stand_where_they_are_included() {
    let (loaded, notes) = load_with(
        "a;\ninclude d/*.conf;\nb;\ninclude gone;\nhttp { include mime.types; }",
        &[("d/*.conf", &[("d/1.conf", "c;\ninclude e;"), ("d/2.conf", "\nf;")]), ("e", &[("e", "g;")])],
    );
    assert_eq!(
        loaded.unwrap(),
        ["main:1 a", "d/1.conf:1 c", "e:1 g", "d/2.conf:2 f", "main:3 b", "main:5 http"]
    );
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(notes[0].to_string(), "main:4: include gone: left out: cannot read gone");
}

#[test]
fn a_broken_file_is_told_by_its_own_name() {
    let (loaded, _) = load_with("include x;", &[("x", &[("x.conf", "a;\n\"b")])]);
    assert!(loaded.unwrap_err().starts_with("x.conf:2: "));
}

#[test]
fn files_that_include_each_other_end() {
    let (loaded, _) = load_with("include x;", &[("x", &[("x.conf", "\ninclude x;")])]);
    assert!(loaded.unwrap_err().contains("levels deep"));
    let many: Vec<_> = (0..MAX_FILES).map(|_| ("m.conf", "a;")).collect();
    let (loaded, _) = load_with("include m;", &[("m", &many)]);
    assert!(loaded.unwrap_err().contains("more than 1000 files"));
    let (loaded, _) = load_with("include m;", &[("m", &many[1..])]);
    assert_eq!(loaded.unwrap().len(), MAX_FILES - 1);
}

/// A word as one may write it: quoted, with what has to be escaped escaped.
fn quoted(word: &str) -> String {
    let mut out = String::from("\"");
    for character in word.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text: String) {
        let _ = parse("t", &text);
    }

    #[test]
    fn no_mixture_of_signs_is_too_strange(text in "[a\\\\\"'{};#$ \\n\\[\\]=-]{0,60}(_by_lua_block \\{)?[a\\\\\"'{};#$ \\n\\[\\]=-]{0,60}") {
        let _ = parse("t", &text);
    }

    #[test]
    fn what_is_written_with_quotes_reads_back(lines in prop::collection::vec(prop::collection::vec(".{1,8}", 1..5), 0..5)) {
        let text: String = lines
            .iter()
            .map(|line| line.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ") + ";\n")
            .collect();
        // a byte order mark is no part of a text
        prop_assume!(!text.starts_with('\u{feff}'));
        prop_assert_eq!(words(&text), lines);
    }
}
