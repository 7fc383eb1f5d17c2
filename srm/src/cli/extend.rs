//! `tandem extend`: a pair that exists gets a witness.

use serde_json::json;

use super::args::{Extend, ExtendArgs};
use super::output::{Answer, Failure};
use crate::setup::extend::{self, Extended};

/// Makes it, and says what to do next.
pub(super) fn extend(args: &ExtendArgs) -> Result<Answer, Failure> {
    let Extend::Witness = args.what;
    let made =
        extend::witness(&args.dir, &args.host, args.port).map_err(|error| Failure::environment(&error))?;
    let json = json!({ "witness": made.witness, "changed": made.nodes });
    Ok(Answer::new(text(&made), json))
}

fn text(made: &Extended) -> String {
    let mut text = format!("made {}\n", made.witness.parent().unwrap_or(&made.witness).display());
    made.nodes
        .iter()
        .for_each(|file| text.push_str(&format!("changed {}: it asks the witness\n", file.display())));
    text.push_str(&format!(
        "\nnext:\n  copy witness/ to its machine and start it there: tandem witness -c {}\n  copy each node's tandem.toml \
         to its machine, if it is not in place there\n  `tandem restart` one node and, when it is well, the other; clients \
         resume\nThe witness decides nothing until both nodes are connected to it and agree; `tandem status` says when it \
         does.\n",
        made.witness.display()
    ));
    text
}
