"""From rows of a table to what a language model is scored on: documents, completions, conversations, questions."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from merging.data.passages import Coded, Passage, coded, divided, windows
from merging.errors import TaskError, raised, showable, unknown
from merging.values.wording import plural

AT_ONCE = 1000
"""Texts that go to the tokenizer together."""
LETTERS_AT_ONCE = 1_000_000
"""Characters that go to the tokenizer together: it keeps a hundred bytes for each token meanwhile."""
MOST_CHOICES = 1 << 15
"""Choices of a question, whose numbers are kept in 16 bits."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
T = TypeVar("T")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class LanguageSource(Protocol):
    """A source of causal language models, see :class:`merging.models.causal.TransformersCausal`."""

    spec: str

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, as transformers has it."""

    @property
    def context(self) -> int:
        """Tokens that the model reads at once."""

    @property
    def padding(self) -> int:
        """An id that fills short rows up."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A set of texts, as the user says it is to be read.

    Attributes:
        where: the set, for messages.
        first: number of its first row in messages.
        context: tokens that a row may have before the last one.
        stride: tokens by which a window moves on.
        template: what a question becomes, with ``{question}``.
        length: what a choice's log-likelihood is divided by: none, characters, bytes or tokens.
        prefix: whether a beginning token stands before each document, so that its first token is scored, too.
    """

    where: str
    first: int = 1
    context: int
    stride: int
    template: str = "Question: {question}\nAnswer:"
    length: str = "none"
    prefix: bool = False

    def row(self, place: int) -> str:
        """Names a row in messages."""
        return f"{self.where}: row {place + self.first}"


@dataclass
class Reading(ABC):
    """Reads the samples of one kind.

    Attributes:
        source: the model's, with its tokenizer.
        wanted: what the user says.
        notes: what the user should know, a line each; complete once all samples are read.
    """

    source: LanguageSource
    wanted: Wanted
    notes: list[str] = field(default_factory=list)

    @abstractmethod
    def passages(self, rows: Sequence[Any]) -> Iterator[Passage]:
        """Reads the samples, in the order of their rows.

        Raises:
            TaskError: a row from which nothing can be scored; its number is said.
        """

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Turns texts into token ids.

        Raises:
            TaskError: the tokenizer fails, or gives an id that the model has no row for.
        """
        found, begin, letters = list[list[int]](), 0, 0
        for end, text in enumerate(texts, 1):
            letters += len(text)
            if letters > LETTERS_AT_ONCE or end == len(texts):
                found += self._encode(texts[begin:end], special)
                begin, letters = end, 0
        return found

    def _encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        tokenizer = self.source.tokenizer
        try:
            found = tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)
        except Exception as error:  # a damaged tokenizer raises whatever it provokes
            if (half := next((text for text in texts if not _is_unicode(text)), None)) is not None:
                raise TaskError(
                    f"{self.wanted.where}: '{showable(half[:60])}' is no text: half of a surrogate pair is in it"
                ) from None
            raise TaskError(f"{self.wanted.where}: {self.source.spec} cannot tokenize it ({raised(error)})") from None
        read: list[list[int]] = found["input_ids"]
        return read

    @property
    def beginning(self) -> int:
        """The token that stands before a text that has no context.

        Raises:
            TaskError: the tokenizer has none.
        """
        tokenizer = self.source.tokenizer
        for known in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            if known is not None:
                return int(known)
        raise TaskError(f"{self.source.spec}: its tokenizer has no token for the beginning of a text (bos or eos)")

    def fitting(self, context: Sequence[int], scored: Sequence[int], place: int) -> Coded:
        """A row of context and of tokens that are scored; what is too long is cut off on the left.

        Raises:
            TaskError: nothing is scored, or more than the model reads.
        """
        if not scored:
            raise TaskError(f"{self.wanted.row(place)} has nothing to score: what follows the prompt is empty")
        if len(scored) > self.wanted.context:
            raise TaskError(
                f"{self.wanted.row(place)}: {len(scored):,} tokens are to be scored, and the model reads "
                f"{self.wanted.context:,} at once; shorten it, or give it as 'text', which goes by windows"
            )
        before = list(context) or [self.beginning]
        kept = before[-(self.wanted.context + 1 - len(scored)) :]
        self._cut += len(kept) < len(before)
        return coded([*kept, *scored], slice(len(kept), None))

    _cut: int = 0

    def said(self) -> list[str]:
        """Lists what the user should know, once all samples are read."""
        longer = (
            "row is longer than the model reads; its beginning is"
            if self._cut == 1
            else ("rows are longer than the model reads; their beginnings are")
        )
        cut = [f"{self._cut:,} {longer} cut off"]
        return [*self.notes, *(cut if self._cut else [])]


