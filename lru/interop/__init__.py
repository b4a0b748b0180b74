"""Weights of other libraries, to and from the layers here."""
