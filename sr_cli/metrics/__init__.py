"""Image quality measures: one per file, pure functions on arrays."""
