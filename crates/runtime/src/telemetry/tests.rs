use std::path::Path;
use std::process::{Command, Output};

use super::*;
use crate::config::Document;

fn read(text: &str) -> Result<TelemetryConfig, String> {
    let document = Document::parse(Path::new("t.toml"), text).unwrap();
    let config = document.read(|root| root.table("log", TelemetryConfig::read).unwrap_or_default());
    config.map_err(|problems| problems.to_string())
}

#[test]
fn the_section_has_defaults() {
    assert_eq!(read("").unwrap(), TelemetryConfig { format: Format::Text, filter: "info".to_owned() });
    assert_eq!(read("[log]").unwrap(), TelemetryConfig::default());
    let config = read("[log]\nformat = \"json\"\nlevel = \"warn,gateway::relay=debug,hyper=off\"").unwrap();
    assert_eq!(config.format, Format::Json);
    assert!(parse(&config.filter).is_ok());
}

#[test]
fn a_misspelled_level_is_a_problem_and_not_a_silent_log() {
    for level in
        ["inof", "", "info,", "INFO2", "gateway=loud", "=info", "info gateway", "[span]=info", "a=b=info"]
    {
        let problem = read(&format!("[log]\nlevel = \"{level}\"")).unwrap_err();
        assert_eq!(problem, format!("t.toml:2: log.level: \"{level}\": {ALLOWED}"));
        assert!(parse(level).is_err());
    }
}

/// A process of its own, because a process has one log. Its standard error is what is read.
fn child(test: &str, format: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("telemetry::tests::{test}"), "--nocapture"])
        .env("TIDEGATE_TEST_LOG_FORMAT", format)
        .output()
        .unwrap()
}

#[test]
fn lines_go_to_standard_error_and_a_reload_changes_the_level() {
    if let Some(format) = std::env::var_os("TIDEGATE_TEST_LOG_FORMAT") {
        let format = if format == "json" { Format::Json } else { Format::Text };
        let config = TelemetryConfig { format, filter: "info".to_owned() };
        let telemetry = init(&config).unwrap();
        assert!(matches!(init(&config), Err(TelemetryError::Twice)));
        tracing::info!(answer = 42, "first");
        tracing::debug!("second");
        assert!(telemetry.set_filter("inof").is_err());
        telemetry.set_filter("debug").unwrap();
        tracing::debug!("third");
        return;
    }
    let name = "lines_go_to_standard_error_and_a_reload_changes_the_level";
    let text = child(name, "text");
    assert!(text.status.success(), "{text:?}");
    let text = String::from_utf8(text.stderr).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains(" INFO ") && lines[0].ends_with("first answer=42"), "{text}");
    assert!(lines[1].contains("DEBUG") && lines[1].ends_with("third"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours but on a terminal");

    let json = child(name, "json");
    assert!(json.status.success(), "{json:?}");
    let json = String::from_utf8(json.stderr).unwrap();
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{json}");
    assert_eq!((&lines[0]["message"], &lines[0]["answer"]), (&"first".into(), &42.into()));
}
