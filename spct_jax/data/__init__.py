"""Records, files, tokens and batches."""
