package clients

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// openSSH is the client that nearly everybody has.
func openSSH() client {
	run := openSSHRun()
	shell := func(t *testing.T, g *guest) *exec.Cmd { return g.openSSH(t, "ssh", g.target()) }
	return client{
		name:    "OpenSSH",
		version: func(t *testing.T) string { return firstLine(t, "ssh", "-V") },
		need:    needs("ssh", "scp", "sftp", "ssh-add"),
		cells: cellsOf(run, shell, map[string]cell{
			"sftp":            works(copies(openSSHPut("scp", "-s"), openSSHGet("scp", "-s"))),
			"scp":             works(copies(openSSHPut("scp", "-O"), openSSHGet("scp", "-O"))),
			"-L":              works(forwards(openSSHForward("-L"))),
			"-L unix":         works(forwardsUnix(openSSHForward("-L"))),
			"-D":              works(forwardsAnywhere(openSSHForward("-D"))),
			"-R":              works(forwards(openSSHForward("-R"))),
			"Agent":           works(forwardsAgent(openSSHRun("-A"))),
			"X11":             works(forwardsX11(openSSHRun("-Y"))),
			"End to end":      works(endToEnd(openSSHJump)),
			"Rekey":           works(rekeys(openSSHRun("-v", "-o", "RekeyLimit=1M"), "SSH2_MSG_NEWKEYS received")),
			"Sends keepalive": works(staysIdle(false, openSSHRun("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=30"))),
		}),
	}
}

// openSSHOptions are those with which OpenSSH's programs take nothing from the
// machine that they run on.
func (g *guest) openSSHOptions() []string {
	return []string{
		"-F", "none",
		"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + g.knownHosts(),
		"-o", "GlobalKnownHostsFile=none", "-o", "IdentitiesOnly=yes", "-o", "IdentityFile=" + g.key(),
		"-o", "ConnectTimeout=120", "-o", "Port=" + g.port(),
	}
}

func (g *guest) openSSH(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	return g.command(t, testenv.Need(t, program), append(g.openSSHOptions(), args...)...)
}

// openSSHRun runs a command by ssh with more options.
func openSSHRun(options ...string) runner {
	return func(t *testing.T, g *guest, command string) *exec.Cmd {
		t.Helper()
		return g.openSSH(t, "ssh", append(options, g.target(), command)...)
	}
}

func openSSHPut(program string, options ...string) copier {
	return func(t *testing.T, g *guest, from, to string) *exec.Cmd {
		return g.openSSH(t, program, append(options, from, g.target()+":"+to)...)
	}
}

func openSSHGet(program string, options ...string) copier {
	return func(t *testing.T, g *guest, from, to string) *exec.Cmd {
		return g.openSSH(t, program, append(options, g.target()+":"+from, to)...)
	}
}

// openSSHForward is ssh with one forwarding and nothing else.
func openSSHForward(option string) forwarder {
	return func(t *testing.T, g *guest, listen, target string) *exec.Cmd {
		spec := strings.TrimSuffix(listen+":"+target, ":")
		return g.openSSH(t, "ssh", "-N", "-o", "ExitOnForwardFailure=yes", option, spec, g.target())
	}
}

// Hosts of the configuration that openSSHConfig writes.
const (
	spliced = "gateway" // joined by the gateway
	through = "agent"   // end to end
)

// openSSHJump is what ssh -J does, which passes no options on to the jump: they
// come from a file.
func openSSHJump(t *testing.T, g *guest, command string) *exec.Cmd {
	t.Helper()
	return g.command(t, testenv.Need(t, "ssh"), "-F", g.openSSHConfig(t), "-J", spliced, task+"@"+task, command)
}

// openSSHConfig writes a file with both ways to the task.
func (g *guest) openSSHConfig(t *testing.T) string {
	t.Helper()
	return g.write(t, "ssh_config", fmt.Sprintf(`Host %s
	HostName %s
	Port %s
	User %s
Host %s
	HostName %[4]s
	User %[4]s
	ProxyJump %[1]s
Host *
	BatchMode yes
	StrictHostKeyChecking yes
	UserKnownHostsFile %[6]s
	GlobalKnownHostsFile none
	IdentitiesOnly yes
	IdentityFile %[7]s
	ConnectTimeout 120
`, spliced, g.host(), g.port(), task, through, g.knownHosts(), g.key()))
}
