"""Raw files: fetched, unpacked, known by their stamps, and read with care."""