class Documents(Reading):
    """Texts, of which every token but the first is scored."""

    def passages(self, rows: Sequence[str]) -> Iterator[Passage]:
        """Reads documents; long ones go by windows."""
        wanted, several, parts = self.wanted, 0, 0
        for batch in _numbered(rows, AT_ONCE):
            for (place, text), ids in zip(batch, self.encode([text for _, text in batch]), strict=True):
                tokens = [self.beginning, *ids] if wanted.prefix else ids
                if len(tokens) < 2:
                    shown = "is empty" if not text else "is one token, before which nothing stands"
                    raise TaskError(f"{wanted.row(place)} {shown}; a document needs something to score")
                found = Passage(rows=tuple(windows(coded(tokens), wanted.context, wanted.stride)), place=place)
                made = list(divided(found))
                several, parts = several + (len(made) > 1), parts + len(made) * (len(made) > 1)
                yield from made
        if several:
            self.notes.append(f"{plural(several, 'long document', ',')} scored as {parts:,} samples")


class Completions(Reading):
    """Prompts and what follows them; the completion's tokens are scored.

    Spaces at a prompt's end go to the completion, with which they are one token, and the completion's tokens are what
    the whole has beyond the prompt's own, as in lm-evaluation-harness (Gao et al., MIT), with which numbers agree.
    """

    def passages(self, rows: Sequence[tuple[str, str]]) -> Iterator[Passage]:
        """Reads pairs of a prompt and its completion."""
        for batch in _numbered(rows, AT_ONCE):
            pairs = [pair for _, pair in batch]
            for (place, _), (context, scored) in zip(batch, self.pairs(pairs), strict=True):
                yield Passage(rows=(self.fitting(context, scored, place),), place=place)

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Tokens of prompts, and of what follows each."""
        moved = [(prompt.rstrip(), prompt[len(prompt.rstrip()) :] + rest) for prompt, rest in pairs]
        alone = [rest for prompt, rest in moved if not prompt]
        before = self.encode([prompt for prompt, _ in moved if prompt])
        whole = self.encode([prompt + rest for prompt, rest in moved if prompt])
        plain = iter(self.encode(alone, special=False) if alone else [])
        both = iter(zip(before, whole, strict=True))
        found: list[tuple[list[int], list[int]]] = []
        for prompt, _ in moved:
            if prompt:
                context, ids = next(both)
                found.append((context, ids[len(context) :]))
            else:
                found.append(([], next(plain)))
        return found


@dataclass(frozen=True)
class Question:
    """A question as it is written.

    Attributes:
        question: what is asked.
        choices: what may be answered.
        answer: the number, the letter or the text of the right choice.
        names: what the choices are called, where the data say it; else letters.
    """

    question: str
    choices: tuple[str, ...]
    answer: Any
    names: tuple[str, ...] = ()

    def right(self, row: str) -> int:
        """The number of the right choice.

        Raises:
            TaskError: the answer is no choice.
        """
        names = self.names or tuple(LETTERS[: len(self.choices)])
        answer = self.answer
        if isinstance(answer, float) and answer.is_integer():  # a column with gaps
            answer = int(answer)
        if isinstance(answer, str):
            if self.choices.count(answer) > 1 and answer not in self.names:
                raise TaskError(f"{row} has the right choice '{showable(answer[:40])}' twice; write its number, from 0")
            for known in (self.choices if not self.names else (), names, self.choices):
                if answer in known:
                    return known.index(answer)
            answer = int(answer) if re.fullmatch(r"\d{1,9}", answer.strip()) else answer
        if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(self.choices):
            return answer
        shown = showable(str(self.answer)[:40])
        raise TaskError(
            f"{row}: the answer '{shown}' is none of its {len(self.choices)} choices; write the number (from 0), "
            f"{names[0]} to {names[-1]}, or the text of one"
        )


class Questions(Completions):
    """Questions, each with choices; the most likely one is the answer."""

    def passages(self, rows: Sequence[Question]) -> Iterator[Passage]:  # type: ignore[override]
        """Reads questions, a row of tokens for each choice."""
        twice = sum(len(set(asked.choices)) < len(asked.choices) for asked in rows)
        if twice:
            self.notes.append(f"{plural(twice, 'question')} with a choice twice, of which one counts as wrong")
        for batch in _numbered(rows, AT_ONCE // 4):
            for place, asked in batch:
                _check_number(len(asked.choices), self.wanted.row(place))
            pairs = [
                (self.wanted.template.replace("{question}", asked.question), f" {choice}")
                for _, asked in batch
                for choice in asked.choices
            ]
            read = iter(self.pairs(pairs))
            for place, asked in batch:
                made, weights = list[Coded](), list[float]()
                for choice in asked.choices:
                    context, scored = next(read)
                    made.append(self.fitting(context, scored, place))
                    weights.append(1 / self._length(choice, len(scored)))
                yield Passage(
                    rows=tuple(made),
                    slots=tuple(range(len(made))),
                    weights=tuple(weights),
                    label=asked.right(self.wanted.row(place)),
                    place=place,
                )

    def _length(self, choice: str, tokens: int) -> int:
        lengths = {"characters": len(choice), "bytes": len(choice.encode()), "tokens": tokens}
        return max(1, lengths.get(self.wanted.length, 1))


class Conversations(Reading):
    """Messages through the tokenizer's chat template; what the assistant says is scored."""

    def passages(self, rows: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[Passage]:
        """Reads conversations; long ones go by windows."""
        tokenizer, wanted = self.source.tokenizer, self.wanted
        template = getattr(tokenizer, "chat_template", None)
        if not template:
            raise TaskError(
                f"{wanted.where} holds messages, and the tokenizer of {self.source.spec} has no chat template; save "
                "one there (chat_template.jinja), or write 'prompt' and 'completion'"
            )
        if not getattr(tokenizer, "is_fast", False):
            raise TaskError(f"{self.source.spec}: messages need a fast tokenizer (tokenizer.json); save it as one")
        for place, messages in enumerate(rows):
            tokens = self._read(messages, place)
            if not (tokens < 0).any():
                raise TaskError(f"{wanted.row(place)} has nothing to score: no message of the assistant in it")
            yield from divided(Passage(rows=tuple(windows(tokens, wanted.context, wanted.stride)), place=place))

    def _read(self, messages: Sequence[Mapping[str, Any]], place: int) -> Coded:
        plain = isinstance(messages, list | tuple) and all(isinstance(each, Mapping) for each in messages)
        if not plain or not all(isinstance(each.get("role"), str) and "content" in each for each in messages):
            raise TaskError(f"{self.wanted.row(place)}: messages are a list of {{role, content}}")
        if not all(isinstance(each["content"], str) for each in messages if each["role"] == "assistant"):
            raise TaskError(f"{self.wanted.row(place)} has a message of the assistant without a text")
        if _GENERATION.search(str(self.source.tokenizer.chat_template)):
            return self._marked(messages, place)
        said = self._rendered(messages, place)
        turns = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        spans = [self._span(messages, number, said, place) for number in turns]
        read = self.source.tokenizer(said, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        starts = np.array([begin for begin, _ in read["offset_mapping"]], dtype=np.int64)
        ends = np.array([end for _, end in read["offset_mapping"]], dtype=np.int64)
        scored = np.zeros(len(starts), dtype=np.bool_)
        for begin, end in spans:
            scored |= (ends > begin) & (starts < end) & (ends > starts)  # as transformers' own mask has it
        return coded(read["input_ids"], scored)

    def _span(self, messages: Sequence[Mapping[str, Any]], number: int, said: str, place: int) -> tuple[int, int]:
        """Where the text of one of the assistant's turns begins, and where the turn ends.

        A mark in its place says what the template writes around the text, whatever that cuts off the text itself. The
        turn ends where the conversation would that ends with it; where a template writes an end otherwise once another
        turn follows, with the text.

        Raises:
            TaskError: what is written around a turn depends on its text, or the text is left out.
        """
        other = [message if at != number else {**message, "content": _MARK} for at, message in enumerate(messages)]
        before, mark, behind = self._rendered(other, place).partition(_MARK)
        end = len(said) - len(behind)
        around = said.startswith(before) and said.endswith(behind) and len(before) <= end
        if not mark or not around or _MARK in behind:
            raise TaskError(
                f"{self.wanted.row(place)}: what the chat template writes around message {number + 1} depends on its "
                "text, so that the assistant's tokens cannot be told; write 'prompt' and 'completion'"
            )
        whole = self._rendered(messages[: number + 1], place)
        return len(before), max(end, len(whole)) if said.startswith(whole) else end

    def _marked(self, messages: Sequence[Mapping[str, Any]], place: int) -> Coded:
        """Reads a conversation whose template says itself what the assistant generates."""
        try:
            read = self.source.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
        except Exception as error:  # as below
            raise TaskError(f"{self.wanted.row(place)}: the chat template refuses it ({raised(error)})") from None
        return coded(read["input_ids"], np.array(read["assistant_masks"], dtype=np.bool_))

    def _rendered(self, messages: Sequence[Mapping[str, Any]], place: int) -> str:
        try:
            found = self.source.tokenizer.apply_chat_template([dict(message) for message in messages], tokenize=False)
        except Exception as error:  # templates raise what they like, in a sandbox
            raise TaskError(f"{self.wanted.row(place)}: the chat template refuses it ({raised(error)})") from None
        return str(found)


def _check_number(choices: int, row: str) -> None:
    """Refuses a question that has too few choices, or too many.

    Raises:
        TaskError: it has.
    """
    if choices < 2:
        raise TaskError(f"{row} has {plural(choices, 'choice')}; a question needs two")
    if choices > MOST_CHOICES:
        raise TaskError(f"{row} has {choices:,} choices; a question may have {MOST_CHOICES:,} at the most")


_MARK = "\ue000text\ue000"
"""Stands for a text that nobody writes: of characters for private use."""


def _is_unicode(text: str) -> bool:
    try:
        return bool(text.encode()) or not text
    except UnicodeEncodeError:
        return False


def _numbered(rows: Sequence[T], size: int) -> Iterator[list[tuple[int, T]]]:
    """Rows with their numbers, so many at a time."""
    for start in range(0, len(rows), size):
        yield list(enumerate(rows[start : start + size], start))


def listed(value: Any, row: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choices as data write them: a list, its JSON, or ARC's ``{"text": …, "label": …}``.

    Returns:
        The choices, and their names, where the data say these.

    Raises:
        TaskError: something else.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except ValueError:
            raise TaskError(f"{row}: its choices are no JSON list: {showable(value[:40])}") from None
    names: Any = ()
    if isinstance(value, Mapping):
        for key in value:
            if key not in ("text", "label"):
                raise unknown(f"key in the choices of {row}:", str(key), ("text", "label"), error=TaskError)
        value, names = value.get("text"), value.get("label") or ()
    lists = isinstance(value, list | tuple) and isinstance(names, list | tuple)
    if not lists or not all(isinstance(each, str) for each in (*value, *names)):
        raise TaskError(f"{row}: its choices are {value!r:.60}; they are a list of texts")
    if names and len(names) != len(value):
        raise TaskError(f"{row} has {len(value)} choices and {len(names)} labels for them")
    if "" in value:
        raise TaskError(f"{row}: choice {value.index('') + 1} is empty: nothing to score")
    return tuple(value), tuple(names)
