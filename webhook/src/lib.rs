//! Webhook receivers, forge clients and the commit status outbox.
