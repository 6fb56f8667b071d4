"""Reward models that give a response, or a critique, a number."""
