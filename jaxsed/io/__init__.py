"""Files: written whole or not at all, and checked before memory is taken for what they declare."""
