"""Fine-tuning: its `plan`, the `trainer`, what it shows meanwhile (`watch`), and its `checkpoints`."""

from .trainer import finish, noted_settings, train, train_on_all

__all__ = ["finish", "noted_settings", "train", "train_on_all"]
