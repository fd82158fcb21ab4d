"""A small real catalogue and its configuration, for `jaxsed demo`."""
