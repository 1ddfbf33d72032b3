"""Which models there are, which of them are in memory, and who uses them."""
