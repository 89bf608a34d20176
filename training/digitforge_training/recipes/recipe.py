"""`Recipe`: all settings of a training, as a frozen dataclass."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterable
from typing import Any, Literal

from digitforge_client.errors import InvalidInputError

LossName = Literal["relativistic", "minimax", "non-saturating", "least-squares", "wasserstein", "hinge"]
Normalization = Literal["none", "batch", "instance", "spectral"]

_REPORTED_IMAGES = 1_600  # images between two reports


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a generator is trained.

    Every number of images is a number of real images shown to the discriminator. Two recipes are equal if all fields
    except `summary` and `notes` are equal.

    Raises:
        InvalidInputError: a value is out of range, or two values contradict each other.
    """

    name: str  #: Name of the preset.
    summary: str = dataclasses.field(compare=False)  #: One line for ``digitforge recipes``.
    #: What the published text leaves open or gets wrong, and which options fix it.
    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    # Latents and classes.

    latent_size: int = 64  #: Numbers in a latent.
    #: Distribution of the latents: N(0, 1), or uniform on [−1, 1].
    latent_distribution: Literal["normal", "uniform"] = "normal"
    positive_latents: bool = False  #: The generator first maps latents from [−1, 1] to [0, 1].
    #: How the networks use class labels. ``none``: not at all. ``projection``: the discriminator projects the class
    #: onto its features. ``auxiliary``: the discriminator also classifies. ``both``: projection and auxiliary.
    #: Unless ``none``, the generator takes an embedding of the class.
    #: With ``unlabeled``, clusters take the place of classes.
    conditioning: Literal["none", "projection", "auxiliary", "both"] = "both"
    embedding_size: int = 32  #: Size of the class embedding in the generator's input.
    #: Clusters per class, found in the training images (see ``gan/clusters.py``). Both networks see the cluster of an
    #: image. A quarter of each batch shows all clusters of a class equally often, so the networks see rare modes often
    #: enough. 1 turns clusters off.
    clusters: int = 1
    #: Ignore the labels. All images form one class, and its clusters take the place of classes while training. The
    #: trained generator takes no class.
    unlabeled: bool = False

    # Networks (see gan/networks/).

    #: ``residual``: residual blocks at half and quarter resolution. ``dense``: fully connected layers.
    #: ``convolutional``: DCGAN.
    network: Literal["residual", "dense", "convolutional"] = "residual"
    #: Residual: channels at half resolution. Quarter resolution has twice as many. `generator_widths` and
    #: `discriminator_widths` change this for one network.
    width: int = 48
    generator_blocks: int = 2  #: Residual: blocks of the generator at half resolution.
    discriminator_blocks: int = 2  #: Residual: blocks of the discriminator at half resolution.
    #: Generator. Dense: units of the hidden layers. Convolutional: channels of the layers. Residual: channels at
    #: quarter and at half resolution.
    generator_widths: tuple[int, ...] = ()
    #: Discriminator. Dense: units of the hidden layers. Convolutional: channels of the layers. Residual: channels
    #: at half and at quarter resolution.
    discriminator_widths: tuple[int, ...] = ()
    activation: Literal["leaky-relu", "sigmoid"] = "leaky-relu"  #: Dense: activation of the hidden layers.
    #: Activation of the generator's last layer. With ``sigmoid`` both networks work on pixels in [0, 1].
    output: Literal["linear", "tanh", "sigmoid"] = "linear"
    generator_normalization: Normalization = "none"  #: Normalization in the generator.
    discriminator_normalization: Normalization = "none"  #: Normalization in the discriminator.
    normalization_momentum: float = 0.9  #: Momentum of batch normalization's moving averages.
    generator_dropout: float = 0.0  #: Dropout rate in the generator.
    discriminator_dropout: float = 0.0  #: Dropout rate in the discriminator.

    # Fixed layers, for a training that starts from trained networks.

    generator_fixed: int = 0  #: Number of the generator's first layers that do not learn. Counts layers with weights.
    discriminator_fixed: int = 0  #: The same for the discriminator (FreezeD, Mo et al. 2020, arXiv:2002.10964).

    # Losses (see gan/losses.py) and penalties (see gan/adversary.py).

    loss: LossName = "relativistic"  #: Adversarial loss.
    label_smoothing: float = 0.0  #: The discriminator's target for real images is 1 − label_smoothing.
    gamma: float = 0.1  #: Weight γ of the R1 + R2 penalty (γ/2)·‖∇D‖² on real and generated images, at the first step.
    #: γ at the last step. γ falls along a cosine, as in R3GAN, so that the networks can learn fine detail at the end.
    gamma_end: float = 0.01
    #: Steps between two penalties. The penalty is multiplied by this number, so γ keeps its meaning.
    penalty_every: int = 2
    #: σ of the finite difference that estimates ‖∇D‖², in the units of pixels in [−1, 1].
    penalty_noise: float = 0.03
    gradient_penalty: float = 0.0  #: Weight λ of WGAN-GP's λ·(‖∇D‖ − 1)² between real and generated images.
    auxiliary_discriminator: float = 1.0  #: Weight of the class loss on real images.
    auxiliary_generator: float = 0.1  #: Weight of the class loss on generated images. Large values cost variety.

    # One step: updates of the discriminator, then updates of the generator.

    discriminator_steps: int = 1  #: Updates of the discriminator per step.
    generator_steps: int = 1  #: Updates of the generator per step.
    #: The discriminator takes one update on real images, then one on generated images, instead of one on both.
    separate_batches: bool = False
    shared_latents: bool = True  #: The generator's updates reuse the latents of the discriminator's updates.
    generator_predicts: bool = False  #: The generator runs in inference mode when the discriminator learns.
    #: What an update of the generator does to the discriminator's weights. ``frozen``: nothing. ``trained``: it updates
    #: them too. ``copied``: it updates a copy, which is then discarded.
    discriminator_in_chain: Literal["frozen", "trained", "copied"] = "frozen"
    #: Steps at the start in which only the discriminator learns. It catches up with a generator that has been trained
    #: already. Meanwhile its classifier learns from generated images too, because their classes are right.
    discriminator_head_start: int = 0
    #: Stop when the share of generated images that pass for real is within this distance of 0.5. 0: never.
    equilibrium: float = 0.0

    # Optimization.

    batch_size: int = 64  #: Real images per update.
    steps: int = 15_000  #: Training steps.
    optimizer: Literal["adam", "rmsprop"] = "adam"  #: Optimizer of both networks.
    learning_rate: float = 4e-4  #: The generator's learning rate at the first step.
    discriminator_learning_rate: float = 0.0  #: The discriminator's learning rate. 0: the generator's.
    #: Learning rate schedule. ``cosine`` falls to zero. ``inverse-time`` divides by 1 + decay · updates.
    schedule: Literal["cosine", "constant", "inverse-time"] = "cosine"
    decay: float = 0.0  #: Decay of the generator's inverse-time schedule.
    discriminator_decay: float = 0.0  #: Decay of the discriminator's inverse-time schedule.
    clip_value: float = 0.0  #: Largest absolute value of a gradient component. 0: no clipping.
    beta_1: float = 0.0  #: Adam's β₁.
    beta_2: float = 0.99  #: Adam's β₂.
    ema_images: int = 40_000  #: Half-life of the generator's averaged weights, in images. 0: no averaging.

    # Augmentation of all images that the discriminator sees (see gan/augmentation.py). Images are never flipped.

    augment_shift: int = 0  #: Largest shift in each direction, in pixels.
    augment_rotation: float = 0.0  #: Largest rotation in either direction, in degrees.
    augment_scale: float = 0.0  #: Largest change of size: 0.1 scales by a factor from 0.9 to 1.1.
    augment_cutout: int = 0  #: Side of the blanked square, in pixels. 0: none.

    # How the step is computed.

    #: Compile the step with XLA. None (written ``auto`` on the command line): only on a GPU. On a CPU, XLA was faster
    #: for dense networks and slower for convolutions and dropout.
    jit: bool | None = None
    #: Layers compute in bfloat16. Weights and exports stay float32. None (written ``auto``): only on a GPU. Processors
    #: without bfloat16 instructions are several times slower with it.
    bfloat16: bool | None = None

    # Progress.

    images_per_checkpoint: int = 64_000  #: Images between two checkpoints.
    images_per_sheet: int = 64_000  #: Images between two sample sheets, which become the frames of the GIF.

    def __post_init__(self) -> None:
        """Check the fields."""
        hints = typing.get_type_hints(Recipe)
        for field, value in dataclasses.asdict(self).items():
            hint = hints[field]
            if typing.get_origin(hint) is Literal:
                if value not in typing.get_args(hint):
                    raise InvalidInputError(f"{field} is {value!r}; expected {_any_of(typing.get_args(hint))}")
            elif hint in (int, float):
                _check_number(field, value)
        for field in ("generator_widths", "discriminator_widths"):
            widths = getattr(self, field)
            if any(width < 1 for width in widths):
                raise InvalidInputError(
                    f"{field} is {','.join(map(str, widths))}; expected whole numbers above 0, for example 256,512,1024"
                )
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.network == "convolutional" and not (len(self.generator_widths) > 2 and self.discriminator_widths):
            raise InvalidInputError(
                "a convolutional network needs at least three generator_widths and one of discriminator_widths; "
                "set for example generator_widths=256,128,64 and discriminator_widths=64,128"
            )
        if self.network == "residual":
            for field, order, example in (
                ("generator_widths", "quarter and half", "64,32"),
                ("discriminator_widths", "half and quarter", "32,64"),
            ):
                if len(widths := getattr(self, field)) not in {0, 2}:
                    raise InvalidInputError(
                        f"{field} is {','.join(map(str, widths))}; a residual network needs two numbers, the channels "
                        f"at {order} resolution, for example {example}; or none, to use width"
                    )
        if self.network == "dense" and "instance" in {self.generator_normalization, self.discriminator_normalization}:
            raise InvalidInputError(
                "instance normalization does not work with dense layers; set generator_normalization and "
                "discriminator_normalization to none, batch or spectral"
            )
        if self.clusters > 1 and not self.projection:
            raise InvalidInputError(
                f"clusters is {self.clusters} but conditioning is {self.conditioning}, so the discriminator cannot "
                "see them; set conditioning to projection or both, or clusters to 1"
            )
        if self.unlabeled and self.clusters == 1:
            raise InvalidInputError(
                "unlabeled is true but clusters is 1, so nothing takes the place of classes; set clusters to 64, or "
                "conditioning to none and unlabeled to false"
            )
        if self.loss == "relativistic" and self.separate_batches:
            raise InvalidInputError(
                "the relativistic loss compares real with generated images; set separate_batches to false"
            )
        if self.label_smoothing and self.loss not in {"minimax", "non-saturating", "least-squares"}:
            raise InvalidInputError(
                f"label_smoothing is {self.label_smoothing}, which the {self.loss} loss does not support; set it to 0"
            )

    @property
    def conditional(self) -> bool:
        """Whether the generator takes a class."""
        return self.conditioning != "none" and not self.unlabeled

    @property
    def projection(self) -> bool:
        """Whether the discriminator's score depends on the class, or on the cluster of an unlabeled image."""
        return self.conditioning in {"projection", "both"}

    @property
    def auxiliary(self) -> bool:
        """Whether the discriminator also classifies."""
        return self.conditioning in {"auxiliary", "both"}

    @property
    def images_per_step(self) -> int:
        """Real images shown to the discriminator per step."""
        return self.batch_size * self.discriminator_steps

    @property
    def steps_at_once(self) -> int:
        """Steps between two reports. With XLA they are one compiled call, and Ctrl-C takes effect after it.

        1 for a recipe with `equilibrium`, because any step may end its training.
        """
        return 1 if self.equilibrium else max(1, _REPORTED_IMAGES // self.images_per_step)

    def computed(self, *, on_gpu: bool) -> Recipe:
        """The recipe with `jit` and `bfloat16` set: if they are None, True on a GPU and False elsewhere."""
        return self.computed_like(dataclasses.replace(self, jit=on_gpu, bfloat16=on_gpu))

    def computed_like(self, other: Recipe) -> Recipe:
        """The recipe with `jit` and `bfloat16` taken from *other* where they are None."""
        undecided: dict[str, Any] = {
            field: getattr(other, field) for field in ("jit", "bfloat16") if getattr(self, field) is None
        }
        return dataclasses.replace(self, **undecided)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON-ready data."""
        values = dataclasses.asdict(self)
        return {field: list(value) if isinstance(value, tuple) else value for field, value in values.items()}


_MAY_BE_ZERO = {
    "gamma",
    "gamma_end",
    "gradient_penalty",
    "auxiliary_discriminator",
    "auxiliary_generator",
    "discriminator_head_start",
    "generator_fixed",
    "discriminator_fixed",
    "augment_shift",
    "augment_rotation",
    "augment_cutout",
    "discriminator_learning_rate",
    "decay",
    "discriminator_decay",
    "clip_value",
    "ema_images",
}
_SHARES = {
    "beta_1",
    "beta_2",
    "normalization_momentum",
    "generator_dropout",
    "discriminator_dropout",
    "label_smoothing",
    "augment_scale",
}


def _check_number(field: str, value: float) -> None:
    if field in _SHARES:
        if not 0 <= value < 1:
            raise InvalidInputError(f"{field} is {value}; expected 0 ≤ {field} < 1")
    elif field == "equilibrium":
        if not 0 <= value < 0.5:
            raise InvalidInputError(f"{field} is {value}; expected 0 ≤ {field} < 0.5")
    elif field in _MAY_BE_ZERO:
        if not 0 <= value < math.inf:
            raise InvalidInputError(f"{field} is {value}; expected a finite number, 0 or above")
    elif not 0 < value < math.inf:
        raise InvalidInputError(f"{field} is {value}; expected a finite number above 0")


def _any_of(words: Iterable[object]) -> str:
    *first, last = map(repr, words)
    return f"{', '.join(first)} or {last}"
