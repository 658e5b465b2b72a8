"""How good predictions are: scores of masks, classes and findings, their statistics and tables."""
