//! The page of the keys in `docs/reference/gobgp-toml.md`, made of the schema so that both say the same.

use super::schema::{FILE, Key, Kind, Support};
use std::{fmt::Write as _, fs, path::Path};

const HEAD: &str = "# Keys of `isthmus bgp run -c FILE`\n\n\
    The file is GoBGP's, in TOML. A key that is not here is refused, with its line. A key with a remark is read and checked,\n\
    and the remark is a warning at start and in `--check-config`; \"if set\": only where it is not `false` or 0;\n\
    \"refused\": it is a fault.\n\
    This page is made of the program: `ISTHMUS_BLESS=1 cargo test -p isthmus-speaker --lib reference` writes it.\n\n\
    | key | holds | remark |\n| --- | --- | --- |\n";

fn markdown() -> String {
    let mut page = HEAD.to_owned();
    rows(&mut page, "", FILE);
    page
}

fn rows(page: &mut String, path: &str, keys: &[Key]) {
    for key in keys {
        let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        let remark = match key.support {
            Support::Full => String::new(),
            Support::Later(instead) => instead.to_owned(),
            Support::LaterIfSet(instead) => format!("if set, {instead}"),
            Support::Refused(why) => format!("refused: {why}"),
        };
        match (key.kind, key.support) {
            (Kind::Table(keys), Support::Full) => rows(page, &path, keys),
            (Kind::Tables(keys), Support::Full) => rows(page, &format!("{path}[]"), keys),
            (kind, _) => {
                let _ = writeln!(page, "| `{path}` | {} | {remark} |", holds(kind));
            }
        }
    }
}

fn holds(kind: Kind) -> String {
    let words = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match kind {
        Kind::Text | Kind::Name => "text".to_owned(),
        Kind::Loose => "text or number".to_owned(),
        Kind::Flag => "`true` or `false`".to_owned(),
        Kind::Number(least, most) => format!("{least} to {most}"),
        Kind::Seconds(least, most) => format!("seconds, {least} to {most}"),
        Kind::Word(list) => words(list),
        Kind::Address => "IP address".to_owned(),
        Kind::RouterId => "four numbers as 192.0.2.1".to_owned(),
        Kind::Prefix => "prefix".to_owned(),
        Kind::Texts => "list of texts".to_owned(),
        Kind::Addresses => "list of IP addresses".to_owned(),
        Kind::Words(list) => format!("list of {}", words(list)),
        Kind::Table(_) | Kind::Tables(_) | Kind::Anything => "anything".to_owned(),
    }
}

#[test]
fn the_page_of_the_keys_is_the_one_that_the_schema_makes() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/gobgp-toml.md");
    if std::env::var_os("ISTHMUS_BLESS").is_some() {
        fs::write(&file, markdown()).unwrap();
    }
    let page = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(page, markdown(), "run with ISTHMUS_BLESS=1 to write it");
}
