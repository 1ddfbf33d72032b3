"""How long checks and benchmarks wait for what has to come, on a slow and busy machine too."""

PATIENCE = 300.0  # seconds
