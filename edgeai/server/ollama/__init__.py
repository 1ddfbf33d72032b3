"""Ollama's API over the same models: one file per group of routes."""
