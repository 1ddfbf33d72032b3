"""The server: models behind the OpenAI API, with a page, health and metrics. `serve.serve` runs it."""
