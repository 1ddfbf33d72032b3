"""The page at `/`: plain files, served by the board itself."""
