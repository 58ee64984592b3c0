// PGlite, which is PostgreSQL in WebAssembly, for many clients at once: `node pglite.mjs PACKAGE` says at which port
// it listens, and ends with its standard input.
//
// PGlite has one session. Its own socket server (`pglite-socket`) hands on the single messages of all connections as
// they come: then two of them cannot prepare a statement of the same name, not even one after the other, and a
// request that fails in its middle swallows the next one of another connection. Here a request is handed on whole.
// While a transaction lasts, only the requests of its connection are. What a connection has prepared has names of its
// own, and ends with the connection, as its transaction does. Each database that a client names is a schema.
//
// What remains of the one session: transactions come one after the other, so that none waits for a row's lock or has
// to be repeated; settings are everybody's; an advisory lock excludes nobody; and a client that hangs in a transaction
// is in everybody's way.

import { createServer } from 'node:net';

const { PGlite } = await import(process.argv[2]);

// The codes of packets that are not the start of a session.
const SSL_REQUEST = 80877103;
const CANCEL_REQUEST = 80877102;

const SETTINGS = { server_version: '18.0', server_encoding: 'UTF8', client_encoding: 'UTF8' };

// What a client has the session do to end what lasts too long. PGlite itself never ends when it comes to that.
const TIMEOUTS = /^SET \w+_timeout/;

const database = await PGlite.create();
const asked = [];
let isBusy = false;
// Whose transaction is open.
let owner = null;
// Which schema names are looked up in.
let schema = null;

function message(type, ...parts) {
  const body = Buffer.concat(parts.map((part) => Buffer.from(part)));
  const head = Buffer.from(`${type}....`);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

const query = (sql) => message('Q', sql, '\0');
const READY = message('Z', 'I');

async function execute(client, request) {
  if (TIMEOUTS.test(request.toString('utf8', 5))) return Buffer.concat([message('C', 'SET\0'), READY]);
  const reply = Buffer.from(await database.execProtocolRaw(request));
  // The last byte of ReadyForQuery.
  owner = reply.at(-1) === 'I'.charCodeAt(0) ? null : client;
  return reply;
}

// Answers what can be answered now.
async function answer() {
  if (isBusy) return;
  isBusy = true;
  for (;;) {
    const next = asked.findIndex(({ client }) => owner === null || owner === client);
    if (next < 0) break;
    const [{ client, request }] = asked.splice(next, 1);
    if (schema !== client.schema) {
      schema = client.schema;
      await execute(null, query(`CREATE SCHEMA IF NOT EXISTS "${schema}"; SET search_path = "${schema}"`));
    }
    const reply = await execute(client, request);
    if (client.socket.writable) client.socket.write(reply);
  }
  isBusy = false;
}

class Client {
  static count = 0;

  constructor(socket) {
    this.number = Client.count++;
    this.socket = socket;
    this.schema = null;
    this.received = Buffer.alloc(0);
    this.request = [];
    this.statements = new Set();
    socket.setNoDelay(true);
    socket.on('data', (bytes) => this.receive(bytes));
    // It is closed then, too.
    socket.on('error', () => {});
    socket.on('close', () => this.end());
  }

  receive(bytes) {
    this.received = Buffer.concat([this.received, bytes]);
    while (this.schema === null ? this.start() : this.next());
  }

  // What has a length at this place, if all of it is there.
  take(at) {
    if (this.received.length < at + 4) return null;
    const length = at + this.received.readInt32BE(at);
    if (this.received.length < length) return null;
    const taken = this.received.subarray(0, length);
    this.received = this.received.subarray(length);
    return taken;
  }

  start() {
    const packet = this.take(0);
    if (packet === null) return false;
    const code = packet.readInt32BE(4);
    if (code === SSL_REQUEST) {
      this.socket.write('N');
    } else if (code === CANCEL_REQUEST) {
      this.socket.end();
    } else {
      const words = packet.toString('utf8', 8).split('\0');
      this.schema = words[words.indexOf('database') + 1];
      const settings = Object.entries(SETTINGS).map(([name, value]) => message('S', `${name}\0${value}\0`));
      this.socket.write(Buffer.concat([message('R', '\0\0\0\0'), ...settings, READY]));
    }
    return true;
  }

  next() {
    const bytes = this.take(1);
    if (bytes === null) return false;
    const type = String.fromCharCode(bytes[0]);
    this.request.push(this.renamed(type, bytes));
    if (type === 'X') this.socket.end();
    if (type === 'Q' || type === 'S') this.ask(Buffer.concat(this.request.splice(0)));
    return true;
  }

  // The message with its statement's name, if it has one, behind this connection's number.
  renamed(type, bytes) {
    const isStatement = bytes[5] === 'S'.charCodeAt(0);
    let start = null;
    if (type === 'P') start = 5;
    if (type === 'B') start = bytes.indexOf(0, 5) + 1;
    if ((type === 'C' || type === 'D') && isStatement) start = 6;
    if (start === null || bytes[start] === 0) return bytes;
    const name = `${this.number}.${bytes.toString('utf8', start, bytes.indexOf(0, start))}`;
    this.statements.add(name);
    return message(type, bytes.subarray(5, start), name, bytes.subarray(bytes.indexOf(0, start)));
  }

  ask(request) {
    asked.push({ client: this, request });
    answer();
  }

  end() {
    if (this.schema === null) return;
    this.ask(query('ROLLBACK'));
    const closed = [...this.statements].map((name) => message('C', `S${name}\0`));
    this.ask(Buffer.concat([...closed, message('S')]));
  }
}

const server = createServer((socket) => new Client(socket));
server.listen(0, '127.0.0.1', () => console.error(`listening at ${server.address().port}`));
process.stdin.resume().on('end', () => process.exit());
