//! `tandem extend`: a single node gets a peer, a pair gets a witness.

use std::net::Ipv6Addr;
use std::path::Path;

use serde_json::json;

use super::output::{Answer, Exit, Failure};
use super::setup_args::{ExtendPairArgs, ExtendWitnessArgs};
use crate::setup::extend::{self, Extended};
use crate::setup::grow::{self, Grown};
use crate::setup::{NodePlan, Ports};

/// Makes a witness, and says what to do next.
pub(super) fn witness(args: &ExtendWitnessArgs) -> Result<Answer, Failure> {
    let made =
        extend::witness(&args.dir, &args.host, args.port).map_err(|error| Failure::environment(&error))?;
    let json = json!({ "witness": made.witness, "changed": made.nodes });
    Ok(Answer::new(text(&made), json))
}

/// Makes a second node, and says what to do next.
pub(super) fn pair(args: &ExtendPairArgs) -> Result<Answer, Failure> {
    let ((old, at), (name, host)) = (&args.old, &args.new);
    if !args.dir.join(old).join("tandem.toml").is_file() {
        let error = format!("{} has no node {old}", args.dir.display());
        let hint = "name first the node that there is, then the new one: a=a.example.org b=b.example.org";
        return Err(Failure::new(Exit::Usage, error, hint));
    }
    let new = NodePlan {
        name: name.clone(),
        host: host.clone(),
        listen: Ipv6Addr::UNSPECIFIED.into(),
        ports: Ports::STANDARD,
    };
    let link = (Ipv6Addr::UNSPECIFIED, Ports::STANDARD.link).into();
    let made = grow::pair(&args.dir, at, link, &new).map_err(|error| Failure::environment(&error))?;
    let json = json!({ "new": made.new, "changed": made.old, "foreign": made.foreign });
    Ok(Answer::new(grown(&made, &args.dir, old, name), json))
}

fn grown(made: &Grown, dir: &Path, old: &str, new: &str) -> String {
    let foreign = made.foreign.iter().map(|file| {
        format!(
            "\n{} is of another authority: give both nodes one that names both hosts, and copy it to {new}\n",
            file.display()
        )
    });
    format!(
        "made {}\nchanged {}: it has a peer\n{}\nnext:\n  copy the folder of {new} to its machine, and start it there\n  \
         `tandem pair {dir}` on the machine of {old}: it looks whether all fits, and makes them a pair; \
         clients resume\n  `tandem rebalance`, if {new} is to have its share of the users that there are\n",
        made.new.parent().unwrap_or(&made.new).display(),
        made.old.display(),
        foreign.collect::<String>(),
        dir = dir.display(),
    )
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
