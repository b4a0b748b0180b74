"""Prepared data sets: arrays, the card, and the cache on disk."""
