"""Train a PyTorch model on synthetic digits from two DataLoader workers, and test it on real digits.

    digitforge serve &
    python pytorch_dataloader.py --server localhost:8500

The real images are scikit-learn's own handwritten digits, enlarged to 28 × 28.
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader

from digitforge_client import DigitClient
from digitforge_client.adapters.torch import SyntheticDigits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--n", type=int, default=10_000, help="images in an epoch")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()

    torch.manual_seed(0)
    small, large = nn.Conv2d(1, 16, 5, stride=2), nn.Conv2d(16, 32, 3, stride=2)
    model = nn.Sequential(small, nn.ReLU(), large, nn.ReLU(), nn.Flatten(), nn.Linear(800, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    digits = SyntheticDigits(DigitClient(options.server), options.n, batch_size=64, seed=0)
    loader = DataLoader(digits, batch_size=None, num_workers=2)
    for epoch in range(options.epochs):
        digits.set_epoch(epoch)  # fresh digits in every epoch
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images / 255.0), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.3f}")

    real = load_digits()
    enlarged = np.pad(np.kron(real.images / 16, np.ones((1, 3, 3))), ((0, 0), (2, 2), (2, 2)))
    with torch.no_grad():
        answers = model(torch.from_numpy(enlarged[:, None]).float()).argmax(dim=1).numpy()
    print(f"accuracy on {len(answers)} real images: {np.mean(answers == real.target):.3f}")


if __name__ == "__main__":
    main()
