//! What shells and `man` are told of the command line.

use std::process::Command;

use crate::harness::process::{run, run_with, text};
use crate::harness::server::tidegate;

/// What a command prints when all is well.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = run(&mut tidegate(arguments));
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn every_shell_gets_a_script_that_knows_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = printed(&["completion", shell]);
        for word in
            ["simulate", "import", "haproxy", "--will-topic", "--strict", "subscriptions", "--retained-only"]
        {
            // fish and elvish write options without their dashes
            assert!(script.contains(word.trim_start_matches('-')), "{shell} does not know {word}");
        }
    }
    let output = run(&mut tidegate(&["completion", "tcsh"]));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn bash_completes_with_the_script() {
    let script = printed(&["completion", "bash"]);
    let ask = "COMP_WORDS=(tidegate import ng); COMP_CWORD=2; _tidegate tidegate ng import; echo \"${COMPREPLY[@]}\"";
    let output = run_with(Command::new("bash").arg("--norc"), format!("{script}\n{ask}\n").as_bytes());
    assert_eq!(text(&output.stdout), "nginx\n", "{}", text(&output.stderr));
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let page = printed(&["man"]);
    assert!(page.contains(".TH tidegate 1") && page.contains("tidegate\\-import(1)"), "{page}");
    let page = printed(&["man", "ctl", "clients"]);
    assert!(page.contains("tidegate\\-ctl\\-clients \\-"), "{page}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path().join("man1");
    printed(&["man", "--output", at.to_str().expect("text")]);
    for name in
        ["tidegate", "tidegate-run", "tidegate-import-haproxy", "tidegate-ctl-clients-list", "tidegate-pub"]
    {
        let page = std::fs::read_to_string(at.join(format!("{name}.1"))).expect(name);
        assert!(page.contains(".SH SYNOPSIS") || page.contains(".SH NAME"), "{name}: {page}");
    }
    let output = run(&mut tidegate(&["man", "ctl", "bananas"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no command bananas; "), "{}", text(&output.stderr));
}

#[test]
fn a_reader_that_is_gone_makes_no_noise() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/fleet.toml");
    for arguments in [
        &["simulate", "--check", file][..],
        &["check", "--config", "/nowhere.toml"],
        &["bench", "conn", "-h", "127.0.0.1", "-p", "1", "-c", "1", "-d", "0s", "--json"],
        &["man"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = tidegate(arguments);
        let child = command.stdout(writer).stderr(std::process::Stdio::piped()).spawn().expect("a process");
        let output = child.wait_with_output().expect("an end");
        let said = text(&output.stderr);
        assert!(!said.contains("panicked") && output.status.code() < Some(2), "{arguments:?}: {said}");
    }
}

#[test]
fn pub_and_sub_tell_their_version_as_mosquittos_tools_do() {
    for tool in ["pub", "sub"] {
        let version = printed(&[tool, "--version"]);
        assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    }
}
