"""`RECIPES`: the presets."""

from __future__ import annotations

from typing import Any

from digitforge_training.recipes.recipe import Recipe

# Common to the published recipes: no penalties, fresh latents for the generator, no averaged weights.
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
        name="forge-unlabeled",
        summary="Without labels: clusters of the images take the place of classes.",
        notes=(
            "The generator takes no class. `digitforge experiment` lets a classifier label its images.",
            "The clusters have no sharp borders, so the generator's class loss is off. It would push images away from "
            "the borders.",
        ),
        width=40,
        generator_blocks=1,
        penalty_every=4,
        clusters=64,
        unlabeled=True,
        auxiliary_generator=0.0,
        steps=24_000,
    ),
    Recipe(
        name="mlp",
        summary="Published: fully connected networks, Adam at 0.02, alternating updates.",
        notes=(
            "Known fault: the learning rate of 0.02 is a hundred times the usual one. To fix it: "
            "--set learning_rate=0.0002 --set beta_1=0.5",
            "The text does not give the widths of the hidden layers, the slope of LeakyReLU and the dropout rate. This "
            "recipe uses the usual ones.",
            "The 500 epochs of the text are 234375 steps of 128 images.",
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
        summary="Published: fully connected networks with batch normalization, Adam, 30 000 iterations.",
        notes=(
            "The text says that quality falls after too many iterations. Tune their number with --steps, or use "
            "--keep best.",
            "The text suggests more updates of the generator than of the discriminator: --set generator_steps=5",
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
            "Known fault: the discriminator is not frozen while the generator learns through it. The generator's loss "
            "therefore also trains the discriminator to call generated images real. To fix it: "
            "--set discriminator_in_chain=frozen",
            "The text does not give the batch size and the number of steps. 256 and 10000 match its pictures.",
            "The text recommends a look at the images after 500 and 1000 steps before training past 2000: --steps 500",
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
        summary="Published: the original GAN algorithm with minimax loss and fully connected networks.",
        notes=(
            "The generator minimizes log(1 − D(G(z))). Its gradient vanishes when the discriminator wins. For the "
            "non-saturating loss: --set loss=non-saturating",
            "The original algorithm allows k updates of the discriminator per step: --set discriminator_steps=K",
            "The text does not give the networks, the optimizer and the length of the training. It recommends "
            "LeakyReLU in both networks, which this recipe uses.",
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
            "Known fault: the generator trains through a copy of the discriminator's layers, and each of its updates "
            "changes that copy until the next one is made. To fix it: --set discriminator_in_chain=frozen",
            "Training stops when the mean of the discriminator's rounded outputs is 0.5 ± 0.05, or after 1500 rounds. "
            "The text does not say on which images. Over real and generated images together even a perfect "
            "discriminator has this mean, so this recipe takes the mean over the generated images. To train for all "
            "rounds: --set equilibrium=0",
            "The text does not give the number of units, the optimizer and the passes per round. In this recipe each "
            "round trains both networks for one pass over 1000 real and 1000 generated images, in ten batches.",
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
