"""The page at `/`: one file, served with everything it needs."""
