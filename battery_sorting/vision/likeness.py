"""How much pictures are alike in look and colours. numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEW_PIECES = 3.0
"""Length of rows of text by which they are taken for half as certain: a word or less."""
SMALL = 1e-6
"""Added to lengths, which may be zero, before anything is divided by them."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """Kernel ridge regression from pictures to their labels (Saunders et al. 1998), ready to be asked.

    Two pictures are `alike` by look and by colours. The first part is linear, so that it is kept as ``weight``.

    Attributes:
        mean: (d,) of unit embeddings.
        spread: (d,) of unit embeddings.
        weight: (d, L).
        reference: (m, k) `root_histogram` of the pictures that were learnt.
        factor: (m, L).
        bias: (L,).
        width: Of the Gaussian on colours, a number.
    """

    mean: np.ndarray
    spread: np.ndarray
    weight: np.ndarray
    reference: np.ndarray
    factor: np.ndarray
    bias: np.ndarray
    width: np.ndarray

    def to(self, embedding: np.ndarray, colour: np.ndarray) -> np.ndarray:
        """(n, L), about 1 for the right label and 0 for the others, of embeddings (n, d) and colours (n, k)."""
        look = standardised(embedding, self.mean, self.spread) @ self.weight
        colours = gaussian(root_histogram(colour), self.reference, float(self.width)) @ self.factor
        return np.asarray(look + colours + self.bias)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits (…, labels), without overflow."""
    grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=-1, keepdims=True))


def alike(rows: np.ndarray, reference: np.ndarray, width: float) -> np.ndarray:
    """Kernel (m, m) of what is learnt: cosine of `standardised` rows (m, d) plus `gaussian` of colours (m, k)."""
    return np.asarray(rows @ rows.T + gaussian(reference, reference, width))


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32."""
    rows = np.asarray(rows, np.float32)
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + SMALL))


def standardised(embedding: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Embeddings (n, d) scaled to length 1, each column centred and scaled, then to length 1 again."""
    return unit((unit(embedding) - mean) / spread)


def root_histogram(colour: np.ndarray) -> np.ndarray:
    """Square roots of histograms (n, k), scaled to length 1: their products are Bhattacharyya's coefficients."""
    return unit(np.sqrt(np.maximum(colour, 0.0)))


def weighted_text(text: np.ndarray, rarity: np.ndarray) -> np.ndarray:
    """Rows of `text_features` (n, h), pieces by their ``rarity`` (h,), of nearly length 1; less for few of them."""
    rows = np.asarray(text, np.float32) * rarity
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + FEW_PIECES))


def gaussian(rows: np.ndarray, reference: np.ndarray, width: float) -> np.ndarray:
    """exp(−|a − b|² / width) of unit rows (n, k) and (m, k)."""
    return np.asarray(np.exp((rows @ reference.T - 1.0) * np.float32(2.0 / width)))
