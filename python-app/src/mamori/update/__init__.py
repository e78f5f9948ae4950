"""Updates: find, stage, arm, try, confirm or return (docs/update.md)."""
