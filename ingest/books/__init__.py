"""What a run accounts for: ledger, checkpoint, dead letters and report."""
