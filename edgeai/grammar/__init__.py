"""Structured output: JSON schemas, regular expressions and grammars as constraints on tokens, through llguidance."""
