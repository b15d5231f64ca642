"""What applications send to a cluster, for comparing a proxy's answers with the cluster's own."""

SEARCHES = """
{"query":{"match_all":{}}}
{"query":{"match_all":{}},"sort":["n"],"size":3}
{"query":{"match":{"title":"wing"}},"sort":[{"n":"desc"}],"search_after":[7]}
{"query":{"match":{"title":"wing"}},"size":0,"aggs":{"k":{"terms":{"field":"kind"}}}}
{"query":{"match":{"title":"wing"}},"collapse":{"field":"kind"},"sort":["n"]}
{"query":{"match":{"title":"shoe"}},"highlight":{"fields":{"title":{}}},"_source":["title"]}
{"query":{"term":{"kind":"ad"}},"explain":true}
{"query":{"range":{"n":{"gte":3}}},"fields":["n"],"_source":false}
{"query":{"query_string":{"query":"title:wing AND n:[1 TO 4]"}}}
{"query":{"bool":{"filter":[{"match":{"body":"wing"}}]}},"sort":["n"]}
{"query":{"script_score":{"query":{"match_all":{}},"script":{"source":"doc['n'].value"}}}}
{"query":{"match":{"titel":"wing"}}}
{"query":{"nonsense":{}}}
{"quer":{}}
{"query":{"match":{"title":"wing"}},"from":9999,"size":10}
{"suggest":{"s":{"text":"wng","term":{"field":"title"}}}}
{"query":{"match_phrase":{"title":"red shoe"}}}
{"query":{"match":{"title":"wing"}},"rescore":{"query":{"rescore_query":{"match":{"body":"flow"}}}}}
{"query":{"match":{"title":"wing"}},"knn":{}}
{"query":{"match":{"title":"wing"}},"min_score":100}
""".strip().splitlines()

PARAMETERS = [
    "",
    "?pretty",
    "?filter_path=hits.hits._id,hits.total",
    "?typed_keys=true",
    "?rest_total_hits_as_int=true",
    "?format=yaml",
]

