"""Looking at runs and models: spectra, signal propagation, plots."""
