"""What a running sidecar says of itself, for the operator's commands."""

from bridge.errors import SidecarError

_TIMEOUT_S = 5.0


def served_encoders(url: str, *, api_key: str | None = None) -> list[str]:
    """The encoders by which a sidecar can embed queries, as `name@digest`.

    Raises:
        SidecarError: it does not answer, or is no sidecar of ours.
    """
    import requests  # commands that ask no sidecar need not wait for it

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with requests.Session() as session:
            session.trust_env = False
            info = session.get(f"{url.rstrip('/')}/info", headers=headers, timeout=_TIMEOUT_S).json()
        return [str(encoder) for encoder in info.get("embedding_model_ids") or [info["embedding_model_id"]]]
    except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SidecarError(
            f"the sidecar at {url} does not say which encoders it runs ({type(error).__name__}): start it, or name "
            f"another with --sidecar"
        ) from error
