"""Body of plain cells, one on another, as in AWD-LSTM (arXiv 1708.02182, section 2)."""

from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer, Key

from lru.layers import LAYERS, layer_options, resolve_options
from lru.layers.base import State
from lru.layers.cell import CellLayer
from lru.layers.dropout import drop_features
from lru.layers.stack import CellStack
from lru.models.body import BODIES, Body, BodyOptions, narrowed
from lru.models.config import ModelConfig, check_rates


def cell_of(model: str) -> type[CellLayer] | None:
    """The cell of a layer that gives out its state; None for other layers."""
    layer: Any = LAYERS[model]
    kinds = layer.__subclasses__() if issubclass(layer, CellLayer) else []
    return next((kind for kind in kinds if not kind.reads_out), None)


@dataclass(frozen=True)
class CellsOptions(BodyOptions):
    """Options of a body of cells."""

    dense: bool = False
    """Dense connections: each cell also reads the input of the one below it."""
    p_hidden: float = 0.0
    """Dropout rate between the cells."""
    p_weight: float = 0.0
    """Weight dropout (DropConnect) of the recurrent weights, or of the kernels of a qrnn."""
    first_window: int | None = None
    """Window of the first cell of a qrnn, if it is not that of the others."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        super().__post_init__()
        check_rates(self, "p_hidden", "p_weight")


@BODIES.register("cells")
class Cells(CellStack, Body):
    """Plain stack of cells without norms and residuals: N wide, the last one D wide.

    Attributes:
        p_output: dropout rate of the outputs, for those who read them.
    """

    Options = CellsOptions

    def __init__(self, config: ModelConfig, options: CellsOptions | None = None, *, rngs: nnx.Rngs):
        """Build the cells; see `Body`.

        Raises:
            ValueError: if an option does not fit the layer.
        """
        options = options or CellsOptions()
        cell = cell_of(config.model)
        assert cell is not None, "refused by `suits`"
        of_layer = resolve_options(config.model, options.of_layer(config))
        if options.first_window is not None:
            if "window" not in layer_options(LAYERS[config.model]):
                raise ValueError(
                    f"first_window must be None for model {config.model!r}, which has no window, "
                    f"got {options.first_window}"
                )
            others = [of_layer["window"]] * (config.n_layers - 1)
            of_layer["window"] = [options.first_window, *others]
        super().__init__(
            cell,
            config.d_model,
            [config.d_hidden] * (config.n_layers - 1) + [config.d_model],
            dense=options.dense,
            dropout=options.p_hidden,
            weight_dropout=options.p_weight,
            locked_dropout=config.locked_dropout,
            rngs=rngs,
            **of_layer,
        )
        self.p_output, self.narrow = config.p_dropout, options.narrow

    @classmethod
    def suits(cls, model: str) -> bool:
        """True for layers with a cell."""
        return cell_of(model) is not None

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: list[State] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], list[State]]:
        """Run all cells; as `Body.__call__`. `train` has no meaning here."""
        del train
        return super().__call__(x, state, lengths=lengths, resets=resets, key=key)

    def _run(self, x: Float[Array, "B T D"], *arguments: Any) -> tuple[Array, list[State]]:
        y, state = super()._run(narrowed(x, self.narrow), *arguments)
        return y.astype(x.dtype), state

    def drop_outputs(
        self, x: Float[Array, "B T D"], key: Key[Array, ""] | None
    ) -> Float[Array, "B T D"]:
        """Dropout of the outputs of the last cell."""
        if key is None:
            return x
        mask_key = jax.random.fold_in(key, len(self.cells))
        return drop_features(x, self.p_output, mask_key, locked=self.locked_dropout)
