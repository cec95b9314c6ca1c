// Writes a line to PostgreSQL every second while this pod leads. A late writer, whose claim is over, is refused.
"use strict";
const os = require("node:os");
const { setTimeout: sleep } = require("node:timers/promises");
const { Client } = require("pg");
const claim = require("./claim.js");

const writer = process.env.POD_NAME || os.hostname();

// Returns false if a later leader has written.
async function write(token) {
  const client = new Client({ connectionString: process.env.DATABASE_URL });
  client.on("error", () => {}); // a connection that breaks fails the query, too
  await client.connect();
  try {
    await client.query("BEGIN");
    // First the fence, which stays locked until the commit: a later leader's write came before, or comes after.
    const fence = await client.query("UPDATE fence SET token = $1 WHERE name = 'report' AND token <= $1", [token]);
    if (fence.rowCount === 0) return false;
    await client.query("INSERT INTO report (token, writer) VALUES ($1, $2)", [token, writer]);
    await client.query("COMMIT");
    return true;
  } finally {
    await client.end(); // without COMMIT nothing is written
  }
}

async function main() {
  for (let was; ; await sleep(1000)) {
    const token = claim.token();
    if (token !== was) console.log(token === null ? "standing by" : `leading with token ${token}`);
    was = token;
    if (token === null) continue;
    try {
      if (await write(token)) console.log(`wrote with token ${token}`);
      else console.log(`refused: a later leader than that of token ${token} has written`);
    } catch (e) {
      console.log(`not written: ${e.message}`);
    }
  }
}

main();
