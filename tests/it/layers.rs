//! The structure that ARCHITECTURE.md promises: layers, and one address for each dependency.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Modules by layer, lowest first: the table of ARCHITECTURE.md.
static LAYERS: LazyLock<Vec<Vec<&str>>> = LazyLock::new(|| layers(include_str!("../../ARCHITECTURE.md")));

/// Crates that only some modules may name.
const ADDRESSES: &[(&str, &[&str])] = &[
    ("age", &["sealing"]),
    ("rusqlite", &["ledger"]),
    ("governor", &["engine/rate/mod.rs"]),
    ("hdrhistogram", &["metrics"]),
    ("flate2", &["metrics"]),
    ("rumqttc", &["transport", "emulator"]),
    ("aws_config", &["control_plane"]),
    ("aws_sdk_iot", &["control_plane"]),
    ("aws_sdk_servicequotas", &["control_plane"]),
    ("aws_sdk_sts", &["control_plane"]),
    ("aws_types", &["control_plane"]),
    ("aws_smithy_http_client", &["control_plane"]),
    ("aws_sigv4", &["sigv4"]),
    ("hyper", &["exposition"]),
    ("prometheus_client", &["exposition"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("mimalloc", &["main.rs"]),
    ("rustix", &["cli", "emulator/hook.rs", "export/files.rs", "ledger/place.rs"]),
];

/// What only the command line may do.
const ONLY_CLI: [&str; 6] =
    ["println!", "eprintln!", "print!(", "std::env::", "process::exit", "tokio::signal"];

#[test]
fn a_module_imports_only_from_lower_layers() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let Some(layer) = layer_of(module_of(&file)) else { continue };
        for imported in imports(&code) {
            match layer_of(imported) {
                Some(of) if of > layer || (of == layer && imported != module_of(&file)) && layer > 0 => {
                    wrong.push(format!("{} (L{layer}) imports {imported} (L{of})", file.display()));
                }
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A calibration writes the emulator's scenario as text: were it to share code with the emulator, both could agree on a mistake.
#[test]
fn a_calibration_imports_nothing_of_the_emulator() {
    let is_calibration = |file: &Path| file.starts_with("calibration") || file.starts_with("cli/calibrate");
    let sources: Vec<_> = sources().into_iter().filter(|(file, _)| is_calibration(file)).collect();
    assert!(sources.len() > 5, "the sources were found");
    for (file, code) in sources {
        assert!(!imports(&code).contains(&"emulator"), "{} imports the emulator", file.display());
        assert!(!code.contains("emulator::"), "{} names a part of the emulator", file.display());
    }
}

#[test]
fn the_table_names_every_module_once() {
    let library = include_str!("../../src/lib.rs");
    let mut declared: Vec<_> = library.lines().filter_map(|line| line.strip_prefix("pub mod ")).collect();
    declared.iter_mut().for_each(|module| *module = module.trim_end_matches(';'));
    declared.push("main");
    let mut listed = LAYERS.concat();
    declared.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, declared, "ARCHITECTURE.md lists what src/lib.rs declares");
}

/// A chain of `super::` that reaches the root would be an import that the other test does not see.
#[test]
fn supers_stay_in_their_module() {
    for (file, code) in sources() {
        let is_folder = file.file_stem().is_some_and(|stem| stem == "mod");
        let depth = file.components().count() - usize::from(is_folder);
        // In a file at the root, `super::` may stand in an inline module.
        assert!(
            depth < 2 || !code.contains(&"super::".repeat(depth)),
            "{} reaches the root by super::",
            file.display()
        );
    }
}

/// Inside a module that has many sub-modules, too, a reader can begin at one and go down: there is no way back up.
#[test]
fn the_sub_modules_of_a_module_import_each_other_in_no_circle() {
    for module in ["cli", "ledger", "emulator"] {
        let imports = imports_among_sub_modules(module);
        assert!(imports.len() > 10, "the sub-modules of {module} were found");
        if let Some(circle) = circle_in(&imports) {
            panic!("{module} has an import circle: {}", circle.join(" -> "));
        }
    }
}

/// Which of a module's direct sub-modules import which.
fn imports_among_sub_modules(module: &str) -> BTreeMap<String, BTreeSet<String>> {
    let sources: Vec<_> = sources().into_iter().filter(|(file, _)| module_of(file) == module).collect();
    let sub_module = |file: &Path| {
        let name = file.components().nth(1).unwrap().as_os_str().to_str().unwrap();
        name.strip_suffix(".rs").unwrap_or(name).to_owned()
    };
    let mut found: BTreeMap<_, BTreeSet<_>> =
        sources.iter().map(|(file, _)| (sub_module(file), BTreeSet::new())).collect();
    let root = found.remove("mod").map(|_| format!("{module}/mod.rs")).unwrap();
    let root = &sources.iter().find(|(file, _)| *file == Path::new(&root)).unwrap().1;
    let homes = homes_of_names(root, &found);
    for (file, code) in &sources {
        let importer = sub_module(file);
        let is_folder = file.file_stem().is_some_and(|stem| stem == "mod");
        let depth = file.components().count() - 1 - usize::from(is_folder);
        if importer == "mod" {
            continue;
        }
        let ways = [format!("crate::{module}::"), "super::".repeat(depth)];
        for name in ways.iter().flat_map(|way| names_after(code, way)) {
            let home = if found.contains_key(name) { Some(name) } else { homes.get(name).copied() };
            if let Some(home) = home.filter(|home| *home != importer) {
                found.get_mut(&importer).unwrap().insert(home.to_owned());
            }
        }
    }
    found
}

/// The sub-module that each name comes from which a module brings into its own scope.
fn homes_of_names<'a, V>(root: &'a str, sub_modules: &BTreeMap<String, V>) -> BTreeMap<&'a str, &'a str> {
    let mut homes = BTreeMap::new();
    for used in root.split("use ").skip(1) {
        let used = used.strip_prefix("self::").unwrap_or(used);
        let home = first_word(used);
        if sub_modules.contains_key(home)
            && let Some(names) = used[home.len()..].strip_prefix("::")
        {
            homes.extend(leading_names(names).into_iter().map(|name| (name, home)));
        }
    }
    homes
}

/// The names that follow `way` wherever it begins a path.
fn names_after<'a>(code: &'a str, way: &str) -> Vec<&'a str> {
    let begins =
        |at: usize| !code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let places = code.match_indices(way).filter(|(at, _)| begins(*at));
    places.flat_map(|(at, way)| leading_names(&code[at + way.len()..])).collect()
}

