"""The training pictures as the network sees them: to show which of them a new picture is most like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from battery_sorting.core.errors import ModelError
from battery_sorting.vision.arrays import read_arrays

GALLERY_FILE = "gallery.npz"
_KEYS = ("embedding", "label", "name", "sha256")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training picture: ``name`` is FOLDER/FILE, ``cosine`` (-1..1) how like the asked one it is."""

    name: str
    label: str
    cosine: float
    sha256: str


class Gallery:
    """Embeddings of the training pictures, with their names and labels.

    Args:
        embedding: (n, d); brought to unit length.
        label: Type of each picture, n of them.
        name: FOLDER/FILE of each picture.
        sha256: Of each picture's bytes, in hex.

    Raises:
        ValueError: The four don't have one entry per picture each.
    """

    def __init__(
        self, embedding: np.ndarray, label: Sequence[str], name: Sequence[str], sha256: Sequence[str]
    ) -> None:
        embedding = np.asarray(embedding, np.float32)
        if embedding.ndim != 2 or not len(embedding) == len(label) == len(name) == len(sha256):
            raise ValueError(
                f"gallery: embedding {embedding.shape}, {len(label)} labels, {len(name)} names, {len(sha256)} "
                "hashes; give one of each per picture"
            )
        self.embedding = unit_length(embedding)
        self.label = [str(text) for text in label]
        self.name = [str(text) for text in name]
        self.sha256 = [str(text) for text in sha256]

    def __len__(self) -> int:
        return len(self.name)

    @classmethod
    def load(cls, path: Path) -> Gallery:
        """Read a gallery.

        Raises:
            ModelError: The file is missing, damaged or lacks an array; file, key and remedy are named.
        """
        remedy = "restore the file or train the model again"
        try:
            return cls(*read_arrays(path, _KEYS).values())  # type: ignore[arg-type]  # arrays of strings
        except ValueError as error:
            raise ModelError(f"{path}: is no gallery ({error}); {remedy}") from error

    def save(self, path: Path) -> None:
        """Write the gallery; the same gallery gives the same bytes. Embeddings are kept in half precision."""
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                embedding=self.embedding.astype(np.float16),
                label=np.array(self.label, dtype=np.str_),
                name=np.array(self.name, dtype=np.str_),
                sha256=np.array(self.sha256, dtype=np.str_),
            )

    def nearest(self, embedding: np.ndarray, k: int = 5) -> list[Neighbour]:
        """The ``k`` training pictures that are most like one with this embedding (d,), the most similar first.

        Raises:
            ValueError: An embedding of another length.
        """
        query = np.asarray(embedding, np.float32)
        if query.shape != self.embedding.shape[1:]:
            raise ValueError(
                f"gallery: an embedding of shape {query.shape} can't be compared with those of shape "
                f"{self.embedding.shape[1:]}; gallery and network are not of one training"
            )
        cosine = self.embedding @ unit_length(query)
        order = np.argsort(-cosine, kind="stable")[:k]
        return [Neighbour(self.name[i], self.label[i], float(cosine[i]), self.sha256[i]) for i in order]


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Vectors (…, d) divided by their length; a zero vector stays one."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, np.finfo(np.float32).tiny))
