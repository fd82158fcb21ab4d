"""Many galaxies at once: the batch slots they are sampled in, and when they are done."""
