//! The completions, asked as a shell asks them: what is offered where somebody presses the tab key.

use std::path::Path;
use std::process::Command;

/// What bash offers for the last of `words`.
fn offered(completions: &Path, words: &[&str]) -> Vec<String> {
    // As bash does it: the words so far, the one under the cursor, and the function that `complete` has named.
    let script = r#"
        set -u
        source "$1"; shift
        function_of=$(complete -p "$1") || exit 3
        function_of=${function_of##*-F }; function_of=${function_of%% *}
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
        COMP_TYPE=9 COMP_KEY=9 COMPREPLY=()
        before=; [ "$COMP_CWORD" -eq 0 ] || before=${COMP_WORDS[COMP_CWORD - 1]}
        "$function_of" "$1" "${COMP_WORDS[COMP_CWORD]}" "$before"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let file = completions.join(format!("{}.bash", words[0]));
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-c", script, "bash"]).arg(&file).args(words);
    let output = bash.output().expect("bash");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn bash_offers_the_verbs_and_their_options_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new(env!("CARGO_BIN_EXE_prestage-manual")).arg(folder.path()).status();
    assert!(made.expect("the generator").success());
    let completions = folder.path().join("completions");
    for (words, expected) in [
        (&["prestage", "fe"][..], &["fetch"][..]),
        (&["prestage", "re"], &["recover", "release", "report"]),
        (&["prestage", "fetch", "--n"], &["--now"]),
        (&["prestage", "status", "--"], &["--check", "--json"]),
        (&["prestage", "fetch", "--check"], &[]),
        (&["prestage", "config", "s"], &["show"]),
        (&["prestage-build", "pub"], &["publish"]),
        (&["prestage-build", "publish", "--timestamp-k"], &["--timestamp-key"]),
        (&["prestage-fleet", "ser"], &["serve"]),
    ] {
        let offered = offered(&completions, words);
        for word in expected {
            assert!(offered.iter().any(|o| o == word), "{words:?}: {word} is not among {offered:?}");
        }
        let typed = words[words.len() - 1];
        let strange: Vec<_> = offered.iter().filter(|o| !o.is_empty() && !o.starts_with(typed)).collect();
        assert!(strange.is_empty(), "{words:?}: {strange:?}");
        assert!(!expected.is_empty() || offered.iter().all(String::is_empty), "{words:?}: {offered:?}");
    }
    // Every verb that the help names is offered.
    let all = offered(&completions, &["prestage", ""]);
    for verb in agent::help::VERBS {
        assert!(all.iter().any(|o| o == verb.name), "{} is not among {all:?}", verb.name);
    }
}
