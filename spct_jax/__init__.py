"""Self-Principled Critique Tuning for JAX and TPU."""
