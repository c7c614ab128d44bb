"""The findings as numbers, words and pictures."""
