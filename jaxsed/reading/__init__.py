"""Reading of files that others wrote: what they declare is checked before memory is taken."""
