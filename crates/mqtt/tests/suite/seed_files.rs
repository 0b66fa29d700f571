//! Compares the seeds that a table of fixtures makes with those in `fuzz/seeds`, and writes them. For the tests of the crates
//! that have such tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{env, fs};

/// `seeds` are contents by path below `fuzz/seeds`: target, then name. Other targets are not touched. `root` is the folder
/// of the workspace.
pub(crate) fn check(root: &Path, seeds: &BTreeMap<String, Vec<u8>>) {
    let root = root.join("fuzz/seeds");
    let targets: BTreeSet<&str> = seeds.keys().filter_map(|path| path.split('/').next()).collect();
    if env::var_os("UPDATE_FUZZ_SEEDS").is_some() {
        for target in &targets {
            let folder = root.join(target);
            if folder.exists() {
                fs::remove_dir_all(&folder).expect("our own folder");
            }
            fs::create_dir_all(&folder).expect("our own folder");
        }
        for (path, bytes) in seeds {
            fs::write(root.join(path), bytes).expect("our own file");
        }
    }
    let mut found = BTreeMap::new();
    for target in targets {
        let folder = fs::read_dir(root.join(target));
        let folder = folder.unwrap_or_else(|error| panic!("UPDATE_FUZZ_SEEDS=1 writes {target}: {error}"));
        for seed in folder {
            let seed = seed.expect("a readable folder");
            let name = format!("{target}/{}", seed.file_name().display());
            found.insert(name, fs::read(seed.path()).expect("a readable file"));
        }
    }
    let differing: Vec<_> = seeds.iter().filter(|(name, bytes)| found.get(*name) != Some(*bytes)).collect();
    assert!(differing.is_empty(), "UPDATE_FUZZ_SEEDS=1 writes these: {differing:?}");
    let unknown: Vec<_> = found.keys().filter(|name| !seeds.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "UPDATE_FUZZ_SEEDS=1 removes these: {unknown:?}");
}
