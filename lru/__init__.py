"""Recurrent sequence models that train in parallel over time, in JAX and Flax NNX."""
