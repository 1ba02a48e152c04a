//! The document of an object, laid over what it is built on. Edits change the document, never its bases: others are built on them too.

use std::{rc::Rc, sync::Arc};

use serde_json::Value;

use super::{Declares, Obstacle, Why, changes, edit, set};
use crate::{
    load::{
        LoadContext, LoadError, SourceFile,
        bases::{BASES, Below, Library},
    },
    yaml::{self, Node},
};

/// The document that declares an object.
pub struct Declaration<'f, 'a> {
    /// Path of its file.
    pub file: &'f str,
    /// The text of the file.
    pub text: &'f str,
    /// What it declares, with what comes from its bases.
    pub document: Value,
    own: Rc<Node>,
    below: Option<Below>,
    library: Library<'f, 'a>,
}

/// The document that declares `object` in `files`, which are the whole of what is followed.
///
/// # Errors
/// What it is built on cannot be found.
pub fn find<'f, 'a>(
    files: &'f [SourceFile],
    object: Declares<'_>,
    context: &'f LoadContext<'a>,
) -> Result<Option<Declaration<'f, 'a>>, LoadError> {
    let declares = |file: &'f SourceFile| {
        let text = std::str::from_utf8(file.content.as_deref().ok()?).ok()?;
        let mut documents = yaml::parse(text).ok()?.into_iter();
        let own = documents.find(|d| object.is(d))?;
        Some((file.path.as_str(), text, Rc::new(own)))
    };
    let Some((file, text, own)) = files.iter().find_map(declares) else {
        return Ok(None);
    };
    let all: Vec<&SourceFile> = files.iter().collect();
    let mut library = Library::new(&all, context);
    let below = match own.get(BASES) {
        Some(_) => Some(library.below(&Arc::from(file), &own)?),
        None => None,
    };
    let document = whole(&mut library, below.as_ref(), &own);
    Ok(Some(Declaration {
        file,
        text,
        document,
        own,
        below,
        library,
    }))
}

fn whole(library: &mut Library<'_, '_>, below: Option<&Below>, own: &Node) -> Value {
    match below {
        Some(below) => library.over(below, own).to_value(),
        None => own.to_value(),
    }
}

impl Declaration<'_, '_> {
    /// The text of the file when the document declares what `wanted` says.
    ///
    /// # Errors
    /// The first value that the text cannot be edited at.
    pub fn edit(&mut self, object: Declares<'_>, wanted: &Value) -> Result<String, Obstacle> {
        let Some(below) = &self.below else {
            return edit(self.text, object, wanted);
        };
        let mut own = self.own.to_value();
        for (path, value) in changes(&self.document, wanted) {
            match value {
                Some(value) => set(&mut own, &path, Some(&value)),
                // What a base says is only gone when the document says so.
                None if below.says(&path) => set(&mut own, &path, Some(&Value::Null)),
                None => set(&mut own, &path, None),
            }
        }
        let new = edit(self.text, object, &own)?;
        let read = yaml::parse(&new).unwrap_or_default();
        let own = read.iter().find(|d| object.is(d));
        let got = own.map(|own| whole(&mut self.library, Some(below), own));
        match got.as_ref() == Some(wanted) {
            true => Ok(new),
            false => Err(Obstacle {
                place: self.own.place,
                why: Why::Bases,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
