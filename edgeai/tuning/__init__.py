"""Settings measured on the device: a profile is tuned, explained, checked at start, and fallen back from."""
