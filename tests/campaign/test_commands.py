"""Commands as forks of a process that has imported everything."""

from pathlib import Path

from tests.campaign.commands import KILLED, Commands


def test_a_command_ends_with_its_code_or_is_killed(tmp_path: Path) -> None:
    commands = Commands({"BRIDGE_CLUSTER__URL": "http://127.0.0.1:9"}, tmp_path)

    refused = commands.run(["doctor", "--no-such-option"])
    killed = commands.run(["follow", "products"], kill_after_s=0)

    assert (refused.code, "no-such-option" in refused.said) == (2, True)
    assert killed.code == KILLED
