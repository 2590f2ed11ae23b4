"""Tokenizers of words, bytes, byte pairs, or a user's own, as a ``tokenizer.json``.

Each is a ``Tokenizer`` of the ``tokenizers`` library. Token 0 is padding. The
vocabulary is built from the training split alone, and the same texts give the same file.

Sources: byte-pair encoding, Sennrich et al. 2016; over bytes, Radford et al. 2019.

Shape legend: N texts, T tokens.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nas.core.names import first_line
from search_spaces.workload import PADDING_TOKEN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Tokens = Literal["word", "byte", "bpe"]
TOKENS: tuple[Tokens, ...] = get_args(Tokens)
UNKNOWN_TOKEN = PADDING_TOKEN + 1
N_BYTES = 256
# A word that occurs once stays unknown: it generalises to nothing, and the unknown token must
# occur in training.
MIN_COUNT = 2
_MAX_FILE_BYTES = 64_000_000
# Growth of a text in a normalizer: ligatures and emoji become a dozen characters.
_MOST_GROWTH = 1000
_LARGEST_VOCABULARY = 2**24
# Texts that are encoded at a time.
_AT_A_TIME = 4096
# Names with spaces, which no word or byte has.
_RESERVED = {"< padding >": PADDING_TOKEN, "< unknown >": UNKNOWN_TOKEN}


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Encodes texts into rows of ``sequence_length`` tokens, cut or padded.

    ``shift`` is added to the tokenizer's numbers, so that none is the padding token.
    ``padding_token`` fills rows up. ``prefix`` is put before each text.
    """

    tokenizer: Tokenizer
    sequence_length: int
    shift: int
    padding_token: int = PADDING_TOKEN
    prefix: str = ""

    @property
    def vocab_size(self) -> int:
        """One more than the largest token."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1 + self.shift

    def encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Encode ``texts`` into tokens ``(N, T)``.

        Raises:
            ValueError: the user's tokenizer fails on a text.
        """
        return self.encode_measured(texts)[0]

    def encode_measured(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As ``encode``, and the number of tokens of each text before it is cut ``(N,)``.

        Raises:
            ValueError: as ``encode``.
        """
        tokens_NT = np.full((len(texts), self.sequence_length), self.padding_token, np.int64)
        lengths_N = np.zeros(len(texts), np.int64)
        for start in range(0, len(texts), _AT_A_TIME):
            part = [f"{self.prefix}{text}" for text in texts[start : start + _AT_A_TIME]]
            try:
                found = self.tokenizer.encode_batch(part)
            except BaseException as error:
                raise _refused(error, "the tokenizer must be able to cut every text") from None
            for row, encoding in enumerate(found, start):
                ids = encoding.ids[: self.sequence_length]
                tokens_NT[row, : len(ids)] = np.asarray(ids, dtype=np.int64) + self.shift
                rest = sum(len(piece.ids) for piece in encoding.overflowing)
                lengths_N[row] = len(encoding.ids) + rest
        return tokens_NT, lengths_N

    def encode_whole(
        self, texts: Iterable[str]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield all tokens of each text ``(T,)``, and the number of bytes up to each ``(T,)``.

        A character of several tokens is counted with the first of them.

        Raises:
            ValueError: the user's tokenizer fails on a text.
        """
        tokenizer = self._without_truncation()
        for text in texts:
            try:
                found = tokenizer.encode(text, add_special_tokens=False)
            except BaseException as error:
                raise _refused(error, "the tokenizer must be able to cut every text") from None
            ids = np.asarray(found.ids, dtype=np.int64) + self.shift
            characters = np.array([end for _, end in found.offsets], dtype=np.int64)
            yield ids, _bytes_up_to(text)[np.maximum.accumulate(characters)]

    def gives_back(self, text: str, tokens_T: NDArray[np.int64]) -> bool:
        """Whether ``tokens_T`` decode to exactly ``text``."""
        return self.decode(tokens_T.tolist()) == text

    def decode(self, tokens: Sequence[int]) -> str:
        """Decode tokens; bytes that are not UTF-8 become replacement characters."""
        ids = [token - self.shift for token in tokens]
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def _without_truncation(self) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.to_json())
        tokenizer.no_truncation()
        return tokenizer

    def decode_rows(self, tokens_NT: NDArray[np.int64]) -> list[str]:
        """Decode rows of tokens, without padding and special tokens."""
        rows = [[int(t) - self.shift for t in row if t != self.padding_token] for row in tokens_NT]
        return list(self.tokenizer.decode_batch(rows))

    def to_json(self) -> str:
        """Return the ``tokenizer.json``; ``from_json`` reads it back."""
        return str(self.tokenizer.to_str())

    @classmethod
    def from_json(cls, text: str, sequence_length: int, *, shift: int, where: str) -> TextEncoder:
        """Make the encoder of an untrusted ``tokenizer.json``.

        Raises:
            ValueError: it is invalid; the message begins with ``where``.
        """
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(text)
            # Its own truncation keeps special tokens.
            tokenizer.enable_truncation(max_length=sequence_length)
            tokenizer.no_padding()
            ids = tokenizer.get_vocab(with_added_tokens=True).values()
        except BaseException as error:
            raise _refused(error, f"{where} must be a tokenizer.json") from None
        # The growth of steps multiplies: ten of them make gigabytes.
        growth = _growth(json.loads(text).get("normalizer"))
        if growth > _MOST_GROWTH:
            raise ValueError(
                f"{where} must have a normalizer that makes texts at most {_MOST_GROWTH} times "
                f"as long, and claims {growth:,.0f}"
            )
        if not ids:
            raise ValueError(f"{where} must have a vocabulary, and it is empty")
        if max(ids) >= _LARGEST_VOCABULARY:
            raise ValueError(f"{where} must have tokens below {_LARGEST_VOCABULARY}")
        return cls(tokenizer, sequence_length, shift)


