//! The outbox against a real API server on disk and a server that answers as GitHub's does.

#[cfg(test)]
mod forge;
#[cfg(test)]
mod outbox;
