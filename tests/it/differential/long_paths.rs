//! Paths that are nearly as long as the system allows, and that no index could compress.

use crate::support::differential::Differential;
use crate::support::tree;

/// A relative path of so many bytes, in components of up to 254.
fn path(length: usize, letter: &mut impl FnMut() -> char) -> String {
    let mut path = String::new();
    while path.len() < length {
        let left = (length - path.len()).min(254);
        path.extend(std::iter::repeat_with(&mut *letter).take(left));
        path.push('/');
    }
    path.pop();
    path
}

fn letters() -> impl FnMut() -> char {
    let mut state = 7_u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789% "[(state >> 26) as usize])
    }
}

/// (The C program's tables on PostgreSQL have an index on names, which takes no more than about 2,700 bytes.)
#[test]
fn paths_of_4000_bytes() {
    Differential::of(["alpha", "beta"]).without_c_on_postgres().tell(|story| {
        let place = |name: &str| story[name].tree_dir().as_os_str().len();
        // A temporary file's name is longer than the file's own.
        let longest = 4095 - place("alpha").max(place("beta")) - 1 - 8;
        let mut letter = letters();
        let mut paths = [longest, 2_700, 2_712, 1_500].map(|length| path(length, &mut letter)).to_vec();
        // Two names that differ in their last byte only.
        paths.push(format!("{}#", &paths[0][..longest - 1]));
        for content in ["x", "changed"] {
            let all = paths.iter().zip(1..);
            let tree = all.fold(tree! {}, |tree, (path, number)| tree.with(path, content.repeat(number)));
            story["alpha"].put(&tree);
            story.run("alpha", ["-xv"]);
            story.expect_agreement();
        }
        story.run("beta", ["-xv"]);
        story.run("alpha", ["-m", &format!("{{alpha.tree}}/{}", paths[4])]);
        story["alpha"].remove(&paths[0]);
        story["alpha"].remove(&paths[1][..254]);
        story.run("alpha", ["-xv"]);
        story.run("alpha", ["-L"]);
        story.expect_agreement();
    });
}
