"""The leaderboard of a pool: its order, which rows and columns a table shows, and that names stay text."""

from __future__ import annotations

import json
from dataclasses import asdict

from merging.values.leaderboard import Single, ranked, short, with_soups
from merging.values.leaderboard_table import ALL, TOP, Kind, Leaderboard, in_markdown, initials


def pool_of(count: int) -> tuple[Single, ...]:
    """Models with falling held-out scores, of which ``model_0`` and the last one are in a greedy soup."""
    singles = [
        Single(
            name=f"model_{number}",
            held_out=1 - number / 100,
            tests={"test": 0.5, "far": 0.25},
            shifted=0.25,
            trained={"lr": 10.0**-number},
        )
        for number in range(count)
    ]
    return with_soups(singles, {"uniform": [one.name for one in singles], "greedy": ["model_0", f"model_{count - 1}"]})


def board_of(singles: tuple[Single, ...]) -> Leaderboard:
    labels = {"uniform": "uniform soup", "greedy": "greedy soup"}
    return Leaderboard(singles=ranked(singles), labels=labels, tests=("test", "far"), shifts=("far", "farther"))


def test_best_first_equals_in_order_and_unscored_last() -> None:
    singles = [Single(name=name, held_out=score) for name, score in zip("abcd", (None, 0.5, 0.75, 0.5), strict=True)]
    assert [single.name for single in ranked(singles)] == ["c", "b", "d", "a"]


def test_a_mean_needs_all_of_its_sets() -> None:
    scores = {"held-out": 0.5, "test": 1.0, "far": 0.2, "farther": 0.4}
    assert Single.of("m", scores, held_out="held-out", shifts=("far", "farther")).shifted == (0.2 + 0.4) / 2
    assert Single.of("m", {"held-out": 0.5}, held_out="held-out", shifts=("far",)).shifted is None
    assert list(Single.of("m", scores, held_out="held-out", shifts=()).tests) == ["test", "far", "farther"]


def test_json_there_and_back_and_of_an_earlier_version() -> None:
    single = pool_of(3)[0]
    assert Single.from_json(json.loads(json.dumps(asdict(single)))) == single
    assert Single.from_json({"name": "m", "held_out": 0.5, "tests": {}, "shifted": None}).soups == ()


def test_a_small_pool_is_shown_whole_without_ranks() -> None:
    board = board_of(pool_of(ALL))
    assert len(board.shown) == ALL
    assert board.names[0] == "model_0"
    assert board.remarks("report.json") == ["All models are in: uniform soup."]


def test_of_a_large_pool_the_best_and_those_in_a_soup_are_shown() -> None:
    board = board_of(pool_of(72))
    assert [rank for rank, _ in board.shown] == [*range(1, TOP + 1), 72]
    assert board.names[-1] == "72. model_71"
    assert "… 61 more in report.json." in board.remarks("report.json")
    assert all(len(column.cells) == TOP + 1 for column in board.columns())


def test_columns_without_scores_are_left_out() -> None:
    singles = tuple(Single(name=f"m{number}", held_out=0.5) for number in range(3))
    columns = Leaderboard(singles=singles, labels={}, tests=("test",), shifts=()).columns()
    assert [column.heading for column in columns] == ["held-out"]


def test_columns_of_a_pool() -> None:
    columns = board_of(pool_of(4)).columns()
    kinds = [Kind.MAIN, Kind.MAIN, Kind.MAIN, Kind.SHIFT, Kind.SOUPS, Kind.TRAINED]
    assert [column.kind for column in columns] == kinds
    assert [column.heading for column in columns][:4] == ["held-out", "test", "average of shifts", "far"]
    assert columns[4].cells == ("greedy soup", "", "", "greedy soup")  # all are in the uniform one
    assert columns[5].cells == ("1", "0.1", "0.01", "0.001")


def test_one_shifted_set_stands_once() -> None:
    singles = (Single(name="a", held_out=0.5, tests={"far": 0.25}, shifted=0.25),) * 2
    columns = Leaderboard(singles=singles, tests=("far",), shifts=("far",)).columns()
    assert [(column.kind, column.heading) for column in columns] == [(Kind.MAIN, "held-out"), (Kind.MAIN, "far")]


def test_a_letter_for_each_method() -> None:
    labels = {str(number): "soup" for number in range(60)}
    letters = list(initials(labels).values())
    assert letters[:4] == ["s", "o", "u", "p"]
    assert len(set(letters[:52])) == 52


def test_names_are_no_markdown() -> None:
    singles = (Single(name="a|b <i>", held_out=0.5, trained={"lr": "`x`|"}), Single(name="c", held_out=0.25))
    text = in_markdown(Leaderboard(singles=singles), "report.json")
    assert "a\\|b &lt;i&gt;" in text
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines()}) == 1
    assert in_markdown(Leaderboard(singles=()), "report.json") == ""


def test_values_are_short() -> None:
    assert [short(value) for value in (1e-5, 3, True, "cosine", None)] == ["1e-05", "3", "yes", "cosine", "–"]
