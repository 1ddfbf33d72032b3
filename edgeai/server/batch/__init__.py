"""Long jobs: files of requests that are answered when nobody waits, and that survive restarts and power cuts."""
