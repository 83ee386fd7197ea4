// A session through Node's own HTTP/2 client.
"use strict";

const assert = require("node:assert");
const { once } = require("node:events");
const { readFileSync } = require("node:fs");
const http2 = require("node:http2");

const [base, authority] = process.argv.slice(2);

async function main() {
  const connection = http2.connect(base, { ca: readFileSync(authority) });
  await once(connection, "connect");
  const ask = async (fields, body) => {
    const stream = connection.request(fields, { endStream: body === undefined });
    if (body !== undefined) {
      for (const piece of body) stream.write(piece);
      stream.end();
    }
    const [head] = await once(stream, "response");
    let text = "";
    stream.setEncoding("utf8");
    for await (const piece of stream) text += piece;
    return { head, text };
  };

  const login = await ask({ ":path": "/login?ada" });
  assert.strictEqual(login.text, "ada");
  const home = login.head["x-backend"];
  const cookie = login.head["set-cookie"][0].split(";")[0];
  const same = ({ head, text }, wanted) => {
    assert.deepStrictEqual([head[":status"], text, head["x-backend"]], [200, wanted, home]);
  };

  // All at once on one connection; crumbs of the cookie apart, as HTTP/2 allows.
  const many = Array.from({ length: 50 }, () => ask({ ":path": "/whoami", cookie: ["a=1", cookie, "b=2"] }));
  for (const answer of await Promise.all(many)) same(answer, "ada");

  const post = { ":method": "POST", ":path": "/upload", cookie };
  same(await ask(post, [Buffer.alloc(1_000_000)]), "ada 1000000");
  same(await ask({ ...post, "content-length": 10 }, ["hello", "hello"]), "ada 10");
  same(await ask(post, []), "ada 0");

  const head = await ask({ ":method": "HEAD", ":path": "/whoami", cookie });
  assert.deepStrictEqual([head.text, head.head["content-length"], head.head["x-backend"]], ["", "3", home]);

  // A stream that is given up takes no other with it.
  const given = connection.request({ ...post });
  given.write("half");
  given.close(http2.constants.NGHTTP2_CANCEL);
  await once(given, "close");
  same(await ask({ ":path": "/whoami", cookie }), "ada");

  await new Promise((resolve, reject) => connection.ping((error) => (error ? reject(error) : resolve())));
  connection.close();
  await once(connection, "close");
  console.log(home);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
