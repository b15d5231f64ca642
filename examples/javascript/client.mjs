// OpenSearch's own client through the proxy: npm install && node client.mjs
import { Client } from "@opensearch-project/opensearch";

const client = new Client({ node: process.env.BRIDGE_URL ?? "http://127.0.0.1:9280" });
const query = { multi_match: { query: "waterproof footwear", fields: ["title", "body"] } };

const answer = await client.search({ index: process.env.INDEX ?? "products", body: { query, size: 3 } });

console.log("x-bridge:", answer.headers["x-bridge"]);
for (const hit of answer.body.hits.hits) console.log(hit._score.toFixed(3), hit._source.title);
await client.close();
