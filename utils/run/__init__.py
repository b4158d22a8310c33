"""A run: its folder and manifests, its answers kept as they come, its processes, and progress bars."""
