"""Raw files: fetched, unpacked, known by their fingerprints, and read with care."""
