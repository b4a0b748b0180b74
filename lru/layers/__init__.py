"""Recurrences behind one contract, and how their weights are drawn."""
