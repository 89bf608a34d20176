"""What is learned and how: networks, losses, the training step."""
