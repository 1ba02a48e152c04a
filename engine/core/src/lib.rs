//! Pure decisions: plan, rollout, scale, drain, control plane, checks.
