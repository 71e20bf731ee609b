// Does with ssh2 what the tests ask for; see driver_test.go.
'use strict';

const fs = require('fs');
const net = require('net');
const { Client } = require('ssh2');

const env = process.env;

// hostKeys are the keys that known_hosts has for a name: the library leaves that
// to its user.
function hostKeys(name) {
  return fs.readFileSync(env.SSH_KNOWN_HOSTS, 'utf8').split('\n')
    .map((line) => line.split(' '))
    .filter(([host]) => host === name)
    .map(([, , key]) => Buffer.from(key, 'base64'));
}

function fail(err) {
  process.stderr.write(`${err && err.stack || err}\n`);
  process.exit(1);
}

function connect(name, options, ready) {
  const client = new Client();
  const known = hostKeys(name);
  client.on('error', fail);
  client.on('ready', () => ready(client));
  client.connect({
    username: env.SSH_USER,
    privateKey: fs.readFileSync(env.SSH_KEY),
    hostVerifier: (key) => known.some((k) => k.equals(key)),
    readyTimeout: 30000,
    strictVendor: false, // or it opens no channels to unix sockets of what is not OpenSSH
    ...options,
  });
}

function connectTask(options, ready) {
  const { SSH_HOST: host, SSH_PORT: port, SSH_JUMP: task } = env;
  const first = task ? {} : options;
  connect(`[${host}]:${port}`, { host, port: Number(port), ...first }, (client) => {
    if (!task) return ready(client);
    client.forwardOut('127.0.0.1', 0, task, 22, (err, sock) => {
      if (err) fail(err);
      connect(task, { sock, username: task, ...options }, ready);
    });
  });
}

// end leaves when what was printed is on its way.
function end(status) {
  process.stdout.write('', () => process.stderr.write('', () => process.exit(status)));
}

function pipe(stream) {
  let status = 0;
  process.stdin.pipe(stream);
  stream.pipe(process.stdout);
  if (stream.stderr) stream.stderr.pipe(process.stderr);
  stream.on('exit', (code) => { status = code === null ? 1 : code; });
  stream.on('close', () => end(status));
}

function exec(command, options, session) {
  connectTask(options, (client) => client.exec(command, session || {}, (err, stream) => {
    if (err) fail(err);
    pipe(stream);
  }));
}

function rekey(command) {
  connectTask({}, (client) => client.exec(command, (err, stream) => {
    if (err) fail(err);
    let left = 2;
    client.on('handshake', () => {
      process.stderr.write('new keys\n');
      // The method of the client that the manual names does not exist.
      if (--left) client._protocol.rekey();
    });
    client._protocol.rekey();
    pipe(stream);
  }));
}

function shell() {
  const size = () => ({ rows: process.stdout.rows, cols: process.stdout.columns });
  connectTask({}, (client) => client.shell({ term: 'xterm', ...size() }, (err, stream) => {
    if (err) fail(err);
    process.stdin.setRawMode(true);
    process.stdout.on('resize', () => stream.setWindow(size().rows, size().cols, 0, 0));
    pipe(stream);
  }));
}

function sftp(verb, from, to) {
  connectTask({}, (client) => client.sftp((err, files) => {
    if (err) fail(err);
    files[verb](from, to, (err) => (err ? fail(err) : end(0)));
  }));
}

function opened(err, stream) {
  if (err) fail(err);
  stream.allowHalfOpen = true;
  process.stdin.pipe(stream);
  stream.pipe(process.stdout);
  stream.on('close', () => end(0));
}

function remote(port, host, target) {
  connectTask({}, (client) => {
    client.on('tcp connection', (info, accept) => {
      const stream = accept();
      const sock = net.connect({ host, port: Number(target), allowHalfOpen: true });
      stream.pipe(sock).pipe(stream);
    });
    client.forwardIn('127.0.0.1', Number(port), (err) => (err ? fail(err) : console.log('ready')));
  });
}

function x11(command) {
  connectTask({}, (client) => {
    client.on('x11', (info, accept) => {
      const sock = net.connect(`/tmp/.X11-unix/X${env.DISPLAY.replace(':', '')}`);
      const stream = accept();
      stream.pipe(sock).pipe(stream);
    });
    // The cookie is the display's own, so there is none to replace on the way.
    client.exec(command, { x11: { cookie: env.COOKIE } }, (err, stream) => {
      if (err) fail(err);
      pipe(stream);
    });
  });
}

const [operation, ...args] = process.argv.slice(2);
({
  exec: (command) => exec(command, {}),
  keepalive: (command) => exec(command, { keepaliveInterval: 1000, keepaliveCountMax: 30 }),
  rekey,
  agent: (command) => exec(command, { agent: env.SSH_AUTH_SOCK, agentForward: true }),
  x11,
  shell,
  put: (from, to) => sftp('fastPut', from, to),
  get: (from, to) => sftp('fastGet', from, to),
  local: (host, port) => connectTask({}, (c) => c.forwardOut('127.0.0.1', 0, host, Number(port), opened)),
  unix: (path) => connectTask({}, (c) => c.openssh_forwardOutStreamLocal(path, opened)),
  remote,
})[operation](...args);
