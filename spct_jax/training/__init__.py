"""The stages of SPCT."""
