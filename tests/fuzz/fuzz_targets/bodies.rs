//! Any request, written as text: a line `METHOD PATH?QUERY`, header lines, an empty line, and the body. Nothing is kept
//! (`dryRun`), so that each input stands for itself.
#![no_main]

use fleetwright_fuzz::with;
use http::Request;
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fleetwright_fuzz::seeds::write("bodies"), |input: &[u8]| {
    let Some(request) = request(input) else {
        return;
    };
    with(|subject| subject.answer(request));
});

fn request(input: &[u8]) -> Option<Request<Full<axum::body::Bytes>>> {
    let end = input.windows(2).position(|w| w == b"\n\n")?;
    let head = std::str::from_utf8(&input[..end]).ok()?;
    let mut lines = head.lines();
    let (method, uri) = lines.next()?.split_once(' ')?;
    let uri = match uri.split_once('?') {
        Some((path, query)) => format!("{path}?dryRun=All&{query}"),
        None => format!("{uri}?dryRun=All"),
    };
    let mut builder = Request::builder().method(method).uri(uri);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        builder = builder.header(name, value);
    }
    let body = input[end + 2..].to_vec();
    builder.body(Full::new(body.into())).ok()
}
