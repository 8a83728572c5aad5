"""Small files in the layouts of the real data sets, for the pipeline tests."""

import gzip
import struct
from pathlib import Path

import numpy as np

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "tree", "was", "big", "<unk>", "N"]


def sentences(count: int, seed: int) -> list[str]:
    """Sentences of 3 to 9 words; the first holds every word."""
    random = np.random.default_rng(seed)
    lines = [" ".join(random.choice(WORDS, random.integers(3, 10))) for _ in range(count - 1)]
    return [" ".join(WORDS[seed:] + WORDS[:seed]), *lines]


LINES = {"train": sentences(60, 0), "valid": sentences(12, 1), "test": sentences(15, 2)}


def word_file(lines: list[str]) -> bytes:
    """The layout of ptb.*.txt: a space before and after each sentence."""
    return "".join(f" {line} \n" for line in lines).encode()


def character_file(lines: list[str]) -> bytes:
    """The layout of ptb.char.*.txt."""
    spelt = ("".join(f"{c} " for c in line.replace(" ", "_")) for line in lines)
    return " \n ".join([*(s.rstrip(" ") for s in spelt), ""]).encode()


def word_count(lines: list[str]) -> int:
    return sum(len(line.split()) + 1 for line in lines)


def character_count(lines: list[str]) -> int:
    return sum(len(line) + 1 for line in lines)


def scored_ids(dataset) -> np.ndarray:
    """Targets of weight 1, in the order of the stream where there is one lane."""
    return np.concatenate([y.numpy()[weight.numpy() == 1] for _, y, weight in dataset])


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes an IDX file, gzipped where the name says so."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def images(count: int, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images whose first pixel is their number, and random labels."""
    random = np.random.default_rng(seed)
    x = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    x.reshape(count, -1)[:, 0] = np.arange(count) % 256
    return x, random.integers(0, 10, count, dtype=np.uint8)
