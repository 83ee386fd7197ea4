// socket.io's own client for many users: commands come as lines of JSON, and so do the answers.
const origin = process.argv[2];
const { io } = require("socket.io-client");
const users = new Map();

const say = (id, answer) => console.log(JSON.stringify({ id, ...answer }));
const commands = {
  open({ id, user, cookie, transports, plain }) {
    const options = { transports, forceNew: true, extraHeaders: { cookie }, auth: { user } };
    const socket = io(plain ? `${origin}/plain` : origin, options);
    Object.assign(socket, { seen: [], transports });
    socket.on("disconnect", (reason) => socket.seen.push(reason));
    socket.on("connect_error", (error) => socket.seen.push(`${error.message} ${error.context?.status ?? ""}`));
    users.set(user, socket);
    const open = () => say(id, {});
    socket.once("connect", () => {
      const engine = socket.io.engine;
      if (transports.length === 1 || engine.transport.name === "websocket") open();
      else engine.once("upgrade", open);
    });
  },
  visit({ id, user }) {
    const socket = users.get(user);
    // As long as it takes to connect again, if the connection was cut, and then to leave polling.
    socket.timeout(8000).emit("visit", (error, answer) => {
      if (error) return say(id, { error: `no answer; seen: ${socket.seen.join(", ")}` });
      const { engine } = socket.io;
      const done = () => say(id, { ...answer, transport: engine.transport.name });
      if (socket.transports.length === 1 || engine.transport.name === "websocket") return done();
      const timer = setTimeout(done, 10000);
      engine.once("upgrade", () => {
        clearTimeout(timer);
        done();
      });
    });
  },
  close({ id, user }) {
    users.get(user)?.disconnect();
    users.delete(user);
    say(id, {});
  },
};
require("node:readline").createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line);
    commands[command.do](command);
  })
  .on("close", () => process.exit());
