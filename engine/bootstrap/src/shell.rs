//! Text in a POSIX shell.

/// `text` as one word of a POSIX shell, whatever it holds: nothing in it is expanded. A NUL, which no shell can hold, is left out.
pub(crate) fn quote(text: &str) -> String {
    let inner = text.replace('\0', "").replace('\'', r"'\''");
    format!("'{inner}'")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::quote;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_shell_reads_back_what_was_quoted(text in any::<String>(), more in "[ -~\n']{0,60}") {
            for text in [text, more] {
                let script = format!("printf %s {}; exit 7", quote(&text));
                let said = Command::new("sh").arg("-c").arg(&script).output().unwrap();
                prop_assert_eq!(said.status.code(), Some(7));
                prop_assert_eq!(String::from_utf8(said.stdout).unwrap(), text.replace('\0', ""));
            }
        }
    }
}
