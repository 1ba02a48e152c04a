//! Answers that were cut off. The SDK takes the end of an XML document for the end of all that is open in it: a list that was cut at
//! a proxy would be a shorter one, and what is not in it would be taken for gone.

use aws_sdk_ec2::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::AfterDeserializationInterceptorContextRef,
    },
    error::BoxError,
};

/// Refuses answers that do not end as they began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole;

impl Intercept for Whole {
    fn name(&self) -> &'static str {
        "Whole"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response();
        let body = answer.body().bytes().unwrap_or_default();
        if answer.status().is_success() && !is_whole(body) {
            return Err("the answer was cut off".into());
        }
        Ok(())
    }
}

/// Whether an XML document ends with its root.
fn is_whole(document: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(document) else {
        return false;
    };
    let mut tags = text.split('<').skip(1);
    let root = tags.find(|tag| tag.starts_with(|c: char| c.is_alphabetic()));
    let name = root.and_then(|tag| tag.split([' ', '\n', '\t', '\r', '/', '>']).next());
    let end = name.map(|name| format!("</{name}>"));
    end.is_some_and(|end| text.trim_end().ends_with(&end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_whole_when_its_root_is_closed() {
        let whole = "<?xml version=\"1.0\"?>\n<!-- x -->\n<ListResponse xmlns=\"a\"><set><item/></set></ListResponse>\n";
        assert!(is_whole(whole.as_bytes()));
        assert!(is_whole(b"<A></A>"));
        let end = whole.trim_end().len();
        for length in 0..end {
            assert!(!is_whole(&whole.as_bytes()[..length]), "{length}");
        }
        assert!(!is_whole(b"\xff"));
    }
}
