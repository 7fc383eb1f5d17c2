//! Reads the commands from a page: blocks behind a comment `<!-- run: HOST ... -->`, with `; until: WORD|WORD` where the page
//! waits for something to be shown, `; without: WORD` for what must be gone by then, and `; alarm: WORDS` for the only alarm that
//! must be there then. `; version: VERSION` stands where the page has the program replaced: with one of this version.

/// A block of commands.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Line of the comment in the page.
    pub line: usize,
    /// Where it is run: once on each.
    pub hosts: Vec<String>,
    /// What its output must show at last; `None`: it is run once and must succeed.
    pub until: Option<Vec<String>>,
    /// What it must not show then.
    pub without: Option<String>,
    /// The words of the alarm that it must show then, and no other.
    pub alarm: Option<String>,
    /// The version of the node's program from here on.
    pub version: Option<String>,
    /// The commands.
    pub commands: String,
}

/// All blocks of a page that are to be run.
pub fn blocks(page: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(what) = line.trim().strip_prefix("<!-- run:").and_then(|rest| rest.strip_suffix("-->"))
        else {
            continue;
        };
        let mut parts = what.split(';').map(str::trim);
        let hosts = parts.next().unwrap_or_default();
        let (mut until, mut without, mut alarm, mut version) = (None, None, None, None);
        for part in parts {
            match part.split_once(':') {
                Some(("until", words)) => until = Some(words.trim().split('|').map(str::to_owned).collect()),
                Some(("without", word)) => without = Some(word.trim().to_owned()),
                Some(("alarm", words)) => alarm = Some(words.trim().to_owned()),
                Some(("version", of)) => version = Some(of.trim().to_owned()),
                _ => return Err(format!("line {}: {part:?} means nothing", at + 1)),
            }
        }
        if lines.next().is_none_or(|(_, fence)| fence.trim() != "```") {
            return Err(format!("line {}: no block follows", at + 1));
        }
        let commands: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
        blocks.push(Block {
            line: at + 1,
            hosts: hosts.split_whitespace().map(str::to_owned).collect(),
            until,
            without,
            alarm,
            version,
            commands: commands.join("\n"),
        });
    }
    Ok(blocks)
}

#[test]
fn blocks_are_read_with_hosts_and_what_they_wait_for() {
    let page = "x\n<!-- run: a b; until: Normal|Failed Over; without: ALARM -->\n```\none\ntwo\n```\n```\nnot this\n```\n";
    let block = Block {
        line: 2,
        hosts: vec!["a".into(), "b".into()],
        until: Some(vec!["Normal".into(), "Failed Over".into()]),
        without: Some("ALARM".into()),
        alarm: None,
        version: None,
        commands: "one\ntwo".into(),
    };
    assert_eq!(blocks(page), Ok(vec![block]));
    let page = "<!-- run: a; version: 99.0.0 -->\n```\none\n```\n<!-- run: a; until: `x y`; alarm: z z -->\n```\ntwo\n```\n";
    let both = blocks(page).unwrap();
    assert_eq!((both[0].version.as_deref(), both[0].until.as_ref()), (Some("99.0.0"), None));
    assert_eq!(both[1].alarm.as_deref(), Some("z z"));
    assert_eq!(both[1].until, Some(vec!["`x y`".to_owned()]));
    assert!(blocks("<!-- run: a -->\ntext").is_err());
    assert!(blocks("<!-- run: a; maybe -->\n```\n```").is_err());
}
