"""The machine-readable description of the API. Made when somebody asks for it, so that no start pays for it."""
