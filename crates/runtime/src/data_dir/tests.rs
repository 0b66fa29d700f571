use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

const CHILD: &str = "TIDEGATE_TEST_DATA_DIR_CHILD";

#[test]
fn the_folder_is_made_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let outer = tempfile::tempdir().unwrap();
    let path = outer.path().join("a/b");
    let held = lock(&path).unwrap();
    assert_eq!(held.path(), path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(path.join("lock")).unwrap(), format!("{}\n", std::process::id()));
}

/// The other process is this test's own program, which locks the folder and waits for the end of its input.
#[test]
fn a_second_process_is_refused_with_one_sentence_that_names_the_first() {
    if let Some(path) = std::env::var_os(CHILD) {
        let _held = lock(Path::new(&path)).unwrap();
        eprintln!("locked");
        let _ = io::stdin().read_line(&mut String::new());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "data_dir::tests::a_second_process_is_refused_with_one_sentence_that_names_the_first",
            "--nocapture",
        ])
        .env(CHILD, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(other.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");

    let error = lock(folder.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the data folder {} is in use by process {}; stop that process or set another node.data_dir",
            folder.path().display(),
            other.id()
        )
    );
    // Its end, however it comes, frees the folder.
    other.kill().unwrap();
    other.wait().unwrap();
    lock(folder.path()).unwrap();
}

#[test]
fn the_lock_ends_with_its_value_and_a_longer_old_id_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lock"), "99999999999999999999999\n").unwrap();
    let held = lock(folder.path()).unwrap();
    assert!(
        matches!(lock(folder.path()), Err(DataDirError::InUse { pid: Some(pid), .. }) if pid == std::process::id())
    );
    drop(held);
    let _again = lock(folder.path()).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("lock")).unwrap(), format!("{}\n", std::process::id()));
}

#[test]
fn an_unreadable_id_is_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let _held = lock(folder.path()).unwrap();
    fs::write(folder.path().join("lock"), "what?").unwrap();
    let error = lock(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is in use by another process;"), "{error}");
}

#[test]
fn a_file_in_the_way_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "").unwrap();
    let error = lock(&path).unwrap_err();
    assert!(matches!(&error, DataDirError::Io { path: named, .. } if *named == path));
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}
