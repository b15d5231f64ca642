"""`scripts/bench sources`: does a question find the row, the thing or the picture that it asks for? BM25 against the
bridge.

Rows of a database, facts as triples and pictures, all made up, are ingested as `--sql`, `--triples` and `--image-field`
read them; each question has one right answer. Half of the questions speak as the documents do, half of them say the
same in other words. Of pictures, documents say no word: half of the questions are about combinations of number, colour,
shape and background that the toy encoder met when it was trained.
"""

import csv
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.documents import cluster_at
from benchmarks.pictures import SHAPES_CLIP
from benchmarks.pictures.made import HELD_OUT, SCENES, caption, draw, png

SEED = 21
ROWS, THINGS, PICTURES = "bench-rows", "bench-things", "bench-pictures"
SAME, OTHER = "the document's words", "other words"
SEEN, UNSEEN = "seen in training", "never seen"

Pair = tuple[str, str]
"""As a document says it, and in other words."""

GOODS: list[Pair] = [
    ("tent", "shelter for camping"),
    ("bicycle", "two-wheeler"),
    ("kettle", "pot for boiling water"),
    ("laptop", "portable computer"),
    ("sofa", "couch"),
    ("lawn mower", "machine for cutting grass"),
    ("refrigerator", "fridge"),
    ("suitcase", "travel bag"),
    ("raincoat", "waterproof jacket"),
    ("headphones", "earphones"),
    ("mattress", "bed cushion"),
    ("vacuum cleaner", "hoover"),
    ("sunglasses", "shades"),
    ("frying pan", "skillet"),
    ("wristwatch", "timepiece"),
    ("television", "screen for watching films"),
]
TROUBLES: list[Pair] = [
    ("arrived with a crack", "was broken on delivery"),
    ("is the wrong colour", "does not have the shade that was ordered"),
    ("was delivered three weeks late", "took far too long to get here"),
    ("was charged twice", "was billed two times"),
    ("makes a loud noise", "is far too noisy"),
    ("stopped working after a day", "died almost at once"),
    ("is too small", "does not fit, a larger one is needed"),
    ("came without the manual", "lacks the instructions"),
    ("smells of petrol", "has an unpleasant odour of fuel"),
    ("was stolen from the doorstep", "was taken by a thief outside the house"),
    ("gets too hot to touch", "overheats"),
    ("was bought as a present and is to be returned", "was a gift that should go back"),
]
CITIES = ["Aarhus", "Bergen", "Cork", "Dresden", "Evora", "Faro", "Ghent", "Havre", "Izmir", "Jena", "Kiel", "Lyon"]
KINDS: list[Pair] = [
    ("brewery", "maker of beer"),
    ("hospital", "place where the sick are treated"),
    ("bakery", "shop for bread"),
    ("shipyard", "builder of boats"),
    ("university", "place of higher education"),
    ("newspaper", "daily press"),
    ("museum", "collection open to visitors"),
    ("bank", "lender of money"),
    ("theatre", "stage for plays"),
    ("pharmacy", "seller of medicines"),
    ("airline", "company that flies passengers"),
    ("vineyard", "grower of grapes for wine"),
    ("orchestra", "group of musicians"),
    ("bookshop", "seller of novels"),
    ("zoo", "park with wild animals"),
    ("railway", "operator of trains"),
]
FOUNDERS = [
    f"{first} {last}"
    for first, last in product(
        ("Ada", "Bruno", "Clara", "Dario", "Edda", "Felix", "Greta", "Hugo"),
        ("Almqvist", "Brandt", "Costa", "Duarte", "Eriksen", "Fontaine", "Galli", "Hoffmann"),
    )
]


class Question(NamedTuple):
    text: str
    doc_id: str
    words: str


def make_rows(file: Path, n: int, n_questions: int) -> list[Question]:
    """Puts the table `ticket` into an SQLite file; the questions about its rows."""
    chance = random.Random(SEED)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE ticket (id TEXT PRIMARY KEY, city, goods, trouble, opened)")
        chosen = chance.sample(list(product(GOODS, TROUBLES, CITIES)), n)
        for number, (goods, trouble, city) in enumerate(chosen):
            opened = f"2026-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
            row = (f"t{number}", city, goods[0], trouble[0], opened)
            database.execute("INSERT INTO ticket VALUES (?, ?, ?, ?, ?)", row)
    return _questions(
        n_questions,
        [
            [f"Which customer in {city} says that the {goods[way]} {trouble[way]}?" for way in (0, 1)]
            for goods, trouble, city in chosen
        ],
        "t",
    )


def make_things(file: Path, n: int, n_questions: int) -> list[Question]:
    """Writes a file of N-Triples; the questions about its things, none of which is named in them."""
    chance = random.Random(SEED)
    base, label = "http://example.org/", "http://www.w3.org/2000/01/rdf-schema#label"
    chosen = chance.sample(list(product(KINDS, CITIES, FOUNDERS)), n)
    lines = [f'<{base}{name}> <{label}> "{name}"@en .' for name in CITIES]
    for number, (kind, city, founder) in enumerate(chosen):
        thing = f"<{base}{number}>"
        name = "".join(chance.choice("bdklmnprst") + chance.choice("aeiou") for _ in range(3)).title()
        lines += [
            f'{thing} <{label}> "{name}"@en .',
            f'{thing} <{base}kind> "{kind[0]}"@en .',
            f"{thing} <{base}locatedIn> <{base}{city}> .",
            f'{thing} <{base}founder> "{founder}"@en .',
            f'{thing} <{base}foundingYear> "{chance.randint(1700, 2020)}" .',
        ]
    file.write_text("".join(f"{line}\n" for line in lines))
    return _questions(
        n_questions,
        [
            [f"Which {kind[0]} located in {city} has the founder {founder}?", f"{founder} set up a {kind[1]} in {city}"]
            for kind, city, founder in chosen
        ],
        base,
    )


