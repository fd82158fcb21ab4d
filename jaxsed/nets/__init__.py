"""Network architectures: pure functions of a parameter pytree, one module each."""
