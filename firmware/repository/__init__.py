"""The TUF repository: which bundle an appliance may install (docs/update.md section 2)."""
