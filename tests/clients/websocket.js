// A WebSocket of a session through `ws`.
"use strict";

const assert = require("node:assert");
const { randomBytes } = require("node:crypto");
const { once } = require("node:events");
const { readFileSync } = require("node:fs");
const WebSocket = require("ws");

const [base, authority, cookie] = process.argv.slice(2);

async function main() {
  const ca = readFileSync(authority);
  const open = async (options) => {
    const url = base.replace("https://", "wss://") + "/ws";
    const socket = new WebSocket(url, { ca, headers: { cookie }, ...options });
    await once(socket, "open");
    return socket;
  };
  const echo = async (socket, what) => {
    const answer = once(socket, "message");
    socket.send(what);
    const [got, binary] = await answer;
    assert.deepStrictEqual(binary ? got : got.toString(), what);
  };

  const socket = await open({ perMessageDeflate: true });
  for (let number = 0; number < 50; number++) await echo(socket, `message ${number}`);
  await echo(socket, randomBytes(3_000_000));
  await echo(socket, "");

  const pieces = once(socket, "message");
  socket.send("in ", { fin: false });
  socket.send("two pieces", { fin: true });
  assert.strictEqual((await pieces)[0].toString(), "in two pieces");

  const pong = once(socket, "pong");
  socket.ping("are you there?");
  assert.strictEqual((await pong)[0].toString(), "are you there?");

  const closed = once(socket, "close");
  socket.close(1000, "done");
  assert.strictEqual((await closed)[0], 1000);

  const many = Array.from({ length: 20 }, async (_, number) => {
    const socket = await open();
    await echo(socket, String(number));
    socket.terminate();
  });
  await Promise.all(many);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
