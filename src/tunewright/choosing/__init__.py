"""Choosing by evidence: many runs on the same rows, judged together. `trying` compares models, `searching` settings."""
