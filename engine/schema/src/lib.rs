//! Pure Kubernetes API semantics: structural schemas, defaulting, pruning, validation, CEL, server-side apply and patches.
