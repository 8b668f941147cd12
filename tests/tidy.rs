//! Rules of style that a reviewer should not have to enforce.

use std::path::{Path, PathBuf};

/// What each module may import of ours.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("projection", &["domain"]),
    ("clock", &[]),
    ("crypto", &[]),
    ("sealing", &[]),
    ("config", &["sealing"]),
    ("telemetry", &["config"]),
    ("embedded_postgres", &[]),
    ("stripe", &["domain", "config", "crypto"]),
    ("store", &["domain", "projection", "crypto"]),
    ("app", &["domain", "projection", "store", "stripe", "clock", "sealing"]),
    ("http", &["app", "domain", "stripe", "store"]),
];

/// Longer files are two things; what they are is the question to ask.
const MAX_LINES: usize = 520;

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a readable file")
}

/// The module of `src` that a file belongs to.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("a file of src");
    let first = inside.components().next().expect("a file has a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn dependencies_point_inwards() {
    let mut wrong = Vec::new();
    for path in sources("src") {
        let module = module_of(&path);
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else { continue };
        let text = read(&path);
        for (number, line) in text.lines().enumerate() {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                let imported: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if imported != module && !allowed.contains(&imported.as_str()) {
                    wrong.push(format!("{}:{} imports {imported}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The simulator is a Stripe to try flows on, and no part of the service.
#[test]
fn only_the_command_line_knows_the_simulator() {
    for path in sources("src").into_iter().filter(|path| module_of(path) != "cli") {
        assert!(!read(&path).contains("subledger_simulator"), "{}", path.display());
    }
    for path in sources("simulator/src") {
        assert!(!read(&path).contains("subledger::"), "{}", path.display());
    }
    let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("simulator/src/world");
    for path in sources("simulator/src").into_iter().filter(|path| path.starts_with(&world)) {
        for impure in ["Utc::now", "SystemTime", "Instant::now", "rand::", "async fn", "tokio"] {
            assert!(!read(&path).contains(impure), "{} contains {impure}", path.display());
        }
    }
}

#[test]
fn the_core_is_pure() {
    const IMPURE: &[&str] =
        &["Utc::now", "SystemTime", "Instant::now", "rand::", "new_v4", "now_v7", "tracing::", "async fn", "tokio"];
    let pure = sources("src").into_iter().filter(|path| ["domain", "projection"].contains(&module_of(path).as_str()));
    for path in pure {
        let text = read(&path);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for impure in IMPURE {
            assert!(!code.contains(impure), "{} contains {impure}", path.display());
        }
    }
}

#[test]
fn sql_stands_in_the_store_and_says_who_runs_it() {
    const VERBS: &[&str] = &["\"select ", "\"insert into", "\"update ", "\"delete from", "\"with "];
    for path in sources("src") {
        let module = module_of(&path);
        // The benchmark's yardsticks and the embedded server's first steps are not the service's queries.
        if ["cli", "embedded_postgres"].contains(&module.as_str()) {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            for verb in VERBS {
                assert!(!line.contains(verb), "{}:{}: a statement without its /* name */", path.display(), number + 1);
            }
            let is_statement = line.contains("\"/* ") && line.contains(" */ ");
            assert!(!is_statement || module == "store", "{}:{}: SQL outside the store", path.display(), number + 1);
        }
    }
}

#[test]
fn files_are_one_thing() {
    let long: Vec<String> = [sources("src"), sources("tests"), sources("simulator/src"), sources("simulator/tests")]
        .concat()
        .iter()
        .map(|path| (path, read(path).lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn no_unsafe_code() {
    for file in ["src/lib.rs", "src/main.rs", "simulator/src/lib.rs"] {
        let text = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
        assert!(text.contains("#![forbid(unsafe_code)]"), "{file}");
    }
}

/// `docs/coverage.md` names tests as `file::function`.
#[test]
fn every_test_that_the_coverage_names_exists() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = read(&folder.join("docs/coverage.md"));
    let is_name = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let named = table.split('`').filter_map(|text| text.split_once("::"));
    let named: Vec<(&str, &str)> = named.filter(|(file, test)| is_name(file) && is_name(test)).collect();
    assert!(named.len() > 50, "only {} tests are named", named.len());
    let tests = sources("tests");
    for (file, test) in named {
        let has_it = tests.iter().any(|path| {
            let stem = path.file_stem().is_some_and(|stem| stem == file);
            let within = path.parent().is_some_and(|parent| parent.ends_with(format!("tests/{file}")));
            (stem || within) && read(path).contains(&format!("fn {test}("))
        });
        assert!(has_it, "docs/coverage.md names {file}::{test}, which is no test");
    }
    let empty = table.lines().find(|line| line.starts_with('|') && line.split('|').any(|cell| cell == "  "));
    assert_eq!(empty, None, "a row of docs/coverage.md has an empty cell");
}