def _growth(step: Any) -> float:
    """Largest factor by which a normalizer step lengthens a text."""
    if not isinstance(step, dict):
        return 1.0
    if isinstance(step.get("normalizers"), list):
        return math.prod(map(_growth, step["normalizers"]))
    added = step.get("content")
    pattern = step.get("pattern")
    # A regular expression may match between any two letters.
    replaced = pattern.get("String") if isinstance(pattern, dict) else None
    if not isinstance(added, str) or step.get("type") != "Replace":
        return 1.0
    return max(1.0, len(added) / len(replaced) if replaced else 1.0 + len(added))


def read_tokenizer(path: Path, sequence_length: int, shift: object = 1) -> TextEncoder:
    """Read the encoder of a ``tokenizer.json`` whose numbers are shifted by 0 or 1.

    Raises:
        ValueError: the file cannot be read or is invalid, or the shift is another.
    """
    if shift not in (0, 1):
        raise ValueError(f"shift beside {path} must be 0 or 1, got {shift!r}")
    try:
        size = path.stat().st_size
        if size > _MAX_FILE_BYTES:
            raise ValueError(f"{path} must have at most {_MAX_FILE_BYTES} bytes, got {size}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} must be readable: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} must be UTF-8 text") from None
    return TextEncoder.from_json(text, sequence_length, shift=int(shift == 1), where=str(path))


def check_numbers_kept(options: Any) -> None:
    """Check ``padding_token`` and ``vocab_size`` of a task file, which keep a tokenizer's numbers.

    Raises:
        ValueError: there is no tokenizer, or a number is out of range.
    """
    padding, size = getattr(options, "padding_token", None), options.vocab_size
    for name, value, least in (("padding_token", padding, 0), ("vocab_size", size, 1)):
        if value is None:
            continue
        if options.tokenizer is None:
            raise ValueError(f"{name} must have a tokenizer, got none")
        if type(value) is not int or not least <= value <= _LARGEST_VOCABULARY:
            raise ValueError(
                f"{name} must be an integer in {least}..{_LARGEST_VOCABULARY}, got {value!r}"
            )
    if hasattr(options, "padding_token"):
        if size is not None and padding is None:
            raise ValueError("vocab_size must have a padding_token, got none")
        if size is not None and padding is not None and padding >= size:
            raise ValueError(f"padding_token must be below vocab_size {size}, got {padding}")


def check_tokens_fit(encoder: TextEncoder, vocab_size: int | None, path: Path) -> None:
    """Raise ``ValueError`` if the tokenizer at ``path`` has tokens past ``vocab_size``."""
    if vocab_size is not None and encoder.vocab_size > vocab_size:
        raise ValueError(
            f"vocab_size must be at least that of {path}, {encoder.vocab_size}, got {vocab_size}"
        )


