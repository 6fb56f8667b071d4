"""Accuracy, intervals, reports."""
