"""One module for each kind of run: ingest, backfill, dry run, plan, verify."""
