"""Speed measured beside what a user would pick instead; run by `scripts/bench`, not part of the wheel."""
