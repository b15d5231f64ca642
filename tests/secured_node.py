"""A node with the security plugin, for tests of who may see what: users and roles are made through its API.

Its HTTP port speaks plain HTTP with passwords, since it is on loopback and certificates are not what these
tests are about; between nodes the plugin insists on TLS.
"""

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from opensearchpy import OpenSearch

from bridge.errors import NodeError
from bridge.node.assembly import assemble, cache_folder
from bridge.node.launch import NodePlan, plan_node
from bridge.node.node import EmbeddedNode
from bridge.settings import load_settings

ADMIN = "admin"
COMMAND_TIMEOUT_S = 300
BCRYPT_ROUNDS = 4
"""Each change of a user lets the plugin verify passwords anew, a quarter of a second each by its own 12 rounds."""
API = "/_plugins/_security/api"


@dataclass(frozen=True)
class SecuredNode:
    """A node that asks everybody who they are; every user has the same password, made for this run."""

    url: str
    password: str

    def client(self, user: str = ADMIN) -> OpenSearch:
        return OpenSearch(self.url, http_auth=(user, self.password), max_retries=0, timeout=30)

    def add_user(self, user: str, *index_permissions: dict[str, Any], cluster: tuple[str, ...] = ()) -> None:
        """A user with a role of the same name, made of what `role` takes."""
        self.add_users({user: role(*index_permissions, cluster=cluster)})

    def add_users(self, roles: Mapping[str, dict[str, Any]]) -> None:
        """Users with a role of the same name each. The plugin reads all of its settings anew at each request, so it
        gets one for all."""
        users = {user: {"password": self.password} for user in roles}
        mappings = {user: {"users": [user]} for user in roles}
        for kind, values in (("roles", roles), ("internalusers", users), ("rolesmapping", mappings)):
            self._patch(kind, [{"op": "add", "path": f"/{user}", "value": value} for user, value in values.items()])

    def remove_user(self, *users: str) -> None:
        """Takes the users, their roles and their connections away."""
        for kind in ("rolesmapping", "internalusers", "roles"):
            self._patch(kind, [{"op": "remove", "path": f"/{user}"} for user in users])

    def _patch(self, kind: str, operations: list[dict[str, Any]]) -> None:
        with self.client() as admin:
            admin.transport.perform_request("PATCH", f"{API}/{kind}", body=operations)


def role(*index_permissions: dict[str, Any], cluster: Sequence[str] = ()) -> dict[str, Any]:
    """A role of the security plugin.

    Args:
        index_permissions: as the plugin's API takes them: `index_patterns`, `allowed_actions`, and optionally `dls`,
            `fls`, `masked_fields`.
        cluster: permissions that belong to no index.
    """
    return {"cluster_permissions": list(cluster), "index_permissions": list(index_permissions)}


@contextmanager
def start_secured_node() -> Iterator[SecuredNode]:
    """A secured node that ends with the block; skips the test where none can be made."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on the path to make a certificate")
    try:
        plan = plan_node(load_settings().node, "2.19.1", "security")
    except NodeError as error:
        pytest.skip(str(error))
    password = secrets.token_urlsafe(24)
    certificate, key = _certificate()
    plan = replace(
        plan,
        configuration={
            "plugins.security.ssl.transport.pemcert_filepath": "node.pem",
            "plugins.security.ssl.transport.pemkey_filepath": "node.key",
            "plugins.security.ssl.transport.pemtrustedcas_filepath": "node.pem",
            "plugins.security.ssl.http.enabled": False,
            "plugins.security.authcz.admin_dn": ["CN=nobody has this certificate"],
            "plugins.security.allow_default_init_securityindex": True,
            "plugins.security.password.hashing.bcrypt.rounds": BCRYPT_ROUNDS,
            "plugins.security.restapi.roles_enabled": ["all_access"],
        },
        files={"node.pem": certificate, "node.key": key} | _users_and_roles(_password_hash(plan, password)),
    )
    with EmbeddedNode.owned_as_planned("secured", plan) as node:
        yield SecuredNode(node.url, password)


def _certificate() -> tuple[str, str]:
    """A certificate that trusts itself, and its key."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "node.pem"), Path(folder, "node.key")
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=node"]
        command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        command += ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True, timeout=COMMAND_TIMEOUT_S)
        return certificate.read_text(), key.read_text()


def _password_hash(plan: NodePlan, password: str) -> str:
    """As the plugin's own tool makes it."""
    home = assemble(plan.blueprint, cache_folder(plan.settings.cache_dir), plan.settings.mirror_dir)
    jars = f"{home}/plugins/opensearch-security/*:{home}/lib/*"
    tool = [str(plan.java.executable), *(plan.settings.java_options or "").split(), "-cp", jars]
    tool += ["org.opensearch.security.tools.Hasher", "-p", password, "-r", str(BCRYPT_ROUNDS)]
    done = subprocess.run(tool, check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    return done.stdout.split()[-1]


def _users_and_roles(password_hash: str) -> dict[str, str]:
    """What the plugin reads once, at its first start: an administrator, and nobody else."""
    authentication = {
        "http_enabled": True,
        "order": 0,
        "http_authenticator": {"type": "basic", "challenge": True},
        "authentication_backend": {"type": "intern"},
    }
    contents: dict[str, dict[str, Any]] = {
        "config": {"config": {"dynamic": {"authc": {"passwords": authentication}}}},
        "internalusers": {ADMIN: {"hash": password_hash, "backend_roles": [ADMIN]}},
        "roles": {},
        "rolesmapping": {"all_access": {"backend_roles": [ADMIN]}},
        "actiongroups": {},
        "tenants": {},
    }
    names = {"internalusers": "internal_users", "rolesmapping": "roles_mapping", "actiongroups": "action_groups"}
    return {
        f"opensearch-security/{names.get(kind, kind)}.yml": yaml.safe_dump(
            {"_meta": {"type": kind, "config_version": 2}} | content
        )
        for kind, content in contents.items()
    }
