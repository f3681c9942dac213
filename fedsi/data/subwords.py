"""Sub-word vocabularies, using Hugging Face ``tokenizers``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fedsi.data.protocol import FIRST_WORD, OOV, SPECIAL_TOKENS
from fedsi.errors import UserError
from fedsi.extras import optional
from fedsi.files import read_text

TOKENIZER_FILE = "tokenizer.json"
BYTES = 256
"""Number of tokens for single bytes, with which no text is out of the vocabulary."""


class SubwordVocabulary:
    """A vocabulary of sub-words. The tokenizer's ids follow the protocol's four special tokens.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``.
    """

    file_name = TOKENIZER_FILE

    def __init__(self, tokenizer: Any) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._unknown = _unknown_token(tokenizer)

    @classmethod
    def from_text(cls, text: str) -> "SubwordVocabulary":
        """Make a vocabulary from the content of a ``tokenizer.json``.

        Raises:
            ValueError: The text is not a tokenizer.
            UserError: The package tokenizers is not installed.
        """
        tokenizers = optional("tokenizers", "subwords")
        try:
            return cls(tokenizers.Tokenizer.from_str(text))
        except Exception as error:  # the package raises nothing more precise
            raise ValueError(f"it is no tokenizer ({error})") from None

    @classmethod
    def from_file(cls, path: Path) -> "SubwordVocabulary":
        """Read a ``tokenizer.json``.

        Raises:
            UserError: The file is missing or not a tokenizer, or the package is not installed.
        """
        try:
            return cls.from_text(read_text(path))
        except OSError as error:
            raise UserError(f"cannot read the tokenizer {path}: {error.strerror}") from None
        except ValueError as error:
            raise UserError(f"cannot read the tokenizer {path}: {error}") from None

    @classmethod
    def trained(cls, texts: Iterator[str], size: int) -> "SubwordVocabulary":
        """Train byte-level byte-pair encoding (Sennrich et al. 2016; bytes as in GPT-2).

        Texts are normalised to NFC, so that accents always give the same sub-words.

        Args:
            texts: Texts of training clients only.
            size: Number of sub-words, at least ``BYTES``; fewer if the texts have no more pairs.

        Raises:
            UserError: The size is below ``BYTES``, or the package tokenizers is not installed.
        """
        if size < BYTES:
            raise UserError(
                f"data.vocabulary_size = {size} is too small for data.vocabulary = 'bpe': a "
                f"byte-level vocabulary holds all {BYTES} bytes"
            )
        tokenizers = optional("tokenizers", "subwords")
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.normalizer = tokenizers.normalizers.NFC()
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            show_progress=False,
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    def __len__(self) -> int:
        # A tokenizer from a file may skip ids, so its number of tokens may be less.
        return FIRST_WORD + 1 + max(self._tokenizer.get_vocab().values(), default=-1)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text's sub-words."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text's sub-words.

        Raises:
            UserError: The tokenizer has no token, not even an unknown one, for some text.
        """
        sound = [text.encode("utf-8", "replace").decode() for text in texts]
        try:
            encodings = self._tokenizer.encode_batch_fast(sound, add_special_tokens=False)
        except Exception as error:  # the package raises nothing more precise
            raise UserError(
                f"the tokenizer cannot encode a text ({error}); use one with an unknown token"
            ) from None
        return [
            [OOV if piece == self._unknown else FIRST_WORD + piece for piece in encoding.ids]
            for encoding in encodings
        ]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of some ids, without the protocol's special tokens."""
        pieces = [token - FIRST_WORD for token in tokens if token >= FIRST_WORD]
        return str(self._tokenizer.decode(pieces)).strip()

    def continuation(self, before: Sequence[int], token: int) -> str:
        """Return the text that one more id adds, with the space that begins a word."""
        pieces = [id_ - FIRST_WORD for id_ in before if id_ >= FIRST_WORD]
        start = str(self._tokenizer.decode(pieces))
        return str(self._tokenizer.decode([*pieces, token - FIRST_WORD]))[len(start) :]

    def names(self) -> Sequence[str]:
        """Return the piece of each id, the names of the special tokens first."""
        pieces = (self._tokenizer.id_to_token(id_) for id_ in range(len(self) - FIRST_WORD))
        gaps = (piece or f"<no token {number}>" for number, piece in enumerate(pieces))
        return (*SPECIAL_TOKENS, *gaps)

    def file_text(self) -> str:
        """Return the content of its ``tokenizer.json``."""
        return str(self._tokenizer.to_str())


def _unknown_token(tokenizer: Any) -> int | None:
    name = getattr(tokenizer.model, "unk_token", None)
    return tokenizer.token_to_id(name) if name else None
