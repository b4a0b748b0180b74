"""Many runs: sweeps in the format of W&B, started here or on a cluster."""
