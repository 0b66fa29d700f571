//! What other balancers' files become.

mod haproxy;
mod nginx;
mod properties;

use std::path::Path;

use runtime::config::Document;

use super::*;
use crate::config::GatewayConfig;

/// What the TOML says, to the gateway itself.
fn judge(imported: &Imported) -> Result<GatewayConfig, Vec<String>> {
    let document = Document::parse(Path::new("t.toml"), &imported.toml)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let read = document.read(|root| root.table("gateway", crate::config::read));
    read.map(Option::unwrap).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// Reads nginx's configuration without any included file.
fn read_nginx(text: &str) -> Result<Imported, ImportError> {
    nginx("nginx.conf", text, &mut |_| Err("no files here".to_owned()))
}

/// The same where something comes out.
#[track_caller]
fn import_nginx(text: &str) -> Imported {
    fine(read_nginx(text))
}

/// Reads HAProxy's configuration with two variables in its environment.
fn read_haproxy(text: &str) -> Result<Imported, ImportError> {
    haproxy("haproxy.cfg", text, &|name| {
        [("PORT", "1883"), ("HOST", "10.0.0.1")]
            .into_iter()
            .find(|(other, _)| *other == name)
            .map(|(_, v)| v.to_owned())
    })
}

/// The same where something comes out.
#[track_caller]
fn import_haproxy(text: &str) -> Imported {
    fine(read_haproxy(text))
}

/// What came out, once the gateway itself finds nothing wrong in it.
#[track_caller]
fn fine(imported: Result<Imported, ImportError>) -> Imported {
    let imported = imported.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    if let Err(problems) = judge(&imported) {
        panic!("{problems:#?}\n{}", imported.toml);
    }
    imported
}

impl Imported {
    /// Asserts that each of these stands in the TOML as a line of its own, without what is said behind it.
    #[track_caller]
    fn says(&self, lines: &[&str]) {
        for line in lines {
            let is = |other: &str| other.split("  #").next().unwrap_or(other).trim() == *line;
            assert!(self.toml.lines().any(is), "{line} is not in\n{}", self.toml);
        }
    }

    /// Asserts that no line begins with any of these keys.
    #[track_caller]
    fn says_nothing_of(&self, keys: &[&str]) {
        for key in keys {
            let begin = format!("{key} = ");
            assert!(!self.toml.lines().any(|line| line.starts_with(&begin)), "{key} is in\n{}", self.toml);
        }
    }

    /// Asserts that there is a note on a line, of that effect, with a reason that has these words; and that the TOML
    /// has it as a comment.
    #[track_caller]
    fn notes_that(&self, line: u32, what: &str, effect: Effect, why: &str) {
        noted(&self.notes, line, what, effect, why);
        let note = self.notes.iter().find(|note| note.place.line == line && note.what == what).unwrap();
        assert!(self.toml.contains(&format!("\n# {note}\n")), "{note} is not in\n{}", self.toml);
    }
}

#[track_caller]
fn noted(notes: &[Note], line: u32, what: &str, effect: Effect, why: &str) {
    let fits = |note: &&Note| {
        note.place.line == line && note.what == what && note.effect == effect && note.why.contains(why)
    };
    assert!(notes.iter().any(|note| fits(&note)), "line {line} {what} ... {why} is not in {notes:#?}");
}
