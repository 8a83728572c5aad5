"""TrellisNet level by level, all levels at once, and one step at a time."""
