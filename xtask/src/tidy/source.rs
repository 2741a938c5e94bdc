//! Rules about Rust sources.

use super::{Tree, scan};

/// Lines that a file may have.
const MOST: usize = 800;
/// Lines from which a file is named as long.
pub(super) const LONG: usize = 500;

/// Whether a file is a test or a bench as a whole.
fn is_test(name: &str) -> bool {
    let part = |p: &str| name.contains(&format!("/{p}/"));
    part("tests")
        || part("benches")
        || part("examples")
        || name.ends_with("/tests.rs")
        || name.ends_with("_tests.rs")
}

/// Sources that ship, without their tests and comments.
fn shipped(tree: &Tree) -> impl Iterator<Item = (&str, String)> {
    tree.named(|n| n.ends_with(".rs") && !is_test(n)).map(|(n, t)| (n, scan::shipped(t)))
}

/// Lines of each shipped source file, without the blank tail that tests leave.
fn lines(tree: &Tree) -> impl Iterator<Item = (&str, usize)> {
    tree.named(|n| n.ends_with(".rs") && !is_test(n)).map(|(name, text)| {
        // Comments count as lines, tests do not: a line counts unless it lies in a blanked test.
        let code = scan::code(text);
        let shipped = scan::shipped(text);
        let gone = code.lines().zip(shipped.lines()).filter(|(a, b)| a != b).count();
        (name, text.lines().count() - gone)
    })
}

/// Files over the limit.
pub(super) fn size(tree: &Tree) -> Vec<String> {
    lines(tree).filter(|(_, n)| *n > MOST).map(|(f, n)| format!("{f}: {n} lines")).collect()
}

/// Files that are long, though allowed.
pub(super) fn long(tree: &Tree) -> Vec<(String, usize)> {
    lines(tree).filter(|(_, n)| *n > LONG).map(|(f, n)| (f.to_owned(), n)).collect()
}

/// Whether `line` holds `word` as a whole word.
fn holds(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == word)
}

/// `unsafe` outside the kernels, tests included.
pub(super) fn unsafe_code(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    for (name, text) in tree.named(|n| n.ends_with(".rs") && !n.starts_with("crates/kernels/")) {
        for (i, line) in scan::code(text).lines().enumerate().filter(|(_, l)| holds(l, "unsafe")) {
            out.push(format!("{name}:{}: {}", i + 1, line.trim()));
        }
    }
    out
}

/// Panics by convenience outside tests.
pub(super) fn unwraps(tree: &Tree) -> Vec<String> {
    let words = [".unwrap()", ".expect(", "todo!", "unimplemented!"];
    let mut out = Vec::new();
    for (name, text) in shipped(tree) {
        // `.expect("…")` panics, a method `expect` with another argument is somebody's parser.
        for (i, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|w| line.contains(**w)) {
                out.push(format!("{name}:{}: `{word}`; return an ecr_core::Error instead", i + 1));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_long_a_file_is_found_and_its_tests_do_not_count() {
        let long = "fn a() {}\n".repeat(801);
        let tested = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn b() {}\n".repeat(900));
        let tree = Tree::of(&[
            ("crates/x/src/a.rs", &long),
            ("crates/x/src/b.rs", &tested),
            ("crates/x/tests/c.rs", &long),
        ]);
        assert_eq!(size(&tree), ["crates/x/src/a.rs: 801 lines"]);
        let tree = Tree::of(&[("crates/x/src/a.rs", &"// why\n".repeat(501))]);
        assert!(size(&tree).is_empty());
        assert_eq!(super::long(&tree), [("crates/x/src/a.rs".to_owned(), 501)]);
    }

    #[test]
    fn unsafe_outside_the_kernels_is_found() {
        let text = "// unsafe in words is fine\n#![deny(unsafe_code)]\nfn f() { unsafe { g() } }\n";
        let tree = Tree::of(&[("crates/kernels/src/a.rs", text), ("crates/data/src/a.rs", text)]);
        assert_eq!(unsafe_code(&tree), ["crates/data/src/a.rs:3: fn f() { unsafe { g() } }"]);
    }

    #[test]
    fn unwraps_outside_tests_are_found() {
        let text = "fn f() { a.unwrap(); b.unwrap_or(1); }\nfn g() { c.expect(\"d\") }\nfn h() { todo!() }\n\
                    #[cfg(test)]\nmod tests { fn t() { a.unwrap() } }\n";
        let tree = Tree::of(&[("crates/x/src/a.rs", text), ("crates/x/tests/b.rs", text)]);
        let found = unwraps(&tree);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("crates/x/src/a.rs:1:"));
    }
}
