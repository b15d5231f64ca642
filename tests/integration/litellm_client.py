"""LiteLLM asks a sidecar: a program for an environment of LiteLLM's own, which wants older clients than the others.

`litellm_client.py URL` prints one line of JSON: for each of its providers the indices that came back, best first.
"""

import json
import os
import sys

PROVIDERS = {
    "infinity": "/infinity",
    "hosted_vllm": "",
    "together_ai": "",
    "cohere": "/v2/rerank",
    "jina_ai": "/v1/rerank",
    "litellm_proxy": "",
    "huggingface": "",
}
"""Provider → what follows the sidecar's address in its `api_base`."""


def main() -> None:
    """Asks by every provider."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # prices, which it would fetch from the network
    import litellm  # the tests, which read PROVIDERS, have no such package

    url = sys.argv[1]
    found = {}
    for provider, path in PROVIDERS.items():
        response = litellm.rerank(
            model=f"{provider}/any",
            query="cat dog fish",
            documents=["a bird", "dog and cat", "cat", "the cat, the dog, the fish"],
            top_n=2,
            api_base=f"{url}{path}",
            api_key="any",
        )
        found[provider] = [result["index"] for result in response.results]
    print(json.dumps(found))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
