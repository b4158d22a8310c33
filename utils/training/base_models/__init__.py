"""The small base models, made here: `phantoms` for the demo, whose weights lie here, and `collection`."""
