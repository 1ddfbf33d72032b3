"""The command line: thin files that parse arguments, call the rooms below and print."""
