"""The recipes `dense-bn` and `forge` as plain loops in eager PyTorch, for test_training_ratios.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from digitforge_training.recipes import Recipe

Twin = tuple[nn.Module, nn.Module, Callable[[int], None]]


def twin(recipe: Recipe, images: np.ndarray, labels: np.ndarray) -> Twin:
    """The generator, the discriminator, and a function that runs a number of steps."""
    real = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return {"dense-bn": dense, "forge": forge}[recipe.name](recipe, real, torch.from_numpy(labels))


def dense(recipe: Recipe, real: Tensor, labels: Tensor) -> Twin:
    def hidden(widths: tuple[int, ...], *, normalized: bool) -> list[nn.Module]:
        parts: list[nn.Module] = []
        for before, width in itertools.pairwise(widths):
            parts += [nn.Linear(before, width), nn.LeakyReLU(0.2)]
            parts += [nn.BatchNorm1d(width, eps=1e-3, momentum=0.2)] if normalized else []
        return parts

    generator = nn.Sequential(
        *hidden((recipe.latent_size, *recipe.generator_widths), normalized=True),
        nn.Linear(recipe.generator_widths[-1], 784),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        *hidden((784, *recipe.discriminator_widths), normalized=False), nn.Linear(recipe.discriminator_widths[-1], 1)
    )
    optimizers = [
        torch.optim.Adam(model.parameters(), recipe.learning_rate, (recipe.beta_1, recipe.beta_2))
        for model in (generator, discriminator)
    ]
    rows, size = real.flatten(1), recipe.batch_size

    def run(steps: int) -> None:
        for _ in range(steps):
            generator.eval()
            with torch.no_grad():
                generated = generator(torch.randn(size, recipe.latent_size))
            for images, sign in ((rows[torch.randint(len(rows), (size,))], -1), (generated, 1)):
                loss = F.softplus(sign * discriminator(images)).mean()
                optimizers[1].zero_grad()
                loss.backward()
                optimizers[1].step()
            generator.train()
            discriminator.requires_grad_(False)
            loss = F.softplus(-discriminator(generator(torch.randn(size, recipe.latent_size)))).mean()
            optimizers[0].zero_grad()
            loss.backward()
            optimizers[0].step()
            discriminator.requires_grad_(True)

    return generator, discriminator, run


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class Pair(nn.Module):
    def __init__(self, width: int, style: int = 0) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(style, 2 * width) if style else None
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        h = self.first(leaky(x))
        if self.modulation is not None:
            scale, shift = self.modulation(style)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return x + self.second(leaky(h))


class Generator(nn.Module):
    def __init__(self, recipe: Recipe, classes: int) -> None:
        super().__init__()
        width, start = recipe.width, recipe.latent_size + recipe.embedding_size
        self.embedding = nn.Linear(classes, recipe.embedding_size, bias=False)
        self.style, self.start = nn.Linear(start, 2 * width), nn.Linear(start, 49 * 2 * width)
        self.quarter, self.narrow = Pair(2 * width, 2 * width), nn.Conv2d(2 * width, width, 1)
        self.pairs = nn.ModuleList(Pair(width, 2 * width) for _ in range(recipe.generator_blocks))
        self.stem, self.image = nn.Conv2d(width, 32, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, classes: Tensor, latents: Tensor) -> Tensor:
        start = torch.cat([latents, self.embedding(classes)], 1)
        style = leaky(self.style(start))
        x = self.start(start).unflatten(1, (-1, 7, 7)).contiguous(memory_format=torch.channels_last)
        x = self.narrow(self.quarter(x, style))
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        for pair in self.pairs:
            x = pair(x, style)
        x = F.pixel_shuffle(self.stem(leaky(x)), 2)
        return self.image(leaky(x)).clamp(-1, 1)


class Discriminator(nn.Module):
    def __init__(self, recipe: Recipe, classes: int) -> None:
        super().__init__()
        width, features = recipe.width, 128
        self.stem = nn.Conv2d(1, width, 5, stride=2, padding=2)
        self.pairs = nn.ModuleList(Pair(width) for _ in range(recipe.discriminator_blocks))
        self.widen, self.quarter = nn.Conv2d(width, 2 * width, 1), Pair(2 * width)
        self.last = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.features = nn.Linear(16 * 2 * width, features)
        self.score, self.projection = nn.Linear(features, 1), nn.Linear(classes, features, bias=False)
        self.classes = nn.Linear(features, classes)

    def forward(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(images)
        for pair in self.pairs:
            x = pair(x)
        x = self.quarter(self.widen(F.avg_pool2d(x, 2)))
        x = leaky(self.features(leaky(self.last(leaky(x))).flatten(1)))
        score = self.score(x)[:, 0] + (x * self.projection(classes)).sum(1) / x.shape[1] ** 0.5
        return score, self.classes(x)


def forge(recipe: Recipe, real: Tensor, labels: Tensor) -> Twin:
    classes = int(labels.max()) + 1
    generator = Generator(recipe, classes).to(memory_format=torch.channels_last)
    averaged = Generator(recipe, classes).to(memory_format=torch.channels_last)
    discriminator = Discriminator(recipe, classes).to(memory_format=torch.channels_last)
    optimizers = [
        torch.optim.Adam(model.parameters(), recipe.learning_rate, (recipe.beta_1, recipe.beta_2))
        for model in (generator, discriminator)
    ]
    one_hot, size, sigma = F.one_hot(labels, classes).float(), recipe.batch_size, recipe.penalty_noise
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        for _ in range(steps):
            chosen = torch.randint(len(real), (size,))
            target, both = one_hot[chosen], torch.cat([one_hot[chosen]] * 2)
            generated = generator(target, torch.randn(size, recipe.latent_size))
            images = torch.cat([real[chosen], generated.detach()]).contiguous(memory_format=torch.channels_last)
            score, logits = discriminator(images, both)
            score_real, score_generated = score.chunk(2)
            loss = F.softplus(score_generated - score_real).mean()
            loss += recipe.auxiliary_discriminator * F.cross_entropy(logits[:size], target)
            if done % recipe.penalty_every == 0:
                moved, _ = discriminator(images + sigma * torch.randn_like(images), both)
                loss += recipe.gamma * recipe.penalty_every * ((moved - score) / sigma).square().mean()
            optimizers[1].zero_grad()
            loss.backward()
            optimizers[1].step()
            discriminator.requires_grad_(False)
            score, logits = discriminator(generated, target)
            loss = F.softplus(score_real.detach() - score).mean()
            loss += recipe.auxiliary_generator * F.cross_entropy(logits, target)
            optimizers[0].zero_grad()
            loss.backward()
            optimizers[0].step()
            discriminator.requires_grad_(True)
            with torch.no_grad():
                torch._foreach_lerp_(list(averaged.parameters()), list(generator.parameters()), 0.001)
            done += 1

    return generator, discriminator, run
