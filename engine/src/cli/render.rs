//! `fleetwright render`: documents as they are applied, with the place where each value was written.

use std::path::PathBuf;

use crate::{
    error::Failure,
    object::Named,
    output::print,
    repository::{catalogue, loaded, mistakes, read},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory with the files.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Only this object, such as md/web or cluster/prod-eu; all when left out.
    #[arg(long, value_name = "KIND/NAME")]
    object: Option<Named>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let snapshot = read(&args.directory)?;
    let catalogue = catalogue();
    let loaded = loaded(&snapshot, &catalogue);
    if !loaded.errors.is_empty() {
        return Err(mistakes(&args.directory, &loaded.errors));
    }
    let is_asked_for = |kind: &str, name: &str| {
        let named = args.object.as_ref();
        named.is_none_or(|named| named.to_string() == format!("{kind} {name}"))
    };
    let objects = loaded.objects.iter();
    let asked_for = objects.filter(|o| is_asked_for(&o.key.kind, &o.key.name));
    let text: String = asked_for.map(fleetwright_gitops::render).collect();
    if let (true, Some(object)) = (text.is_empty(), &args.object) {
        let place = args.directory.display();
        return Err(Failure::input(format!(
            "no file of {place} declares {object}"
        )));
    }
    print(&text);
    Ok(())
}
