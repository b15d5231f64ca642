"""Compare rankings on live traffic: shadow mode, canary, interleaving, and the log of what happened."""
