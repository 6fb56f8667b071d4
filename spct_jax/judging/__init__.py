"""The judge: verdicts on comparisons, drawn, voted, and written to files."""
