//! The table, to be printed: as text, as markdown for the documents, and as JSON.

use serde_json::{Value, json};

use super::{ROWS, Reason, Row, State};

fn pair((state, reason): (State, Reason)) -> String {
    match state {
        State::Down => state.name().to_owned(),
        _ => format!("{} / {}", state.name(), reason.name()),
    }
}

/// For a terminal: a paragraph for each row.
pub fn text() -> String {
    let rows = ROWS.iter().map(|row| {
        let mut lines = vec![format!("{:>3}  node 1  {}", row.id, pair(row.home))];
        lines.push(format!("     node 2  {}", pair(row.backup)));
        lines.push(format!("     when    {}", row.why));
        if !row.action.is_empty() {
            lines.push(format!("     to do   {}", row.action));
        }
        lines.join("\n") + "\n"
    });
    let head = "Node 1 is the home node of the users that a row is about, node 2 backs it; by symmetry each row also holds \
                with the nodes exchanged.\n";
    std::iter::once(head.to_owned()).chain(rows).collect::<Vec<_>>().join("\n")
}

/// Rows of a markdown table.
pub fn markdown() -> String {
    let line = |row: &Row| {
        let action = if row.action.is_empty() { "–" } else { row.action };
        format!("| {} | {} | {} | {} | {action} |\n", row.id, pair(row.home), pair(row.backup), row.why)
    };
    let head = "| # | node 1: state / reason | node 2: state / reason | when | recommended action |\n\
                |---|---|---|---|---|\n";
    std::iter::once(head.to_owned()).chain(ROWS.iter().map(line)).collect()
}

/// A list of objects.
pub fn rows() -> Value {
    let one = |(state, reason): (State, Reason)| json!({"state": state.name(), "reason": reason.name()});
    let row = |row: &Row| {
        json!({
            "row": row.id,
            "home": one(row.home),
            "backup": one(row.backup),
            "when": row.why,
            "action": row.action,
        })
    };
    Value::Array(ROWS.iter().map(row).collect())
}

/// The page `docs/srm-states.md`.
pub fn page() -> String {
    let list =
        |names: Vec<&str>| names.iter().map(|name| format!("*{name}*")).collect::<Vec<_>>().join(" · ");
    let states = list(State::ALL.iter().map(|state| state.name()).collect());
    let reasons = list(Reason::ALL.iter().map(|reason| reason.name()).collect());
    format!(
        "# States of a pair\n\n\
         `tandem status` shows a state and a reason for each node. Together they are a row of this table, which `tandem srm \
         table` prints too; the number of the row stands in the status and in every event.\n\n\
         *Node 1* is the home node of the users that the row is about, *node 2* the node that backs it; by symmetry each row \
         also holds with the nodes exchanged. A node that is not heard is shown as *down*, whatever the row. A number that \
         stands twice is one row with two forms. Rows from 101 on are Tandem's own.\n\n\
         States: {states}.\n\nReasons: {reasons}.\n\n{}\n\
         This page is generated from the table that the nodes use.\n",
        markdown()
    )
}
