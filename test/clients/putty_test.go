package clients

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// putty is plink, pscp and psftp.
func putty() client {
	run := plinkRun()
	shell := func(t *testing.T, g *guest) *exec.Cmd { return g.putty(t, "plink", "-t", g.target()) }
	return client{
		name:    "PuTTY",
		version: func(t *testing.T) string { return firstLine(t, "plink", "-V") },
		need:    needs("plink", "pscp", "psftp", "puttygen"),
		cells: cellsOf(run, shell, map[string]cell{
			"sftp":            works(copies(psftp("put"), psftp("get"))),
			"scp":             works(copies(pscpPut, pscpGet)),
			"-L":              works(forwards(plinkForward("-L"))),
			"-L unix":         not("PuTTY forwards from and to ports alone"),
			"-D":              works(forwardsAnywhere(plinkForward("-D"))),
			"-R":              works(forwards(plinkForward("-R"))),
			"Agent":           works(forwardsAgent(plinkRun("-A"))),
			"X11":             works(forwardsX11(plinkRun("-X"))),
			"End to end":      works(endToEnd(plinkJump)),
			"Rekey":           works(rekeys(plinkSaved("RekeyBytes=1M"), "outbound encryption")),
			"Sends keepalive": works(staysIdle(false, plinkSaved("PingInterval=0\nPingIntervalSecs=1"))).but("by messages that want no answer"),
		}),
	}
}

// putty is a program of PuTTY's with the options that reach the gateway. PuTTY
// takes fingerprints of host keys from its command line, and asks nobody.
func (g *guest) putty(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	return g.command(t, testenv.Need(t, program), append(g.puttyOptions(t), args...)...)
}

func (g *guest) puttyOptions(t *testing.T) []string {
	t.Helper()
	return []string{"-batch", "-P", g.port(), "-i", g.ppk(t), "-hostkey", fingerprint(g.hostKey)}
}

// ppk is the guest's key in PuTTY's own format.
func (g *guest) ppk(t *testing.T) string {
	t.Helper()
	file := filepath.Join(g.home, g.kind+".ppk")
	if _, err := os.Stat(file); err != nil {
		mustRun(t, g.command(t, testenv.Need(t, "puttygen"), g.key(), "-O", "private", "-o", file))
	}
	return file
}

func plinkRun(options ...string) runner {
	return func(t *testing.T, g *guest, command string) *exec.Cmd {
		return g.putty(t, "plink", append(options, g.target(), command)...)
	}
}

// plinkSaved runs a command with settings that PuTTY takes from a saved session
// alone.
func plinkSaved(settings string) runner {
	return func(t *testing.T, g *guest, command string) *exec.Cmd {
		t.Helper()
		mustDo(t, os.MkdirAll(filepath.Join(g.home, ".putty", "sessions"), 0o700))
		g.write(t, ".putty/sessions/saved", fmt.Sprintf("HostName=%s\nProtocol=ssh\n%s\n", g.host(), settings))
		args := append([]string{"-v", "-load", "saved"}, g.puttyOptions(t)...)
		return g.command(t, testenv.Need(t, "plink"), append(args, "-l", task, command)...)
	}
}

func plinkForward(option string) forwarder {
	return func(t *testing.T, g *guest, listen, target string) *exec.Cmd {
		_, port, _ := net.SplitHostPort(listen)
		return g.putty(t, "plink", "-N", option, strings.TrimSuffix(port+":"+target, ":"), g.target())
	}
}

// plinkJump makes another plink the inner one's proxy.
func plinkJump(t *testing.T, g *guest, command string) *exec.Cmd {
	t.Helper()
	hop := g.putty(t, "plink", "-nc", task+":22", g.target())
	agent := fingerprint(g.w.agentKey)
	cmd := g.command(t, hop.Path, "-batch", "-i", g.ppk(t), "-hostkey", agent, "-proxycmd", strings.Join(hop.Args, " "), task+"@"+task, command)
	// The proxy outlives it by a moment, and writes to the home directory.
	t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	return cmd
}

func pscpPut(t *testing.T, g *guest, from, to string) *exec.Cmd {
	return g.putty(t, "pscp", "-scp", from, g.target()+":"+to)
}

func pscpGet(t *testing.T, g *guest, from, to string) *exec.Cmd {
	return g.putty(t, "pscp", "-scp", g.target()+":"+from, to)
}

func psftp(verb string) copier {
	return func(t *testing.T, g *guest, from, to string) *exec.Cmd {
		batch := g.write(t, "batch-"+verb, fmt.Sprintf("%s %s %s\n", verb, from, to))
		return g.putty(t, "psftp", "-b", batch, g.target())
	}
}

// fingerprint is a host key as PuTTY wants it.
func fingerprint(key ssh.PublicKey) string { return ssh.FingerprintSHA256(key) }
