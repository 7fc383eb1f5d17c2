//! `tandem renew`: replaces certificates, the secret or the authority.

use std::path::PathBuf;

use serde_json::json;

use super::output::{Answer, Exit, Failure};
use super::setup_args::{Renew, RenewArgs};
use crate::setup::renew::{self, Names, Renewed};

/// Makes the next step, and says what to do with it.
pub(super) fn renew(args: &RenewArgs) -> Result<Answer, Failure> {
    let names = Names { add: args.add_name.clone(), drop: args.drop_name.clone() };
    if args.what != Renew::Certificates && !(names.add.is_empty() && names.drop.is_empty()) {
        return Err(Failure::new(
            Exit::Usage,
            "names are of certificates",
            "use `tandem renew certificates` with --add-name and --drop-name",
        ));
    }
    let done = match args.what {
        Renew::Certificates => renew::certificates(&args.dir, &names),
        Renew::Secret => renew::secret(&args.dir),
        Renew::Authority => renew::authority(&args.dir),
    };
    let done = done.map_err(|error| Failure::environment(&error))?;
    let json = json!({
        "step": done.step.0, "steps": done.step.1, "done": done.done, "written": done.written, "kept": done.kept,
    });
    Ok(Answer::new(text(args, &done), json))
}

fn text(args: &RenewArgs, done: &Renewed) -> String {
    let mut text = match done.step {
        (_, 1) => format!("{}:\n", done.done),
        (step, of) => format!("step {step} of {of}: {}\n", done.done),
    };
    done.written.iter().for_each(|file| text.push_str(&format!("  {}\n", file.display())));
    done.kept.iter().for_each(|file| text.push_str(&format!("left alone: {file}\n")));
    text.push_str(
        "\nnext: copy each node's files to its machine, if they are not in place there. The node takes them up within \
         seconds;\n`tandem config reload` there does it at once and says what changed.\n",
    );
    let of_witness = |file: &PathBuf| file.parent().is_some_and(|dir| dir.ends_with("witness"));
    let witness = done.written.iter().any(of_witness);
    if witness {
        text.push_str("The files of the witness belong to its machine, where it takes them up too.\n");
    }
    if args.what == Renew::Authority {
        text.push_str("Give clients that trust the authority the new ca/ca.pem too.\n");
    }
    if done.goes_on() {
        let (dir, what) = (args.dir.display(), format!("{:?}", args.what).to_lowercase());
        text.push_str(&format!(
            "When both nodes{} have taken it up, and not before, go on with `tandem renew {what} --dir {dir}`.\n",
            if witness { ", and the witness," } else { "" }
        ));
    }
    text
}
