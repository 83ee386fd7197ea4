// The body of a function in the page: what a WebSocket echoes, and how it closes.
return new Promise((resolve, reject) => {
  const socket = new WebSocket(`wss://${location.host}/ws`);
  const messages = [];
  const count = 20;
  socket.onerror = () => reject(new Error("no WebSocket"));
  socket.onopen = () => {
    for (let number = 0; number < count; number++) socket.send(`message ${number}`);
  };
  socket.onmessage = (event) => {
    messages.push(event.data);
    if (messages.length === count) socket.close(1000);
  };
  socket.onclose = (event) => resolve({ messages, code: event.code });
});