def make_pictures(folder: Path, n_questions: int) -> list[Question]:
    """Writes a poster with a picture for each scene, in random order; the questions say what a picture shows. The toy
    encoder knows few other words."""
    chance = random.Random(SEED)
    folder.mkdir()
    lines, of_kind = [], {SEEN: list[Question](), UNSEEN: list[Question]()}
    for number, scene in enumerate(chance.sample(SCENES, len(SCENES))):
        (folder / f"{number}.png").write_bytes(png(draw(scene, chance)))
        title = f"Poster no. {number} from {chance.choice(CITIES)}"
        lines.append(json.dumps({"_id": f"p{number}", "title": title, "photo": f"{number}.png"}))
        kind = UNSEEN if scene in HELD_OUT else SEEN
        of_kind[kind].append(Question(caption(scene, chance), f"p{number}", kind))
    (folder / "posters.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return [*of_kind[SEEN][: n_questions // 2], *of_kind[UNSEEN][: n_questions // 2]]


def _questions(n: int, both: Sequence[Sequence[str]], prefix: str) -> list[Question]:
    """The first half of `n` in the documents' words, the other in other words."""
    return [
        Question(texts[number >= n // 2], f"{prefix}{number}", (SAME, OTHER)[number >= n // 2])
        for number, texts in enumerate(both[:n])
    ]


@click.command()
@click.option("--documents", default=1_000, show_default=True, help="Rows, and things; of pictures there are 216.")
@click.option("--questions", default=200, show_default=True, help="Questions about each of them.")
@click.option("--stages", default="bm25,hybrid", show_default=True, help="Stages of `evaluate`, comma-separated.")
@click.option("--url", help="Cluster to use; an embedded node by default.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on a line.")
def command(documents: int, questions: int, stages: str, url: str | None, as_json: bool) -> None:
    """Measures known-item questions about rows, things and pictures, and prints MRR@10 of each stage."""
    with tempfile.TemporaryDirectory() as name, cluster_at(url) as address:
        folder = Path(name)
        rows = make_rows(folder / "tickets.sqlite", documents, questions)
        things = make_things(folder / "things.nt", documents, questions)
        pictures = make_pictures(folder / "pictures", questions)
        state = ["--state-folder", str(folder / "state"), "--quiet"]
        table = ["--sql", "SELECT * FROM ticket", "--database", f"sqlite:///{folder / 'tickets.sqlite'}"]
        _run(address, "ingest", ROWS, *table, "--id-field", "id", *state)
        _run(address, "ingest", THINGS, "--triples", str(folder / "things.nt"), *state)
        posters = [str(folder / "pictures" / "posters.jsonl"), "--text-field", "title"]
        photos = ["--image-field", "photo", "--image-encoder", str(SHAPES_CLIP), "--image-folder"]
        _run(address, "ingest", PICTURES, *posters, *photos, str(folder / "pictures"), *state)
        figures = {
            f"{index}, {words}": _measured(address, index, _of(made, words), each, folder)
            for index, made, each in (
                (ROWS, rows, stages),
                (THINGS, things, stages),
                (PICTURES, pictures, f"{stages},image"),
            )
            for words in dict.fromkeys(question.words for question in made)
        }
        judgements = _judgements(_of(pictures, SEEN), folder)
        _run(address, "tune", "--index", PICTURES, "--judgements", str(judgements), "--stages", "hybrid", "--apply")
        tuned = _measured(address, PICTURES, _of(pictures, UNSEEN), "hybrid", folder)
        figures[f"{PICTURES}, {UNSEEN}, tuned"] = tuned
    columns = list(dict.fromkeys(stage for by_stage in figures.values() for stage in by_stage))
    click.echo(f"MRR@10 {'':37}" + "".join(f"{stage:>11}" for stage in columns))
    for title, by_stage in figures.items():
        shown = (f"{by_stage[stage]['mrr@10']:11.3f}" if stage in by_stage else " " * 11 for stage in columns)
        click.echo(f"{title:44}" + "".join(shown))
    if as_json:
        click.echo(json.dumps(figures))


def _measured(
    address: str, index: str, questions: Sequence[Question], stages: str, folder: Path
) -> dict[str, dict[str, float]]:
    """The figures of each stage."""
    options = ["--judgements", str(_judgements(questions, folder)), "--stages", stages, "--json"]
    measured: dict[str, Any] = json.loads(_run(address, "evaluate", "--index", index, *options))
    by_stage: dict[str, dict[str, float]] = measured["stages"]
    return by_stage


def _judgements(questions: Sequence[Question], folder: Path) -> Path:
    file = folder / "judgements.csv"
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["query", "docid", "rating"])
        writer.writerows([each.text, each.doc_id, 1] for each in questions)
    return file


def _of(questions: Sequence[Question], words: str) -> list[Question]:
    return [each for each in questions if each.words == words]


def _run(address: str, *arguments: str) -> str:
    """What a command prints."""
    environment = {
        **os.environ,
        "BRIDGE_CLUSTER__URL": address,
        "BRIDGE_SIDECAR__MORE_ENCODERS": json.dumps([str(SHAPES_CLIP)]),
    }
    command = [sys.executable, "-m", "bridge.cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
