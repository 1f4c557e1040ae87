"""Small language models trained for real, so that a table of runs can be made at home."""
