package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// dropbear is dbclient, the client of small systems.
func dropbear() client {
	run := dbclientRun()
	shell := func(t *testing.T, g *guest) *exec.Cmd { return g.dbclient(t, g.target()) }
	return client{
		name:    "Dropbear",
		version: func(t *testing.T) string { return firstLine(t, "dbclient", "-V") },
		need:    needs("dbclient", "dropbearconvert", "sftp", "scp"),
		cells: cellsOf(run, shell, map[string]cell{
			"sftp":            works(copies(dbclientPut("sftp"), dbclientGet("sftp"))).but("OpenSSH's `sftp -S dbclient`"),
			"scp":             works(copies(dbclientPut("scp"), dbclientGet("scp"))).but("OpenSSH's `scp -O -S dbclient`"),
			"-L":              works(forwards(dbclientForward("-L"))),
			"-L unix":         not("dbclient forwards from and to ports alone"),
			"-D":              not("dbclient has no SOCKS proxy"),
			"-R":              works(forwards(dbclientForward("-R"))),
			"Agent":           works(forwardsAgent(dbclientRun("-A"))),
			"X11":             not("dbclient does not forward X11"),
			"End to end":      works(endToEnd(dbclientJump)),
			"Rekey":           not("dbclient begins new keys after 1 GiB, which cannot be changed"),
			"Sends keepalive": works(staysIdle(false, dbclientRun("-K", "1"))),
		}),
	}
}

// dbclient reads known_hosts in the guest's home directory.
func (g *guest) dbclient(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return g.command(t, testenv.Need(t, "dbclient"), append([]string{"-i", g.dropbearKey(t), "-p", g.port()}, args...)...)
}

// dropbearKey is the guest's key in Dropbear's own format.
func (g *guest) dropbearKey(t *testing.T) string {
	t.Helper()
	file := filepath.Join(g.home, g.kind+".dropbear")
	if _, err := os.Stat(file); err != nil {
		mustRun(t, g.command(t, testenv.Need(t, "dropbearconvert"), "openssh", "dropbear", g.key(), file))
	}
	return file
}

func dbclientRun(options ...string) runner {
	return func(t *testing.T, g *guest, command string) *exec.Cmd {
		return g.dbclient(t, append(options, g.target(), command)...)
	}
}

func dbclientForward(option string) forwarder {
	return func(t *testing.T, g *guest, listen, target string) *exec.Cmd {
		return g.dbclient(t, "-N", option, listen+":"+target, g.target())
	}
}

// dbclientJump is dbclient's own way through another host.
func dbclientJump(t *testing.T, g *guest, command string) *exec.Cmd {
	return g.dbclient(t, g.target()+"/"+g.port()+","+task+"@"+task+"/22", command)
}

// dbclientCopy is OpenSSH's scp or sftp with dbclient below, as Dropbear's manual
// has it.
func (g *guest) dbclientCopy(t *testing.T, program string) *exec.Cmd {
	t.Helper()
	wrapper := g.write(t, "wrapper", "#!/bin/sh\nexec "+strings.Join(g.dbclient(t).Args, " ")+" \"$@\"\n")
	if program == "scp" {
		return g.command(t, testenv.Need(t, program), "-O", "-S", wrapper)
	}
	return g.command(t, testenv.Need(t, program), "-S", wrapper)
}

func dbclientPut(program string) copier {
	return func(t *testing.T, g *guest, from, to string) *exec.Cmd {
		return dbclientArgs(g.dbclientCopy(t, program), program, "put", from, to, g.target())
	}
}

func dbclientGet(program string) copier {
	return func(t *testing.T, g *guest, from, to string) *exec.Cmd {
		return dbclientArgs(g.dbclientCopy(t, program), program, "get", from, to, g.target())
	}
}

func dbclientArgs(cmd *exec.Cmd, program, verb, from, to, target string) *exec.Cmd {
	switch {
	case program == "sftp":
		cmd.Args = append(cmd.Args, target)
		cmd.Stdin = strings.NewReader(verb + " " + from + " " + to + "\n")
	case verb == "put":
		cmd.Args = append(cmd.Args, from, target+":"+to)
	default:
		cmd.Args = append(cmd.Args, target+":"+from, to)
	}
	return cmd
}
