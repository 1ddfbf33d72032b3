"""The settings of a server from files, variables and flags, each with where it came from."""
