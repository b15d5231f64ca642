// A search through the proxy with Node's own fetch: node search.mjs
const url = process.env.BRIDGE_URL ?? "http://127.0.0.1:9280";
const index = process.env.INDEX ?? "products";
const query = { multi_match: { query: "waterproof footwear", fields: ["title", "body"] } };

const answer = await fetch(`${url}/${index}/_search`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ query, size: 3 }),
});
if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);

console.log("x-bridge:", answer.headers.get("x-bridge"));
for (const hit of (await answer.json()).hits.hits) console.log(hit._score.toFixed(3), hit._source.title);
