"""What encoders and cross-encoders have in common: how they are opened and tested, and how threads share their work."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bridge.errors import ModelError
from bridge.models.artifact import Kind, ModelFolder, resolve, verify
from bridge.models.session import CPU, Session
from bridge.models.tokenization import INPUT_NAMES, TextTokenizer, TokenArrays, load_tokenizer

Result = TypeVar("Result")


def open_text_model(
    model: ModelFolder | str, kind: Kind, providers: Sequence[str] = (CPU,)
) -> tuple[ModelFolder, Session, TextTokenizer, tuple[int, ...]]:
    """Verifies and opens a model, and runs the highest id of its vocabulary through it as a self-test.

    `model` is its folder, or what `resolve` takes. Returns the folder, the session, the tokenizer, and the shape of
    what the model gave for one sequence.

    Raises:
        ModelError: the folder is not what its manifest says, or the model fails its self-test.
        SettingsError: a provider does not start.
    """
    folder = model if isinstance(model, ModelFolder) else resolve(model)
    verify(folder, kind=kind)
    session = Session(folder.model_file, inputs=INPUT_NAMES, providers=providers)
    tokenizer = load_tokenizer(folder)
    text = "self-test"
    [sequence] = tokenizer.pairs(text, [text]) if kind == "cross_encoder" else tokenizer.sequences([text])
    sequence["input_ids"][0, -1] = tokenizer.vocabulary_size - 1
    try:
        return folder, session, tokenizer, session.run(sequence).shape
    except ModelError as error:
        raise ModelError(
            f"model {folder.path} fails its self-test; its tokenizer has {tokenizer.vocabulary_size:,} ids, perhaps "
            f"more than the model: {error}"
        ) from error


class ComputingThreads:
    """Computes one result for each sequence; safe to use from several threads.

    A thread takes the next sequence as soon as it is done with one, and the caller wakes up only at the end: to wake it
    for each result took a quarter of a small model's time.
    """

    def __init__(self, threads: int, *, name: str) -> None:
        """`name` is the threads' name in a dump of their stacks."""
        self._n_threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def map(self, compute: Callable[[TokenArrays], Result], sequences: Sequence[TokenArrays]) -> list[Result]:
        """`compute` of each sequence, input order. If it raises, the other threads stop too."""
        # Longest first: the threads end together.
        order = sorted(range(len(sequences)), key=lambda row: -sequences[row]["input_ids"].size)
        rows = iter(order)  # whose next is taken by one thread only
        results: dict[int, Result] = {}

        def take_until_none_is_left(_: int) -> None:
            for row in rows:
                try:
                    results[row] = compute(sequences[row])
                except BaseException:
                    for _ in rows:  # so that nothing is left for the others
                        pass
                    raise

        for _ in self._executor.map(take_until_none_is_left, range(min(self._n_threads, len(order)))):
            pass
        return [results[row] for row in range(len(sequences))]

    def close(self) -> None:
        """Ends the threads; they cannot compute afterwards."""
        self._executor.shutdown()
