"""How numbers stand in the 16-bit registers of a Modbus map: 32-bit values with the high word first."""

from __future__ import annotations


def to_words(value: int) -> tuple[int, int]:
    """High and low word of an unsigned 32-bit value."""
    return (value >> 16) & 0xFFFF, value & 0xFFFF


def to_signed(word: int) -> int:
    """Signed 16-bit value of a register."""
    return word - 0x10000 if word & 0x8000 else word


def to_int(words: list[int], offset: int) -> int:
    """Unsigned 32-bit value that starts at ``words[offset]``."""
    return (words[offset] << 16) | words[offset + 1]
