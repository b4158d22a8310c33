"""Fine-tuning: its `plan`, the `trainer`, what it shows meanwhile (`watch`), and its `checkpoints`."""

from .trainer import finish, noted_settings, train

__all__ = ["finish", "noted_settings", "train"]