def learn_tokenizer(
    tokens: Tokens,
    texts: Iterable[str],
    sequence_length: int,
    *,
    max_vocabulary: int,
    lowercase: bool,
    word_letters: int | None = None,
) -> TextEncoder:
    """Learn an encoder from ``texts`` of the training split.

    ``max_vocabulary`` includes padding and unknown. Words are cut after ``word_letters``.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    if tokens == "word":
        words = _frequent_words(
            texts, max_vocabulary - len(_RESERVED), lowercase=lowercase, letters=word_letters
        )
        vocabulary = _RESERVED | {word: i for i, word in enumerate(words, len(_RESERVED))}
        unknown = next(name for name, token in _RESERVED.items() if token == UNKNOWN_TOKEN)
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        merges: list[tuple[str, str]] = []
        vocabulary = _RESERVED | {
            character: i for i, character in enumerate(_byte_characters(), len(_RESERVED))
        }
        if tokens == "bpe":
            vocabulary, merges = _pairs(texts, vocabulary, max_vocabulary, lowercase=lowercase)
        tokenizer = Tokenizer(models.BPE(vocabulary, merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
            add_prefix_space=False, use_regex=tokens == "bpe"
        )
        tokenizer.decoder = decoders.ByteLevel()
    steps: list[Any] = [normalizers.Lowercase()] if lowercase else []
    if tokens == "word" and word_letters is not None:
        steps.append(normalizers.Replace(Regex(rf"(?<=\S{{{word_letters}}})\S+"), ""))
    if steps:
        tokenizer.normalizer = steps[0] if len(steps) == 1 else normalizers.Sequence(steps)
    tokenizer.enable_truncation(max_length=sequence_length)
    return TextEncoder(tokenizer, sequence_length, shift=0)


def learn_characters(texts: Iterable[str], sequence_length: int, most: int) -> TextEncoder:
    """Learn an encoder of single characters, the ``most`` frequent with padding and unknown."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    counts = Counter(char for text in texts for char in text)
    frequent = sorted(counts, key=lambda char: (-counts[char], char))[: most - len(_RESERVED)]
    vocabulary = _RESERVED | {char: i for i, char in enumerate(frequent, len(_RESERVED))}
    unknown = next(name for name, token in _RESERVED.items() if token == UNKNOWN_TOKEN)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.enable_truncation(max_length=sequence_length)
    return TextEncoder(tokenizer, sequence_length, shift=0)


def least_vocabulary(tokens: Tokens) -> int:
    """Smallest ``max_vocabulary`` of such tokens."""
    return len(_RESERVED) + (1 if tokens == "word" else N_BYTES)


def _frequent_words(
    texts: Iterable[str], most: int, *, lowercase: bool, letters: int | None
) -> list[str]:
    """The most frequent words; ties are in alphabetical order, so that runs agree."""
    counts = Counter(
        word[:letters] for text in texts for word in (text.lower() if lowercase else text).split()
    )
    frequent = [word for word in counts if counts[word] >= MIN_COUNT]
    frequent.sort(key=lambda word: (-counts[word], word))
    return frequent[:most]


def _byte_characters() -> list[str]:
    """The character by which the library represents each byte, in order.

    Printable ones of Latin-1 represent themselves, others are numbered from 256 on.
    """
    plain = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(N_BYTES) if byte not in plain]
    return [
        chr(byte if byte in plain else N_BYTES + others.index(byte)) for byte in range(N_BYTES)
    ]


def _pairs(
    texts: Iterable[str], base: dict[str, int], most: int, *, lowercase: bool
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary of bytes and their most frequent pairs in ``texts``, and the merges."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if lowercase:
        learner.normalizer = normalizers.Lowercase()
    trainer = trainers.BpeTrainer(
        vocab_size=most - len(_RESERVED),
        min_frequency=MIN_COUNT,
        initial_alphabet=_byte_characters(),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    stored = json.loads(learner.to_str())["model"]["merges"]
    merges = [(str(left), str(right)) for left, right in stored]
    vocabulary = dict(base)
    for left, right in merges:
        # Two pairs may make the same token.
        vocabulary.setdefault(left + right, len(vocabulary))
    return vocabulary, merges


def _bytes_up_to(text: str) -> NDArray[np.int64]:
    """UTF-8 bytes of the first 0, 1, 2, ... characters of ``text``."""
    if text.isascii():
        return np.arange(len(text) + 1, dtype=np.int64)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    sizes = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    return np.concatenate([[0], np.cumsum(sizes)])


def _refused(error: BaseException, what: str) -> BaseException:
    """Translate an error of the library, whose panics are no ``Exception``."""
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | MemoryError):
        return error
    return ValueError(f"{what}: {first_line(error)}")
