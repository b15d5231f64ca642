"""What goes first is not waited with: predicting queries begins once nothing else does."""

import threading

from ingest.follow.pair import Priority, WaitingGenerator
from tests.ingest.toys import EchoGenerator


def test_nothing_is_predicted_while_other_work_goes_first() -> None:
    priority, echo = Priority(), EchoGenerator()
    generator = WaitingGenerator(echo, priority)
    predicted: list[list[str]] = []

    def predict() -> None:
        predicted.extend(generator.generate(["wing"], n_queries=1, max_new_tokens=8, seed=0))

    with priority:
        thread = threading.Thread(target=predict)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert echo.passages == 0
    thread.join(60)
    assert predicted == [["what is wing"]]
    assert generator.generate(["lift"], n_queries=1, max_new_tokens=8, seed=0) == [["what is lift"]]
