//! Amazon EC2 as a provider: instances found by tags, images by what they are for, and the network load balancer in front of a
//! cluster's API.
//!
//! Every instance carries its Machine's instance key, as a tag and, hashed, as the client token of the call that made it. A create
//! looks for the tag first and repeats the token, so that neither a list that is behind nor an answer that was lost makes a second one.

mod bootstrap;
mod clients;
pub mod config;
mod create;
mod eks;
mod endpoint;
mod errors;
mod images;
mod instance;
mod provider;
mod recent;
mod rooms;
mod schema;
mod spot;
mod tags;
mod update;
mod whole;

pub use provider::Aws;
pub use schema::schemas;
