"""Networks: encoder block, encoder and heads around any recurrent layer."""

from lru.models.body import BODIES, Body, make_body, resolve_body
from lru.models.cells import Cells
from lru.models.classifier import Classifier
from lru.models.config import ModelConfig
from lru.models.encoder import Block, Encoder
from lru.models.encoder_decoder import EncoderDecoder
from lru.models.language_model import LanguageModel, LanguageModelOptions
from lru.models.network import MODELS, NETWORKS, Network
from lru.models.quantum_rnn import QuantumRNN
from lru.models.two_tower import TwoTower
from lru.models.vector_sum import VectorSum

__all__ = [
    "BODIES",
    "MODELS",
    "NETWORKS",
    "Block",
    "Body",
    "Cells",
    "Classifier",
    "Encoder",
    "EncoderDecoder",
    "LanguageModel",
    "LanguageModelOptions",
    "ModelConfig",
    "Network",
    "QuantumRNN",
    "TwoTower",
    "VectorSum",
    "make_body",
    "resolve_body",
]
