"""Does with paramiko what the tests ask for; see driver_test.go."""

import os
import select
import signal
import socket
import sys
import threading
import tty

import paramiko
from paramiko.agent import AgentRequestHandler

CHUNK = 32 << 10


def connect(host, port, user, sock=None):
    client = paramiko.SSHClient()
    client.load_host_keys(os.environ["SSH_KNOWN_HOSTS"])
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(host, port, user, key_filename=os.environ["SSH_KEY"], sock=sock,
                   allow_agent=False, look_for_keys=False, timeout=30)
    return client


def connect_task():
    env = os.environ
    client = connect(env["SSH_HOST"], int(env["SSH_PORT"]), env["SSH_USER"])
    if "SSH_JUMP" in env:
        task = env["SSH_JUMP"]
        channel = client.get_transport().open_channel("direct-tcpip", (task, 22), ("", 0))
        inner = connect(task, 22, task, channel)
        inner.outer = client  # ends with the inner one
        return inner
    return client


def copy_in(channel):
    while data := os.read(0, CHUNK):
        channel.sendall(data)
    channel.shutdown_write()


def copy_out(receive, fd):
    while data := receive(CHUNK):
        while data:
            data = data[os.write(fd, data):]


def pipe(channel, status=True):
    """Joins the channel to this process's own descriptors until it ends."""
    threading.Thread(target=copy_in, args=(channel,), daemon=True).start()
    stderr = threading.Thread(target=copy_out, args=(channel.recv_stderr, 2))
    stderr.start()
    copy_out(channel.recv, 1)
    stderr.join()
    return channel.recv_exit_status() if status else 0


def run_exec(client, command):
    channel = client.get_transport().open_session()
    channel.exec_command(command)
    return pipe(channel)


def run_keepalive(client, command):
    client.get_transport().set_keepalive(1)
    return run_exec(client, command)


def run_rekey(client, command):
    transport = client.get_transport()
    done = threading.Event()

    def renew():
        for _ in range(2):
            transport.renegotiate_keys()
            print("new keys", file=sys.stderr, flush=True)
        done.set()

    channel = transport.open_session()
    channel.exec_command(command)
    threading.Thread(target=renew, daemon=True).start()
    status = pipe(channel)
    return status if done.wait(30) else 1


def run_shell(client):
    channel = client.get_transport().open_session()
    size = os.get_terminal_size()
    channel.get_pty("xterm", size.columns, size.lines)
    tty.setraw(0)

    def resize(*_):
        size = os.get_terminal_size()
        channel.resize_pty(size.columns, size.lines)

    signal.signal(signal.SIGWINCH, resize)
    channel.invoke_shell()
    return pipe(channel)


def run_put(client, local, remote):
    client.open_sftp().put(local, remote)


def run_get(client, remote, local):
    client.open_sftp().get(remote, local)


def run_local(client, host, port):
    channel = client.get_transport().open_channel("direct-tcpip", (host, int(port)), ("127.0.0.1", 0))
    return pipe(channel, status=False)


def join(channel, sock):
    """Copies both ways, each with its own end."""
    def there():
        copy_to(channel.recv, sock.sendall)
        sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=there, daemon=True)
    thread.start()
    copy_to(sock.recv, channel.sendall)
    channel.shutdown_write()
    thread.join()
    channel.close()


def copy_to(receive, send):
    while data := receive(CHUNK):
        send(data)


def run_remote(client, port, host, target):
    transport = client.get_transport()
    transport.request_port_forward("127.0.0.1", int(port))
    print("ready", flush=True)
    while channel := transport.accept(60):
        sock = socket.create_connection((host, int(target)))
        threading.Thread(target=join, args=(channel, sock), daemon=True).start()


def run_agent(client, command):
    channel = client.get_transport().open_session()
    AgentRequestHandler(channel)
    channel.exec_command(command)
    return pipe(channel)


def run_x11(client, command):
    channel = client.get_transport().open_session()

    def opened(x11, _):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect("/tmp/.X11-unix/X" + os.environ["DISPLAY"].strip(":"))
        threading.Thread(target=join, args=(x11, sock), daemon=True).start()

    # The cookie is the display's own, so there is none to replace on the way.
    channel.request_x11(auth_cookie=os.environ["COOKIE"], handler=opened)
    channel.exec_command(command)
    return pipe(channel)


if __name__ == "__main__":
    task = connect_task()
    status = globals()["run_" + sys.argv[1]](task, *sys.argv[2:])
    sys.stdout.flush()
    os._exit(status or 0)  # daemon threads may be reading stdin
