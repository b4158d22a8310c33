"""Chest X-ray findings by region: the package under the four notebooks."""
