"""API keys: who may ask the server for what, how often, and how much."""
