//! YAML that says the same to every reader: strings that an older reader takes for numbers, booleans or times are quoted.

use serde::Serialize;

/// `documents` one after the other, with `---` between them.
pub(crate) fn documents<T: Serialize>(documents: &[T]) -> Result<String, serde_saphyr::ser::Error> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let texts: Vec<String> = documents
        .iter()
        .map(|document| serde_saphyr::to_string_with_options(document, options.clone()))
        .collect::<Result<_, _>>()?;
    Ok(texts.join("---\n"))
}
