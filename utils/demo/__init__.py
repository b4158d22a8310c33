"""What the offline demo brings: phantom radiographs and a small base model."""
