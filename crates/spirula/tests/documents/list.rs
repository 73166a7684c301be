//! Lists in Markdown.

const WIDTH: usize = 118;

/// `- head: `a`, `b`` in lines of a bounded width, below an item of `depth` levels; nothing if there are
/// no names.
pub(crate) fn item(depth: usize, head: &str, names: impl IntoIterator<Item = String>) -> String {
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    let indent = "  ".repeat(depth);
    let (mut out, mut line) = (String::new(), format!("{indent}- {head}:"));
    let count = names.len();
    for (i, name) in names.into_iter().enumerate() {
        let word = format!("`{name}`{}", if i + 1 < count { "," } else { "" });
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            out += &line;
            out.push('\n');
            line = format!("{indent} ");
        }
        line.push(' ');
        line += &word;
    }
    if count == 0 { String::new() } else { out + &line + "\n" }
}

#[test]
fn lines_are_bounded() {
    let names = || (0..100).map(|n| format!("name{n:03}"));
    let text = item(1, "many", names());
    assert!(text.starts_with("  - many: `name000`, `name001`,"), "{text}");
    assert!(text.ends_with("`name099`\n"), "{text}");
    assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
    assert_eq!(item(0, "none", []), "");
}
