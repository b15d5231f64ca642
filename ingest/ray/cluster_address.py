"""How any machine of a run connects to the cluster: the address travels with the run, the password does not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from opensearchpy import OpenSearch

from bridge.cluster.connection import connect
from bridge.settings import ClusterSettings, load_settings


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """The settings of the cluster without its password, and the settings file that each machine has, if any."""

    cluster: ClusterSettings
    config_file: Path | None = None

    @classmethod
    def of(cls, cluster: ClusterSettings, config_file: Path | None) -> Self:
        """The same cluster, for machines that know the password themselves."""
        return cls(cluster.model_copy(update={"password": None}), config_file)

    def settings(self) -> ClusterSettings:
        """The cluster, with the password that this machine's own settings hold."""
        password = load_settings(self.config_file).cluster.password
        return self.cluster.model_copy(update={"password": password})

    def client(self) -> OpenSearch:
        """A client of the cluster, for this machine.

        Raises:
            SettingsError: this machine's settings cannot be read.
            ClusterError: see `bridge.cluster.connection.connect`.
        """
        return connect(self.settings())
