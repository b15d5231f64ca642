"""Does the cluster hide documents or fields of an index from this user?

Document-level security, field-level security and field masking work on reads without a word: an ingest that is
subject to them would leave documents out, or take masked text for theirs. Clusters refuse updates to such users,
whatever the document, and say why; so a document that does not exist is asked to be updated.
"""

import re

from opensearchpy import OpenSearch

from bridge.cluster.connection import Answer, exchange
from bridge.errors import AccessDenied

_NO_DOCUMENT = "neural-bridge-asks-for-what-is-not-there"
_UPDATE = b'{"doc":{}}'
_BULK_UPDATE = b'{"update":{"_id":"%s"}}\n%s\n' % (_NO_DOCUMENT.encode(), _UPDATE)
_SAID = re.compile(rb"FLS or DLS|field or document level security", re.IGNORECASE)
"""OpenSearch's words, and Elasticsearch's."""


def refuse_restricted(client: OpenSearch, index: str) -> None:
    """Makes sure, before the first write, that this user is shown all of an index that exists. Nothing is written.

    Raises:
        AccessDenied: some documents or fields are hidden from this user, or masked.
    """
    answer = exchange(client, "POST", f"/{index}/_update/{_NO_DOCUMENT}", body=_UPDATE)
    if answer.status == 403 and not _says_so(answer):
        # Who may only read is asked for the permission first; of a bulk request, for the cluster's alone.
        answer = exchange(client, "POST", f"/{index}/_bulk", body=_BULK_UPDATE, content_type="application/x-ndjson")
    if _says_so(answer):
        raise AccessDenied(
            f"index {index}: a role of this user hides documents or fields, or masks them (document-level or "
            f"field-level security), so what is read is not what is stored; nothing was changed: use a "
            f"cluster.username whose roles have no such rule for {index}"
        )


def _says_so(answer: Answer) -> bool:
    return _SAID.search(answer.body) is not None
