"""Galaxy models: named sets of parameters with their priors and physics."""
