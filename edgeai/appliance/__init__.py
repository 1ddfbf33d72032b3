"""What makes a flashed board an appliance: which of its two systems starts, its first start, its health, its card."""
