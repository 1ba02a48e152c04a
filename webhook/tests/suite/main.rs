//! The outbox, receivers and pull requests against a real API server and servers that answer as the forges' do.

#[cfg(test)]
mod app;
#[cfg(test)]
mod described;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod outbox;
#[cfg(test)]
mod pace;
#[cfg(test)]
mod published;
#[cfg(test)]
mod pull_requests;
#[cfg(test)]
mod stub;
#[cfg(test)]
mod three_forges;
