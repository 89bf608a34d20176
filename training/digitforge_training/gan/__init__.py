"""The GAN: networks, losses, training steps."""
