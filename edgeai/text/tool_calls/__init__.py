"""Tool calls as models write them: one module for each format, each with its parser and its grammar."""
