// The action of Stagedoor for GitHub, in one file without dependencies. As main it
// fetches the agent from the gateway and starts it in the background, so that people
// can enter while the job runs. As post, after all other steps, it holds the job if
// that failed, and ends the agent. Nothing that goes wrong here fails a job.
'use strict';

const { spawn, spawnSync } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const registerPatience = 30_000; // ms; the agent goes on trying after that
const endPatience = 15_000;

const env = process.env;
const input = (name) => (env[`INPUT_${name.toUpperCase()}`] ?? '').trim();
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// command writes a workflow command. What it carries is escaped as the runner asks.
function command(name, text) {
  const data = String(text).replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A');
  console.log(`::${name} title=Stagedoor::${data}`);
}

function saveState(name, value) {
  fs.appendFileSync(env.GITHUB_STATE, `${name}=${value}${os.EOL}`);
}

// asked tells whether this run is to be opened.
function asked() {
  const debug = env.STAGEDOOR_DEBUG ?? '';
  return input('when') === 'always' || env.RUNNER_DEBUG === '1' || !['', '0', 'false'].includes(debug.toLowerCase());
}

// download returns what is at a URL. It goes on where it was cut off, as
// curl does, whose proxies are: fetch knows none.
async function download(url) {
  if (env.HTTPS_PROXY || env.https_proxy) {
    const curl = spawnSync('curl', ['-fsSL', '--retry', '3', url], { maxBuffer: 1 << 30 });
    if (curl.status === 0) return curl.stdout;
    throw new Error(`${url}: curl says: ${curl.error?.message ?? curl.stderr}`);
  }
  const parts = []; // what is there already when a slow link is cut
  for (let tries = 1; ; tries++) {
    try {
      const have = parts.reduce((sum, part) => sum + part.length, 0);
      const response = await fetch(url, { headers: have ? { Range: `bytes=${have}-` } : {}, signal: AbortSignal.timeout(120_000) });
      if (!response.ok) throw new Error(`the gateway answers ${response.status}: ${(await response.text()).split('\n')[0]}`);
      if (response.status !== 206) parts.length = 0;
      for await (const part of response.body) parts.push(part);
      return Buffer.concat(parts);
    } catch (error) {
      if (tries === 4) throw new Error(`${url}: ${error.cause?.message ?? error.message}`);
      await sleep(tries * 500);
    }
  }
}

// install returns the path of the agent for this machine, which is what the gateway
// says it is.
async function install(gateway) {
  const system = { linux: 'linux', darwin: 'darwin', win32: 'windows' }[process.platform] ?? process.platform;
  const arch = { x64: 'amd64', arm64: 'arm64' }[process.arch] ?? process.arch;
  const suffix = system === 'windows' ? '.exe' : '';
  const name = `stagedoor-agent_${system}_${arch}${suffix}`;
  const sums = (await download(`https://${gateway}/agents/SHA256SUMS`)).toString();
  const line = sums.split('\n').find((entry) => entry.endsWith(`  ${name}`));
  if (!line) throw new Error(`the gateway has no agent for ${system} on ${arch}`);
  const program = await download(`https://${gateway}/agents/${name}`);
  const sum = crypto.createHash('sha256').update(program).digest('hex');
  if (sum !== line.split(' ')[0]) throw new Error(`${name} has the SHA-256 ${sum}, and the gateway says another`);
  const file = path.join(fs.mkdtempSync(path.join(env.RUNNER_TEMP || os.tmpdir(), 'stagedoor-')), `stagedoor-agent${suffix}`);
  fs.writeFileSync(file, program, { mode: 0o755 });
  return file;
}

// agentEnv is the environment of the job, for the agent and those who enter.
function agentEnv() {
  const own = Object.entries(env).filter(([name]) => !/^(INPUT|STATE)_/.test(name));
  const token = input('token') ? { STAGEDOOR_TOKEN: input('token') } : {};
  return { ...Object.fromEntries(own), STAGEDOOR_GATEWAY: input('gateway'), ...token };
}

function clocks() {
  return ['wait', 'grace', 'hard'].filter((name) => input(name)).flatMap((name) => [`--${name}`, input(name)]);
}

// start runs the agent in the background and waits until people can enter.
async function start(agent) {
  const base = path.join(path.dirname(agent), 'agent');
  const [out, log] = [`${base}.out`, `${base}.log`];
  const child = spawn(agent, ['connect', ...clocks()], {
    detached: true, stdio: ['ignore', fs.openSync(out, 'w'), fs.openSync(log, 'w')], env: agentEnv(), cwd: env.GITHUB_WORKSPACE || process.cwd(),
  });
  let ended = null;
  child.on('error', (error) => { ended = error.message; });
  child.on('exit', (status, signal) => { ended ??= `status ${status ?? signal}`; });
  for (const until = Date.now() + registerPatience; ; await sleep(100)) {
    const over = ended !== null || Date.now() >= until; // before what it wrote last is read
    const text = fs.readFileSync(out, 'utf8');
    if (text.includes('\n')) {
      console.log(`Enter this job with:\n${text.trim()}`);
      command('notice', text.trim());
      leave(agent, child);
      return;
    }
    if (over) break;
  }
  console.log(fs.readFileSync(log, 'utf8'));
  if (ended === null) {
    command('warning', `The gateway ${input('gateway')} cannot be reached; the agent goes on trying.`);
    leave(agent, child);
  } else if (ended !== 'status 0') {
    command('warning', `Nobody can enter this job: the agent ended with ${ended}.`);
  }
}

// leave lets this step end without the agent, which post takes care of.
function leave(agent, child) {
  saveState('agent', agent);
  saveState('pid', child.pid);
  child.unref();
}

async function main() {
  saveState('post', 'true');
  if (!asked()) return;
  if (!/^[A-Za-z0-9.:[\]-]+$/.test(input('gateway'))) throw new Error('gateway: write it as host or host:port');
  await start(await install(input('gateway')));
}

function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function end(pid) {
  if (!alive(pid)) return;
  process.kill(pid, 'SIGTERM');
  for (const until = Date.now() + endPatience; alive(pid) && Date.now() < until;) await sleep(100);
}

// empty tells whether nobody has entered yet.
function empty(agent) {
  const status = spawnSync(agent, ['status', '--json'], { env: agentEnv() });
  try {
    return JSON.parse(status.stdout).guests.length === 0;
  } catch {
    return true;
  }
}

// hold returns how the agent ended: 1 when a guest has failed the job.
function hold(agent) {
  const child = spawn(agent, ['hold', ...clocks()], { stdio: 'inherit', env: agentEnv(), cwd: env.GITHUB_WORKSPACE || process.cwd() });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (status) => resolve(status));
  });
}

async function post() {
  const failed = input('job-status') === 'failure';
  if (!env.STATE_agent) {
    if (failed && !asked()) command('notice', 'For a terminal in this job, press "Re-run jobs" and tick "Enable debug logging".');
    return;
  }
  const [agent, pid] = [env.STATE_agent, Number(env.STATE_pid)];
  try {
    if (!failed && !(input('on') === 'always' && input('job-status') === 'success')) return;
    // Steps since have changed PATH and the environment. As long as nobody is there,
    // an agent of now can take the place of the one from then. It needs a token of its
    // own, which GitHub gives as often as it is asked.
    const token = input('token') || env.STAGEDOOR_TOKEN;
    if (!token && empty(agent)) await end(pid);
    if ((await hold(agent)) === 1) process.exitCode = 1;
  } finally {
    await end(pid);
  }
}

(env.STATE_post ? post() : main()).catch((error) => command('warning', `Nobody can enter this job: ${error.message}`));
