"""Does with asyncssh what the tests ask for; see driver_test.go."""

import asyncio
import os
import signal
import sys
import tty

import asyncssh

CHUNK = 32 << 10


async def connect(**more):
    env = os.environ
    common = dict(known_hosts=env["SSH_KNOWN_HOSTS"], client_keys=[env["SSH_KEY"]], config=None,
                  x509_trusted_certs=None, agent_path=env.get("SSH_AUTH_SOCK"), agent_identities=None)
    outer = await asyncssh.connect(env["SSH_HOST"], int(env["SSH_PORT"]), username=env["SSH_USER"], **common, **more)
    if "SSH_JUMP" not in env:
        return outer
    task = env["SSH_JUMP"]
    return await asyncssh.connect(task, 22, username=task, tunnel=outer, **common, **more)


async def stdin():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def copy(reader, write, drain):
    while data := await reader.read(CHUNK):
        write(data)
        await drain()


async def copy_in(writer):
    await copy(await stdin(), writer.write, writer.drain)
    writer.write_eof()


async def copy_out(reader, fd):
    while data := await reader.read(CHUNK):
        while data:
            data = data[os.write(fd, data):]


async def pipe(process):
    feeding = asyncio.create_task(copy_in(process.stdin))
    await asyncio.gather(copy_out(process.stdout, 1), copy_out(process.stderr, 2))
    await process.wait_closed()
    feeding.cancel()
    return process.exit_status


async def run_exec(command, session={}, **options):
    connection = await connect(**options)
    return await pipe(await connection.create_process(command, encoding=None, **session))


async def run_keepalive(command):
    return await run_exec(command, keepalive_interval=1, keepalive_count_max=30)


async def run_agent(command):
    return await run_exec(command, agent_forwarding=True)


async def run_x11(command):
    return await run_exec(command, dict(x11_forwarding=True))


async def run_shell():
    connection = await connect()
    size = os.get_terminal_size()
    process = await connection.create_process(term_type="xterm", term_size=(size.columns, size.lines), encoding=None)

    def resize():
        size = os.get_terminal_size()
        process.change_terminal_size(size.columns, size.lines)

    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, resize)
    tty.setraw(0)
    return await pipe(process)


async def run_put(local, remote):
    async with (await connect()).start_sftp_client() as sftp:
        await sftp.put(local, remote)


async def run_get(remote, local):
    async with (await connect()).start_sftp_client() as sftp:
        await sftp.get(remote, local)


async def run_scp_put(local, remote):
    await asyncssh.scp(local, (await connect(), remote))


async def run_scp_get(remote, local):
    await asyncssh.scp((await connect(), remote), local)


async def forever(listener):
    await listener.wait_closed()


async def run_local(listen, host, port):
    await forever(await (await connect()).forward_local_port("127.0.0.1", int(listen), host, int(port)))


async def run_unix(path):
    reader, writer = await (await connect()).open_unix_connection(path)
    await asyncio.gather(copy_in(writer), copy_out(reader, 1))


async def run_dynamic(listen):
    await forever(await (await connect()).forward_socks("127.0.0.1", int(listen)))


async def run_remote(listen, host, port):
    listener = await (await connect()).forward_remote_port("127.0.0.1", int(listen), host, int(port))
    print("ready", flush=True)
    await forever(listener)


if __name__ == "__main__":
    status = asyncio.run(globals()["run_" + sys.argv[1].replace("-", "_")](*sys.argv[2:]))
    sys.stdout.flush()
    os._exit(status or 0)  # a thread may be reading stdin
