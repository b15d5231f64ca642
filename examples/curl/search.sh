#!/usr/bin/env bash
# One search, past the bridge and through it.
set -euo pipefail
url=${BRIDGE_URL:-http://127.0.0.1:9280}
index=${INDEX:-products}
body='{"size": 3, "query": {"multi_match": {"query": "waterproof footwear", "fields": ["title", "body"]}}}'

for header in "x-bridge: off" "x-bridge: rerank"; do
    echo "$header"
    curl --silent --fail --show-error "$url/$index/_search?filter_path=hits.hits._id" \
        --header 'Content-Type: application/json' --header "$header" --data "$body"
    echo
done
