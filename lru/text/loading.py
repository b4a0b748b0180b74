"""The model of a run on a text."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Int

from lru.dataloaders import Card, dataset_from_options
from lru.dataloaders.sets.corpora import Corpus, boundary
from lru.experiment import Trained, load_model
from lru.models import LanguageModel
from lru.models.generation import encode_prompt
from lru.tasks.language_modelling import LanguageModelling
from lru.training.runs import Run


class TrainedText(NamedTuple):
    """A language model, and what its tokens are.

    Attributes:
        model: with the parameters of the best checkpoint.
        task: that it learned.
        trained: the rest.
    """

    model: LanguageModel
    task: LanguageModelling
    trained: Trained

    @property
    def card(self) -> Card:
        """Of the text."""
        return self.trained.data.card

    @property
    def vocabulary(self) -> list[str]:
        """Tokens by id."""
        return self.card.vocabulary or []

    def encode(self, tokens: Sequence[str]) -> Int[np.ndarray, "1 T"]:
        """Ids that the model reads for the tokens of a text: what stands before it, then their own.

        Raises:
            ValueError: naming the tokens that are not in the vocabulary.
        """
        ids = {token: number for number, token in enumerate(self.vocabulary)}
        return np.concatenate([[self.boundary], encode_prompt(tokens, ids)])[None]

    @property
    def boundary(self) -> int:
        """The id of what stands before a text."""
        return boundary(self.vocabulary)

    @property
    def corpus(self) -> Corpus:
        """The data set, which cuts texts into tokens.

        Raises:
            ValueError: if it does not.
        """
        data = self.trained.config.data
        found = dataset_from_options(data.dataset, data.data_options)
        if not isinstance(found, Corpus):
            raise ValueError(
                f"{data.dataset} must extend lru.dataloaders.Characters or Words, which cut texts "
                f"into tokens and join them, but is a {type(found).__name__}"
            )
        return found


def load_text(run: Run, lane: int = 0, plugins: str | Sequence[str] | None = None) -> TrainedText:
    """Read the best checkpoint of a lane of a run; see `load_model`.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the run is not one of language modelling.
    """
    trained = load_model(run, lane, plugins)
    if not isinstance(trained.task, LanguageModelling):
        raise ValueError(
            f"the run must be one on a text (a data set of kind text), but {run.path} "
            f"is on {trained.data.card.name}"
        )
    return TrainedText(cast(LanguageModel, trained.model), trained.task, trained)