/// The first name of a path, or of each path in a group.
fn leading_names(paths: &str) -> Vec<&str> {
    let Some(group) = paths.strip_prefix('{') else { return vec![first_word(paths)] };
    let (mut names, mut depth) = (vec![first_word(group)], 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(first_word(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

/// Some circle, if there is one: what does not import anything that is left is taken away until nothing changes.
fn circle_in(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut left: BTreeSet<_> = imports.keys().collect();
    loop {
        let before = left.len();
        let in_circle = left.clone();
        left.retain(|module| imports[*module].iter().any(|imported| in_circle.contains(imported)));
        if left.len() == before {
            break;
        }
    }
    let mut way = vec![(*left.first()?).clone()];
    loop {
        let next = imports[way.last()?].iter().find(|imported| left.contains(imported))?.clone();
        let closes = way.iter().position(|module| *module == next);
        way.push(next);
        if let Some(first) = closes {
            return Some(way.split_off(first));
        }
    }
}

/// The test above would find one.
#[test]
fn a_circle_is_found_and_a_chain_is_none() {
    let imports = |edges: &[(&str, &[&str])]| -> BTreeMap<String, BTreeSet<String>> {
        let owned = |names: &[&str]| names.iter().map(|name| String::from(*name)).collect();
        edges.iter().map(|(module, imported)| (String::from(*module), owned(imported))).collect()
    };
    let chain: [(&str, &[&str]); 4] = [("a", &["b", "c"]), ("b", &["c"]), ("c", &[]), ("d", &["a"])];
    assert_eq!(circle_in(&imports(&chain)), None);
    let circle: [(&str, &[&str]); 4] = [("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &["a"])];
    assert_eq!(circle_in(&imports(&circle)).unwrap().join(" "), "b c b");
    assert_eq!(leading_names("{a::{b, c}, d, self as e}"), ["a", "d", "self"]);
    assert_eq!(names_after("use super::x::Y; super::super::z", "super::"), ["x", "super"]);
}

#[test]
fn a_dependency_has_one_address() {
    for (file, code) in sources() {
        let place = file.to_string_lossy().into_owned();
        for (dependency, addresses) in ADDRESSES {
            let at_home = addresses.iter().any(|address| place.starts_with(address));
            let names_it = names(&code, dependency);
            assert!(at_home || !names_it, "{place} names {dependency}, whose address is {addresses:?}");
        }
    }
}

/// Whether code has `dependency::`, and not only as the end of a longer name.
fn names(code: &str, dependency: &str) -> bool {
    let is_part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(&format!("{dependency}::")).any(|(at, _)| !code[..at].ends_with(is_part_of_name))
}

#[test]
fn only_the_command_line_prints_reads_the_environment_or_exits() {
    for (file, code) in sources() {
        if matches!(module_of(&file), "cli" | "main") {
            continue;
        }
        for word in ONLY_CLI {
            assert!(!code.contains(word), "{} has {word}", file.display());
        }
    }
}

/// All sources, as paths below `src/` and their code without tests and comments.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_owned();
                let is_test = name.with_extension("").components().any(|part| part.as_os_str() == "tests");
                if !is_test {
                    sources.push((name, code_of(&fs::read_to_string(&path).unwrap())));
                }
            }
        }
    }
    assert!(sources.len() > 20, "the sources were found");
    sources
}

fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

fn module_of(file: &Path) -> &str {
    let first = file.components().next().unwrap().as_os_str().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The modules of each row `| L0 vocabulary | `certificate`, … | … |`.
fn layers(document: &str) -> Vec<Vec<&str>> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| L"));
    rows.enumerate()
        .map(|(number, row)| {
            assert!(row.starts_with(&number.to_string()), "the layers are listed from the lowest up: L{row}");
            let modules = row.split('|').nth(1).expect("a row has three columns");
            modules.split('`').skip(1).step_by(2).map(|module| module.trim_end_matches(".rs")).collect()
        })
        .collect()
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The names after `crate::`, whatever follows.
fn imports(code: &str) -> Vec<&str> {
    code.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(group) => {
                group.split('}').next().unwrap_or("").split(',').map(first_word).collect::<Vec<_>>()
            }
            None => vec![first_word(rest)],
        })
        .collect()
}

fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// The table "Where is the thing that …" leads to files that are there. In a row, a path may be relative to one before it.
#[test]
fn every_path_of_the_map_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let table = map.split("## Where is the thing that").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut count = 0;
    for row in table.lines() {
        let mut bases = vec![root.join("src"), root.to_path_buf()];
        let is_path = |word: &&str| word.contains('/') && !word.contains(['{', ' ', '*', ':']);
        for path in row.split('`').skip(1).step_by(2).filter(is_path) {
            let found = bases.iter().map(|base| base.join(path)).find(|place| place.exists());
            let found = found.unwrap_or_else(|| panic!("{path} is not there: {row}"));
            bases.push(if found.is_dir() { found } else { found.parent().unwrap().to_path_buf() });
            count += 1;
        }
    }
    assert!(count > 40, "only {count} paths were found");
}
