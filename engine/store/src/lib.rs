//! Ordered, versioned, watchable store of bytes on SQLite or in memory.
