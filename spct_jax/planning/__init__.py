"""What an experiment would need on a TPU slice, found by compiling its programs for it here."""
