"""How good the judges of a run are: their verdicts on held-out problems, accuracy, intervals."""
