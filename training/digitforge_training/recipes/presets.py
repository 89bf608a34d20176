"""The presets, one short entry each."""

from __future__ import annotations

from typing import Any

from digitforge_training.recipes.recipe import Recipe

# What the published recipes have in common: no penalties, new latents for the generator, no averaged weights.
_PUBLISHED: dict[str, Any] = {
    "conditioning": "none",
    "latent_size": 100,
    "gamma": 0.0,
    "gamma_end": 0.0,
    "shared_latents": False,
    "ema_images": 0,
    "schedule": "constant",
    "beta_2": 0.999,
}

_PRESETS = (
    Recipe(
        name="forge",
        summary="The default: class-conditional, our best.",
        width=40,
        generator_blocks=1,
        penalty_every=4,
        clusters=4,
        steps=24_000,
    ),
    Recipe(
        name="forge-small",
        summary="The same for a thousand images or fewer.",
        width=32,
        generator_blocks=1,
        discriminator_blocks=1,
        gamma=0.5,
        gamma_end=0.1,
        steps=4_000,
        learning_rate=3e-4,
        augment_shift=3,
        augment_cutout=8,
        images_per_checkpoint=32_000,
    ),
    Recipe(
        name="mlp",
        summary="Published: fully connected, Adam at 0.02, frozen updates in turn.",
        notes=(
            "Fault kept: a learning rate of 0.02, a hundred times the customary one. Mend it: "
            "--set learning_rate=0.0002 --set beta_1=0.5",
            "Left open by the text: the widths of the hidden layers, the slope of LeakyReLU and the dropout; the "
            "customary ones are used.",
            "500 epochs are 234375 steps of 128 images.",
        ),
        network="dense",
        generator_widths=(256, 512, 1024),
        discriminator_widths=(1024, 512, 256),
        output="tanh",
        discriminator_dropout=0.3,
        loss="non-saturating",
        learning_rate=0.02,
        beta_1=0.9,
        batch_size=128,
        steps=234_375,
        generator_predicts=True,
        images_per_checkpoint=600_000,
        images_per_sheet=600_000,
        **_PUBLISHED,
    ),
    Recipe(
        name="dense-bn",
        summary="Published: fully connected with batch normalization, Adam, 30 000 iterations.",
        notes=(
            "Quality falls again when trained too long, the text says; the number of iterations needs tuning: "
            "--steps, or --keep best.",
            "It suggests unequal updates of the two networks: --set generator_steps=5",
        ),
        network="dense",
        generator_widths=(256, 512, 1024),
        discriminator_widths=(512, 256),
        output="tanh",
        generator_normalization="batch",
        normalization_momentum=0.8,
        loss="non-saturating",
        separate_batches=True,
        generator_predicts=True,
        learning_rate=2e-4,
        beta_1=0.5,
        batch_size=32,
        steps=30_000,
        jit=True,
        images_per_sheet=48_000,
        **_PUBLISHED,
    ),
    Recipe(
        name="dcgan-rmsprop",
        summary="Published: DCGAN with dropout and RMSprop, pixels in [0, 1].",
        notes=(
            "Fault kept: the discriminator is not frozen while the generator learns through it, so that it is also "
            "pushed to call generated images real. Mend it: --set discriminator_in_chain=frozen",
            "Left open by the text: the batch size and the number of steps; 256 and 10000 fit its pictures.",
            "It asks to look at 500 and 1000 steps before training past 2000: --steps 500",
        ),
        network="convolutional",
        latent_distribution="uniform",
        generator_widths=(256, 128, 64, 32),
        discriminator_widths=(64, 128, 256, 512),
        output="sigmoid",
        generator_normalization="batch",
        normalization_momentum=0.9,
        generator_dropout=0.4,
        discriminator_dropout=0.4,
        loss="non-saturating",
        generator_predicts=True,
        discriminator_in_chain="trained",
        optimizer="rmsprop",
        learning_rate=4e-4,
        discriminator_learning_rate=8e-4,
        decay=3e-8,
        discriminator_decay=6e-8,
        clip_value=1.0,
        batch_size=256,
        steps=10_000,
        images_per_checkpoint=12_800,
        images_per_sheet=25_600,
        **_PUBLISHED | {"schedule": "inverse-time"},
    ),
    Recipe(
        name="minimax",
        summary="Published: the original algorithm with its minimax loss and an MLP.",
        notes=(
            "The generator descends log(1 − D(G(z))), whose gradient vanishes while the discriminator is sure. Its "
            "non-saturating twin: --set loss=non-saturating",
            "The original algorithm allows k updates of the discriminator: --set discriminator_steps=K",
            "Left open by the text: network, optimizer and lengths. LeakyReLU in both networks is its own remedy.",
        ),
        network="dense",
        generator_widths=(128, 256, 512),
        discriminator_widths=(512, 256),
        output="tanh",
        discriminator_dropout=0.3,
        loss="minimax",
        learning_rate=2e-4,
        beta_1=0.5,
        batch_size=128,
        steps=30_000,
        images_per_checkpoint=256_000,
        images_per_sheet=256_000,
        **_PUBLISHED,
    ),
    Recipe(
        name="bp-gan",
        summary="Published: a 100-784-100-1 chain of sigmoid units that stops at equilibrium.",
        notes=(
            "Fault kept: the discriminator's layers that are copied into the generator's chain are trained there too, "
            "until the next copy. Mend it: --set discriminator_in_chain=frozen",
            "It stops when the mean of the discriminator's rounded outputs is 0.5 ± 0.05, or after 1500 rounds. The "
            "text does not say for which images; over real and generated ones together a perfect discriminator has "
            "that mean too, so it is taken over the generated ones. All rounds: --set equilibrium=0",
            "Left open by the text: units, optimizer and passes of a round. Here both networks are trained for one "
            "pass over the round's rows, 1000 real and 1000 generated, in ten parts.",
        ),
        network="dense",
        latent_distribution="uniform",
        positive_latents=True,
        discriminator_widths=(100,),
        activation="sigmoid",
        output="sigmoid",
        loss="non-saturating",
        discriminator_in_chain="copied",
        discriminator_steps=10,
        generator_steps=10,
        equilibrium=0.05,
        learning_rate=2e-4,
        beta_1=0.9,
        batch_size=100,
        steps=1_500,
        images_per_checkpoint=100_000,
        images_per_sheet=50_000,
        **_PUBLISHED | {"shared_latents": True},
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _PRESETS}