# Method, target and, where there is one, the body; INDEX stands for the index.
OTHERS = r"""
POST /INDEX/_search {"query": /* all */ {"match_all": {}}, "sort": ["n"]}
POST /INDEX/_search {"query":{"match_all":{}},"query":{"match_all":{}}}
POST /INDEX/_search {"query":{"match_all":{}},}
POST /INDEX/_search {
POST /INDEX/_search []
POST /INDEX/_search nonsense
POST /INDEX/_search?format=cbor {"query":{"match_all":{}},"sort":["n"]}
POST /INDEX/_search?format=smile {"query":{"match_all":{}},"sort":["n"]}
GET /INDEX/_search
GET /INDEX/_search?q=title:wing
GET /INDEX/_search?q=wing&size=2&sort=n
GET /INDEX/_search?source=%7B%22query%22%3A%7B%22match_all%22%3A%7B%7D%7D%7D&source_content_type=application/json
GET /_search?q=nothing-like-this
GET /INDEX,INDEX/_search?q=wing&sort=n
GET /IND*/_search?q=nothing-like-this
GET /
GET /?pretty
GET /INDEX
GET /INDEX?human
GET /INDEX/_mapping
GET /INDEX/_mapping/field/title
GET /INDEX/_settings
GET /INDEX/_settings?flat_settings
GET /INDEX/_alias
GET /INDEX/_count
GET /INDEX/_count?q=title:wing
GET /INDEX/_doc/shoe
GET /INDEX/_doc/gone
GET /INDEX/_source/shoe
GET /INDEX/_source/shoe?_source_includes=title
GET /INDEX/_explain/shoe?q=red
GET /INDEX/_termvectors/shoe?fields=title
GET /INDEX/_field_caps?fields=*
GET /INDEX/_validate/query?q=x:y
GET /INDEX/_doc/a%2Fb
GET /INDEX/_doc/%C3%BC
GET /INDEX/_doc/a+b%20c
GET /%3CINDEX%3E/_doc/shoe
GET //INDEX//_doc/shoe
GET /_cat
GET /_cat/aliases
GET /_cat/count/INDEX?h=count
GET /_cat/count/INDEX?format=json&h=count
GET /_cat/indices/INDEX?h=docs.count
GET /_cat/indices/INDEX?v&h=docs.count&format=yaml
GET /_cat/nodes?h=name,node.role
GET /_cat/plugins
GET /_cat/shards/INDEX?h=shard,prirep,state
GET /_cat/templates?h=name
GET /_cat/no_such_table
GET /_cluster/health/INDEX?level=shards&filter_path=status
GET /_cluster/settings
GET /_cluster/settings?include_defaults&flat_settings&filter_path=defaults.search*
GET /_nodes?filter_path=nodes.*.version
GET /_nodes/_all/os?filter_path=_nodes
GET /_ingest/pipeline
GET /_template/none
GET /_index_template
GET /_resolve/index/INDEX?filter_path=data_streams
GET /_snapshot
GET /_tasks?actions=none
GET /_remote/info
GET /_search/pipeline
GET /_analyze?text=wings&analyzer=english
GET /_plugins/_knn/stats?filter_path=cluster_name
GET /no-such-index
GET /no-such-index/_search
GET /_no_such_api
HEAD /
HEAD /INDEX
HEAD /INDEX/_doc/shoe
HEAD /INDEX/_doc/gone
HEAD /no-such-index
OPTIONS /
OPTIONS /INDEX/_search
TRACE /
PATCH /INDEX {}
POST /INDEX/_count {"query":{"match":{"title":"wing"}}}
POST /INDEX/_count {"query":{"nonsense":{}}}
POST /INDEX/_mget {"ids":["shoe","gone"]}
POST /INDEX/_validate/query?explain {"query":{"match":{"title":"wing"}}}
POST /INDEX/_explain/shoe {"query":{"match":{"title":"red"}}}
POST /INDEX/_analyze {"field":"title","text":"running wings"}
POST /INDEX/_search/template {"source":{"query":{"term":{"kind":"{{k}}"}},"sort":["n"]},"params":{"k":"ad"}}
POST /_render/template {"source":{"query":{"term":{"kind":"{{k}}"}}},"params":{"k":"ad"}}
POST /INDEX/_search?scroll=1m&size=2 {"query":{"match_all":{}},"sort":["n"]}
POST /INDEX/_search/point_in_time?keep_alive=1m
POST /_search/scroll {"scroll_id":"nonsense"}
DELETE /_search/scroll {"scroll_id":["nonsense"]}
POST /_reindex {"source":{"index":"no-such-index"},"dest":{"index":"x"}}
POST /_ingest/pipeline/_simulate {"pipeline":{"processors":[{"set":{"field":"a","value":1}}]},"docs":[]}
POST /_msearch {"index":"INDEX"}\n{"query":{"match":{"title":"wing"}}}\n{"index":"none"}\n{}\n
POST /INDEX/_msearch?typed_keys {}\n{"query":{"term":{"kind":"ad"}},"sort":["n"]}\n{}\n{"query":{"nonsense":{}}}\n
POST /INDEX/_msearch {}\n{"query":{"term":{"kind":"ad"}},"sort":["n"]}\n
POST /_msearch nonsense\n
PUT /INDEX/_doc/new-0 {"title":"new","n":10}
PUT /INDEX/_doc/new-1?refresh {"title":"new","n":11}
PUT /INDEX/_doc/new-2?op_type=create {"n":12}
PUT /INDEX/_doc/new-2?op_type=create {"n":13}
PUT /INDEX/_doc/new-3?version=7&version_type=external {"n":14}
PUT /INDEX/_doc/new-3?version=6&version_type=external {"n":14}
PUT /INDEX/_doc/new-4?routing=r&refresh {"n":15}
PUT /INDEX/_doc/new-5?if_seq_no=1000&if_primary_term=1 {"n":15}
PUT /INDEX/_doc/bad {"n":"no number"}
POST /INDEX/_update/new-0 {"doc":{"n":9}}
POST /INDEX/_update/gone {"doc":{"n":9}}
POST /INDEX/_update/new-0?refresh {"script":"ctx._source.n += 1"}
DELETE /INDEX/_doc/new-1?refresh
DELETE /INDEX/_doc/gone
POST /INDEX/_bulk?refresh {"index":{"_id":"b1"}}\n{"n":1}\n{"create":{"_id":"b1"}}\n{"n":2}\n{"delete":{"_id":"b2"}}\n
POST /INDEX/_bulk {"index":{"_id":"b3"}}\n{"n":"bad"}\n
POST /INDEX/_bulk {"index":{"_id":"b4"}}\n{"n":1}
POST /INDEX/_delete_by_query?refresh {"query":{"term":{"n":1}}}
POST /INDEX/_update_by_query?refresh&conflicts=proceed {"query":{"term":{"n":2}}}
PUT /INDEX/_mapping {"properties":{"extra":{"type":"keyword"}}}
PUT /INDEX/_mapping {"properties":{"n":{"type":"text"}}}
PUT /INDEX/_settings {"index":{"refresh_interval":"2s"}}
PUT /INDEX/_settings {"index":{"number_of_shards":3}}
POST /INDEX/_refresh
POST /INDEX/_flush
POST /INDEX/_forcemerge?max_num_segments=1
POST /INDEX/_cache/clear
POST /_aliases {"actions":[{"add":{"index":"INDEX","alias":"INDEX-a"}}]}
GET /INDEX-a/_doc/shoe
POST /INDEX/_close
POST /INDEX/_search {"query":{"match":{"title":"wing"}}}
POST /INDEX/_open
GET /INDEX/_search?q=n:15&size=50
""".strip().splitlines()


def recorded_requests(index: str) -> list[tuple[str, str, bytes]]:
    """Method, target and body of each; the same list for each index, so that two can be compared."""
    searches = [f"POST /INDEX/_search{parameters} {body}" for body in SEARCHES for parameters in PARAMETERS]
    asked = []
    for line in [*searches, *OTHERS]:
        method, target, body = [*line.replace("INDEX", index).split(" ", 2), ""][:3]
        asked.append((method, target, body.replace(r"\n", "\n").encode()))
    return asked
