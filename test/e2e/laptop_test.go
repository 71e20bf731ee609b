package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// laptop is a guest's machine: the configuration and known hosts that its ssh
// reads, where nothing may be asked.
type laptop struct {
	t      *testing.T
	dir    string
	config string // file
	known  string // file
}

// newLaptop sets up a machine with one key, that knows the host keys given as
// lines of known_hosts. More lines of configuration go in front: of two settings
// ssh takes the first.
func newLaptop(t *testing.T, key testenv.Key, known []string, more ...string) *laptop {
	t.Helper()
	dir := t.TempDir()
	l := &laptop{t: t, dir: dir, config: filepath.Join(dir, "config"), known: filepath.Join(dir, "known_hosts")}
	mustDo(t, os.WriteFile(l.known, []byte(strings.Join(known, "\n")+"\n"), 0o600))
	text := append(more, "Host *",
		"BatchMode yes", "StrictHostKeyChecking yes", "UserKnownHostsFile "+l.known, "GlobalKnownHostsFile none",
		"IdentitiesOnly yes", "IdentityAgent none", "IdentityFile "+key.File, "ConnectTimeout 120")
	mustDo(t, os.WriteFile(l.config, []byte(strings.Join(text, "\n")+"\n"), 0o600))
	// What is typed there finds this ssh, which passes the file on to its jump.
	script := fmt.Sprintf("#!/bin/sh\nexec %s -F %s \"$@\"\n", testenv.Need(t, "ssh"), l.config)
	mustDo(t, os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o755))
	return l
}

func (l *laptop) options() []string { return []string{"-F", l.config} }

// ssh is the program with arguments as a person gives them.
func (l *laptop) ssh(args ...string) *exec.Cmd {
	l.t.Helper()
	return exec.CommandContext(clientContext(l.t), testenv.Need(l.t, "ssh"), append(l.options(), args...)...)
}

// typed is a line that somebody types, or pastes, into a shell.
func (l *laptop) typed(line string) *exec.Cmd {
	l.t.Helper()
	cmd := exec.CommandContext(clientContext(l.t), "sh", "-c", line)
	cmd.Dir, cmd.Env = l.dir, append(os.Environ(), "PATH="+l.dir+":"+os.Getenv("PATH"))
	return cmd
}

// knownHost is a line of known_hosts for an address as ssh writes it there.
func knownHost(address string, key ssh.PublicKey) string {
	host, port, found := strings.Cut(address, ":")
	if found {
		host = fmt.Sprintf("[%s]:%s", host, port)
	}
	return host + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// publicKey reads what ssh-keygen wrote.
func publicKey(t *testing.T, key testenv.Key) ssh.PublicKey {
	t.Helper()
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key.Line))
	mustDo(t, err)
	return public
}

// endToEnd is the world for guests who reach the task with ssh -J, with the host
// key that its agent was started with, and more lines of configuration.
func (w *world) endToEnd(t *testing.T, hostKey testenv.Key, more ...string) *world {
	t.Helper()
	sub := w.in(t)
	sub.laptop = newLaptop(t, w.key, []string{knownHost(w.ssh, w.hostKey), knownHost(w.task, publicKey(t, hostKey))},
		append(more, "Host "+w.task, "ProxyJump "+w.ssh, "LogLevel ERROR")...)
	return sub
}

// spliced is the same for guests who do not.
func (w *world) spliced(t *testing.T, more ...string) *world {
	t.Helper()
	host, port, _ := strings.Cut(w.ssh, ":")
	sub := w.in(t)
	sub.laptop = newLaptop(t, w.key, []string{knownHost(w.ssh, w.hostKey)},
		append(more, "Host "+w.task, "HostName "+host, "Port "+port, "User "+w.task, "LogLevel ERROR")...)
	return sub
}

// in runs the laptop's helpers under a subtest.
func (l *laptop) in(t *testing.T) *laptop {
	sub := *l
	sub.t = t
	return &sub
}
