"""The training pictures that a new one is most like."""

from __future__ import annotations

import numpy as np
import pytest

from battery_sorting.core.errors import ModelError
from battery_sorting.vision.gallery import Gallery


def gallery(count=5, size=8):
    embedding = np.random.default_rng(0).normal(size=(count, size))
    numbers = range(count)
    return Gallery(embedding, ["A"] * count, [f"A/{n}.jpg" for n in numbers], [f"{n:064x}" for n in numbers])


def test_nearest_are_the_most_similar_first():
    known = Gallery(np.array([[2.0, 0], [0, 1], [1, 1]]), "ABC", ["A/1", "B/1", "C/1"], ["a", "b", "c"])
    found = known.nearest(np.array([3.0, 0.1]), k=2)
    assert [(each.name, each.label, each.sha256) for each in found] == [("A/1", "A", "a"), ("C/1", "C", "c")]
    assert found[0].cosine == pytest.approx(3 / np.hypot(3, 0.1))


def test_more_neighbours_than_there_are_pictures_gives_all():
    assert len(gallery(3).nearest(np.ones(8), k=10)) == 3


def test_a_saved_gallery_is_read_back_and_is_the_same_file_each_time(tmp_path):
    written = gallery()
    for name in ("one.npz", "two.npz"):
        written.save(tmp_path / name)
    read = Gallery.load(tmp_path / "one.npz")
    assert (read.name, read.label, read.sha256) == (written.name, written.label, written.sha256)
    assert np.allclose(read.embedding, written.embedding, atol=2e-3)
    assert np.allclose(np.linalg.norm(read.embedding, axis=1), 1, atol=1e-6)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_an_embedding_of_another_network_is_refused():
    with pytest.raises(ValueError, match="not of one training"):
        gallery(size=8).nearest(np.ones(9))


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="one of each per picture"):
        Gallery(np.ones((2, 3)), ["A"], ["A/1", "A/2"], ["", ""])


def test_a_zero_vector_is_near_to_nothing():
    assert all(each.cosine == 0 for each in gallery().nearest(np.zeros(8)))


def test_unreadable_galleries_are_named(tmp_path):
    path = tmp_path / "gallery.npz"
    with pytest.raises(ModelError, match=r"gallery\.npz.*No such file.*train the model again"):
        Gallery.load(path)
    path.write_bytes(b"not an archive")
    with pytest.raises(ModelError, match=r"gallery\.npz.*is no gallery"):
        Gallery.load(path)
    np.savez(path, embedding=np.ones((1, 2)), label=["A"], name=["A/1"])
    with pytest.raises(ModelError, match=r"gallery\.npz.*sha256"):
        Gallery.load(path)
    gallery().save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelError, match=r"gallery\.npz"):
        Gallery.load(path)
