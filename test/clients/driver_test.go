package clients

import (
	"maps"
	"net"
	"os/exec"
	"strings"
	"testing"
)

// A driver is a small program of ours around a library, in testdata. All of them
// understand the same command line, an operation and what it needs:
//
//	exec COMMAND            runs a command; its status becomes the driver's
//	keepalive COMMAND       … asking for signs of life every second
//	rekey COMMAND           … with two new key exchanges or more, told on stderr
//	agent COMMAND           … with the agent at SSH_AUTH_SOCK
//	x11 COMMAND             … with DISPLAY, whose cookie is in COOKIE
//	shell                   a shell in a terminal like the driver's own
//	put, get FROM TO        copy a file by sftp; scp-put, scp-get by scp
//	local HOST PORT         connects stdin and stdout to where the host can go
//	unix PATH               … to a unix socket of the host
//	remote PORT HOST PORT   forwards a port of the host; "ready" on stdout says when
//
// AsyncSSH, which can do it by itself, listens:
//
//	local PORT HOST PORT, dynamic PORT
//
// The task is at SSH_HOST, SSH_PORT and SSH_USER, for the key in the file SSH_KEY,
// with its host keys in the file SSH_KNOWN_HOSTS. With SSH_JUMP the same gateway
// leads to the agent of that task, port 22, end to end.
type driver func(t *testing.T) (argv []string)

func (d driver) command(t *testing.T, g *guest, args ...string) *exec.Cmd {
	t.Helper()
	argv := append(d(t), args...)
	cmd := g.command(t, argv[0], argv[1:]...)
	cmd.Env = append(cmd.Env, "SSH_HOST="+g.host(), "SSH_PORT="+g.port(), "SSH_USER="+task, "SSH_KEY="+g.key(), "SSH_KNOWN_HOSTS="+g.knownHosts())
	return cmd
}

// cells are those of a library, whose driver does what nearly all of them can, and
// those that are its own.
func (d driver) cells(own map[string]cell) map[string]cell {
	cells := map[string]cell{
		"sftp":            works(copies(d.copy("put"), d.copy("get"))),
		"-L":              works(pipes(toTCP, d.pipe("local"))),
		"-D":              not("the library opens channels, but is no SOCKS proxy"),
		"-R":              works(forwardsWhenReady(d.forward("remote"))),
		"Agent":           works(forwardsAgent(d.run("agent"))),
		"X11":             works(forwardsX11(d.run("x11"))),
		"End to end":      works(endToEnd(d.jump)),
		"Sends keepalive": works(staysIdle(false, d.run("keepalive"))),
	}
	maps.Copy(cells, own)
	return cellsOf(d.run("exec"), d.shell, cells)
}

// run is the runner of an operation that takes a command.
func (d driver) run(operation string) runner {
	return func(t *testing.T, g *guest, command string) *exec.Cmd { return d.command(t, g, operation, command) }
}

func (d driver) jump(t *testing.T, g *guest, command string) *exec.Cmd {
	t.Helper()
	cmd := d.command(t, g, "exec", command)
	cmd.Env = append(cmd.Env, "SSH_JUMP="+task)
	return cmd
}

func (d driver) shell(t *testing.T, g *guest) *exec.Cmd { return d.command(t, g, "shell") }

// copy is the copier of put, get, scp-put or scp-get.
func (d driver) copy(operation string) copier {
	return func(t *testing.T, g *guest, from, to string) *exec.Cmd { return d.command(t, g, operation, from, to) }
}

// forward is the forwarder of an operation that listens on a port.
func (d driver) forward(operation string) forwarder {
	return func(t *testing.T, g *guest, listen, target string) *exec.Cmd {
		_, port, _ := net.SplitHostPort(listen)
		return d.command(t, g, append([]string{operation, port}, address(target)...)...)
	}
}

// pipe is the piper of local or unix.
func (d driver) pipe(operation string) piper {
	return func(t *testing.T, g *guest, target string) *exec.Cmd {
		return d.command(t, g, append([]string{operation}, address(target)...)...)
	}
}

// address is a target as drivers take it: host and port, a path, or nothing.
func address(target string) []string {
	if host, port, err := net.SplitHostPort(target); err == nil {
		return []string{host, port}
	}
	return strings.Fields(target)
}
