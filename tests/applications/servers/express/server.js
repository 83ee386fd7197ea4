// express with its sessions in memory; socket.io shares them.
const [port, instance] = process.argv.slice(2);
const express = require("express");
const session = require("express-session");
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const app = express();
app.set("trust proxy", true);
const sessions = session({
  secret: "the same everywhere",
  resave: false,
  saveUninitialized: false,
  cookie: { secure: true },
});
app.get("/health", (_, response) => response.end("ok"));
app.use(sessions, express.urlencoded({ extended: false }));
app.get("/page", (_, response) => response.end("a page"));
app.post("/login", (request, response) => {
  request.session.regenerate(() => {
    Object.assign(request.session, { user: request.body.user, count: 0 });
    response.json({ instance, user: request.session.user });
  });
});
app.get("/visit", (request, response) => {
  if (request.session.user) request.session.count += 1;
  response.json({ instance, user: request.session.user, count: request.session.count });
});

const server = createServer(app);
const io = new Server(server);
io.engine.use(sessions);
io.on("connection", (socket) => {
  socket.on("visit", (answer) => {
    const { request } = socket;
    request.session.reload((error) => {
      if (error) return answer({ instance, user: null, count: null });
      request.session.count += 1;
      request.session.save(() => answer({ instance, user: request.session.user, count: request.session.count }));
    });
  });
});
// Without a session: the user says at each connection who they are, and what they left is in memory.
const counts = new Map();
io.of("/plain").on("connection", (socket) => {
  const { user } = socket.handshake.auth;
  if (!counts.has(user)) counts.set(user, 0);
  socket.on("visit", (answer) => {
    counts.set(user, counts.get(user) + 1);
    answer({ instance, user, count: counts.get(user) });
  });
});
server.listen(Number(port), "127.0.0.1");
