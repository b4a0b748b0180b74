"""Networks: encoder block, encoder and heads around any recurrent layer."""

from lru.models.classifier import Classifier
from lru.models.config import ModelConfig
from lru.models.encoder import Block, Encoder
from lru.models.language_model import LanguageModel, LanguageModelOptions
from lru.models.two_tower import TwoTower

__all__ = [
    "Block",
    "Classifier",
    "Encoder",
    "LanguageModel",
    "LanguageModelOptions",
    "ModelConfig",
    "TwoTower",
]
