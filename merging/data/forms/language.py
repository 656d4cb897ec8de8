"""Texts for a causal language model: documents, prompts with completions, conversations, questions with choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from merging.data.form import DataForm
from merging.errors import TaskError, showable
from merging.plugins.options import option
from merging.plugins.registry import forms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from merging.data.opened import Opened
    from merging.data.passages import Passage
    from merging.data.reader import Reader
    from merging.plugins.task import Split

COLUMNS = ("prompt", "completion", "messages", "question", "choices", "answer")
"""Options that name a column; 'text' is every form's."""
MEANT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "documents": ("text", "stride", "prefix"),
        "completions": ("prompt", "completion"),
        "conversations": ("messages", "stride"),
        "questions": ("question", "choices", "answer", "template", "length"),
    }
)
"""Kind of texts → what may be said of it, besides what may be said of all."""


@forms.register("language")
@dataclass(frozen=True, kw_only=True)
class Language(DataForm):
    """A table whose columns say what it holds; read by the model's own tokenizer, once.

    ``text``: every token but the first is scored. ``prompt`` and ``completion``: the completion's. ``messages``: the
    assistant's, through the chat template. ``question``, ``choices``, ``answer``: each choice after the question.
    """

    summary: ClassVar[str] = "a table, or a folder of save_to_disk, with texts for a causal language model"
    formula: ClassVar[str] = (
        "document: Σ_t log p(x_t | x_<t); question: for each choice c, log p(c | question) / length(c)"
    )
    limits: ClassVar[str] = (
        "Documents longer than the model reads go by windows, in which the first tokens see little; prompts that are "
        "too long lose their beginning. Perplexities compare only where tokenizers are the same."
    )
    paper: ClassVar[str] = (
        "Radford et al. 2019, https://openai.com/research/better-language-models; Brown et al. 2020, "
        "https://arxiv.org/abs/2005.14165; Gao et al., https://github.com/EleutherAI/lm-evaluation-harness"
    )
    written: ClassVar[str] = ".jsonl, .csv or .tsv, a folder of save_to_disk"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
    keys: ClassVar[tuple[str, ...]] = ("text", "group")
    texts: ClassVar[bool | None] = True
    language: ClassVar[bool] = True
    rank: ClassVar[int] = 1

    prompt: str = option("prompt", "column of prompts")
    completion: str = option("completion", "column of what follows them")
    messages: str = option("messages", "column of conversations, each a list of {role, content}")
    question: str = option("question", "column of questions")
    choices: str = option("choices", "column of lists of choices; or a column for each, such as A,B,C,D")
    answer: str = option("answer", "column of right choices: number (from 0), letter or text")
    template: str = option("Question: {question}\nAnswer:", "what a question becomes; a choice follows after a space")
    length: str = option(
        "none",
        "what a choice's log-likelihood is divided by",
        choices=("none", "characters", "bytes", "tokens"),
    )
    context: int | None = option(None, "tokens that a row may hold, if fewer than the model reads", low=2)
    stride: int | None = option(None, "tokens by which windows of long texts move on; default: the context", low=1)
    prefix: bool = option(False, "a beginning token stands before each document, whose first token is scored, too")

    def reads(self, path: str) -> bool:
        """Whether the path is a table, or a folder of ``save_to_disk``."""
        from merging.data.saved import names_saved

        return super().reads(path) or names_saved(path)

    def open(self, reader: Reader) -> Opened:
        """Finds the table and says what it holds; it is tokenized later."""
        from merging.data import tables
        from merging.data.cache import content_of
        from merging.data.kinds import kind_of, lettered
        from merging.data.opened import Opened
        from merging.data.saved import plain_rows

        self._check(reader)
        file = Path(reader.path).expanduser()
        is_table = super().reads(reader.path)
        rows, files = (tables.rows(file), [file]) if is_table else plain_rows(reader.path)
        there = list(rows[0])
        names = {key: getattr(self, key) for key in COLUMNS} | {"text": reader.options.get("text") or "text"}
        if "choices" not in reader.options and "choices" not in there:
            names["choices"] = lettered(there) or "choices"
        named = [key for key in names if key in reader.options]
        kind = kind_of(reader.path, names, there, named)
        for key in reader.options:
            if any(key in keys for keys in MEANT.values()) and key not in MEANT[kind]:
                raise TaskError(f"{reader.path} holds {kind}, to which '{key}' means nothing; leave it out")
        if kind == "documents" and "label" in there:
            reader.say([f"{reader.path}: a language model is scored on its texts; its labels are not read"])
        decided = [[content_of(file) for file in files], kind, names, self.options()]
        return Opened(
            where=reader.path,
            names=None,
            written=(),
            choice=reader.choice,
            decode=lambda _: self._read(reader, kind, rows, names, decided, 1 if is_table else 0),
            final=True,
            scored="questions" if kind == "questions" else "documents",
        )

    def _check(self, reader: Reader) -> None:
        """Refuses what cannot be meant, whatever the table holds."""
        source: Any = reader.source
        if self.context is not None and self.context > source.context:
            raise TaskError(
                f"{reader.path}: context is {self.context}, and {source.spec} reads {source.context} tokens; write at "
                "most that"
            )
        context = self.context or source.context
        if self.stride is not None and self.stride > context:
            raise TaskError(
                f"{reader.path}: stride is {self.stride}, and a row holds {context} tokens; write at most that"
            )
        if "{question}" not in self.template:
            raise TaskError(f"{reader.path}: template '{showable(self.template)[:60]}' has no {{question}} in it")
        if not isinstance(reader.options.get("text") or "", str):
            raise TaskError(f"{reader.path}: text names one column; a language model reads no pairs of texts")

    def _read(
        self,
        reader: Reader,
        kind: str,
        rows: list[dict[str, Any]],
        names: dict[str, str],
        decided: list[Any],
        first: int,
    ) -> Split:
        from merging.data.columns import present
        from merging.data.groups import group_name
        from merging.data.kinds import READINGS, taken
        from merging.data.passages import gathered
        from merging.data.reading import Wanted
        from merging.data.tokenized import in_groups_of, tokenized

        source: Any = reader.source
        context = int(self.context or source.context)
        wanted = Wanted(
            where=reader.path,
            first=first,
            context=context,
            stride=self.stride or context,
            template=self.template,
            length=self.length,
            prefix=self.prefix,
        )

        def make() -> Any:
            reader.progress.stage(f"tokenizing {reader.path}", len(rows))
            reading = READINGS[kind](source, wanted)
            there = taken(kind, rows, names, wanted)
            found = gathered(_watched(reading.passages(there), reader), source.padding)
            return *found, reading.said()

        found = tokenized([*decided, context, source.padding], source, make)
        reader.say(f"{reader.path}: {note}" for note in found.notes)
        group = reader.options.get("group")
        if group is None:
            return found.split
        present(reader.path, group, rows[0])
        return in_groups_of(found, [group_name(reader.path, n, row.get(group)) for n, row in enumerate(rows, first)])

    @staticmethod
    def tiny(folder: Path) -> str:
        """Nine questions, each with three choices."""
        import json

        from merging.data.examples import CLASSES
        from merging.storage import atomic

        rows = [{"question": f"{n}?", "choices": list(CLASSES), "answer": CLASSES[n % 3]} for n in range(9)]
        atomic.write(folder / "set.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
        return str(folder / "set.jsonl")


def _watched(passages: Iterator[Passage], reader: Reader) -> Iterator[Passage]:
    place = -1
    for passage in passages:
        if passage.place != place:
            reader.progress.advance()
        place = passage.place
        yield passage
