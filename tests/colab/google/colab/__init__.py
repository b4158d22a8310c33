"""A stand-in for Colab's own package: what the notebooks call, and how it refuses.

`COLAB_DRIVE` in the environment is the folder that stands for My Drive, empty
if access is refused; `COLAB_SECRETS` is JSON, a secret's name to its answer.
"""
