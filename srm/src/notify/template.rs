//! Templates of what receivers read: text with placeholders in braces.

use crate::events::Record;

use super::text::{clean, timestamp};

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Date,
    Time,
    Id,
    Source,
    Severity,
    Event,
    Row,
    Cause,
    AskedBy,
    Text,
    Node,
    Domain,
}

/// All that may be written.
const ALL: [(&str, Placeholder); 12] = [
    ("date", Placeholder::Date),
    ("time", Placeholder::Time),
    ("id", Placeholder::Id),
    ("source", Placeholder::Source),
    ("severity", Placeholder::Severity),
    ("event", Placeholder::Event),
    ("row", Placeholder::Row),
    ("cause", Placeholder::Cause),
    ("asked_by", Placeholder::AskedBy),
    ("text", Placeholder::Text),
    ("node", Placeholder::Node),
    ("domain", Placeholder::Domain),
];

/// What stands for a cause, a row or an operator that there is not.
const NOTHING: &str = "-";

/// Text with placeholders, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Filled(Placeholder),
}

/// Who sends the notification: what `{node}` and `{domain}` stand for.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    /// Name of this node.
    pub node: String,
    /// First domain that it serves.
    pub domain: String,
}

impl Template {
    /// Reads a template. `{{` and `}}` are braces. The error says what is wrong with it, and what may be written.
    pub fn parse(text: &str) -> Result<Template, String> {
        let refused = |problem: &str| Err(format!("{problem}; {}", Self::allowed()));
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let (name, after) = match after.split_once('}') {
                Some(found) if brace == "{" => found,
                None if brace == "{" => return refused("a `{` has no `}` after it"),
                _ => return refused("a `}` has no `{` before it"),
            };
            let Some((_, placeholder)) = ALL.iter().find(|(known, _)| *known == name) else {
                return refused(&format!("{{{name}}} is no placeholder"));
            };
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            pieces.push(Piece::Filled(*placeholder));
            rest = after;
        }
        literal.push_str(rest);
        pieces.push(Piece::Literal(literal));
        Ok(Template(pieces))
    }

    /// What may be written, for the operator.
    fn allowed() -> String {
        let names: Vec<String> = ALL.iter().map(|(name, _)| format!("{{{name}}}")).collect();
        format!("write {} or text, where {{{{ and }}}} stand for braces", names.join(", "))
    }

    /// The text for this event. What comes from the event stands on one line, whatever is in it.
    pub(super) fn fill(&self, record: &Record, sender: &Sender) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Filled(placeholder) => clean(&value(*placeholder, record, sender)),
        };
        self.0.iter().map(piece).collect()
    }
}

fn value(placeholder: Placeholder, record: &Record, sender: &Sender) -> String {
    match placeholder {
        Placeholder::Date => timestamp(record.at_ms)[..10].to_owned(),
        Placeholder::Time => format!("{}Z", &timestamp(record.at_ms)[11..19]),
        Placeholder::Id => record.id(),
        Placeholder::Source => record.node.clone(),
        Placeholder::Severity => record.severity.to_string(),
        Placeholder::Event => record.event.clone(),
        Placeholder::Row => record.row.map_or_else(|| NOTHING.to_owned(), |row| row.to_string()),
        Placeholder::Cause if record.cause.is_empty() => NOTHING.to_owned(),
        Placeholder::Cause => record.cause.clone(),
        Placeholder::AskedBy if record.asked_by.is_empty() => NOTHING.to_owned(),
        Placeholder::AskedBy => record.asked_by.clone(),
        Placeholder::Text => record.text.clone(),
        Placeholder::Node => sender.node.clone(),
        Placeholder::Domain => sender.domain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{record, sender};
    use super::*;

    #[test]
    fn every_placeholder_stands_for_its_part_of_the_event() {
        let all: Vec<String> = ALL.iter().map(|(name, _)| format!("{name}={{{name}}}")).collect();
        let asked = Record { asked_by: "alice at node a".into(), ..record() };
        let filled = Template::parse(&all.join(" ")).unwrap().fill(&asked, &sender());
        assert_eq!(
            filled,
            "date=2026-11-26 time=21:04:09Z id=a-17 source=a severity=critical event=failover-complete row=12 \
             cause=node crashed asked_by=alice at node a text=The users of a are served by b. node=b domain=im.example"
        );
        let bare = Record { row: None, cause: String::new(), ..record() };
        assert_eq!(Template::parse("{row}{cause}{asked_by}").unwrap().fill(&bare, &sender()), "---");
    }

    #[test]
    fn braces_are_written_twice() {
        let template = Template::parse("{{\"id\": \"{id}\"}}").unwrap();
        assert_eq!(template.fill(&record(), &sender()), "{\"id\": \"a-17\"}");
    }

    #[test]
    fn what_is_no_placeholder_is_refused_with_all_that_may_be_written() {
        for (bad, named) in [
            ("{ID}", "{ID} is"),
            ("x {} y", "{} is"),
            ("{ id }", "{ id } is"),
            ("{id", "`}` after"),
            ("a}", "`{` before"),
            ("{{id}", "`{` before"),
        ] {
            let why = Template::parse(bad).unwrap_err();
            assert!(why.contains(named) && why.contains("write {date}, {time}, {id}"), "{bad}: {why}");
        }
    }

    #[test]
    fn a_placeholder_in_the_text_of_an_event_stays_as_it_is_and_lines_in_it_end() {
        let sly = Record { text: "{domain}\r\ncause: operator".into(), ..record() };
        let filled = Template::parse("{text}\nnext").unwrap().fill(&sly, &sender());
        assert_eq!(filled, "{domain}  cause: operator\nnext");
    }
}
