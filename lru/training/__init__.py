"""From a configuration to a trained model: optimiser, step, loop, checkpoints, trackers."""
