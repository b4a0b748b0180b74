"""Looking at runs and models: spectra and plots."""
