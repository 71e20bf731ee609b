//go:build unix

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// A lab is what the contenders share: a directory, the guest's key and the
// servers, which it ends.
type lab struct {
	dir      string
	self     string // the bench's own program, which hosts run for bulk
	user     string
	ssh      string
	guest    ssh.Signer
	kex      string
	bin      string // where stagedoor's programs are; empty: build them
	keep     bool
	load     float64 // of the machine before the bench
	servers  []*process
	progress io.Writer
}

func newLab(ctx context.Context, o *options, progress io.Writer) (*lab, error) {
	l := &lab{kex: o.kex, bin: o.bin, keep: o.keep, load: loadAverage(), progress: progress}
	if err := l.findPrograms(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "stagedoor-bench-")
	if err != nil {
		return nil, err
	}
	l.dir = dir
	l.guest, err = l.newKey("guest")
	if err = errors.Join(err, os.Mkdir(l.home(), 0o700), ctx.Err()); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) findPrograms() error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	l.user = me.Username
	if l.self, err = os.Executable(); err != nil {
		return err
	}
	if l.ssh, err = exec.LookPath("ssh"); err != nil {
		return fmt.Errorf("install the OpenSSH client: %w", err)
	}
	return nil
}

// close ends the servers, the last started first, and removes the directory.
func (l *lab) close() {
	for _, p := range slices.Backward(l.servers) {
		p.stop()
	}
	if l.keep {
		l.say("logs are in %s", l.dir)
		return
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.say("%v", err)
	}
}

// say tells the person at the terminal how far the bench is.
func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(l.progress, format+"\n", args...)
}

// serve starts a server that close ends. It logs to NAME.log.
func (l *lab) serve(name string, cmd *exec.Cmd) (*process, error) {
	log, err := l.openLog(name)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p, err := startProcess(name, cmd, log)
	if err == nil {
		l.servers = append(l.servers, p)
	}
	return p, err
}

// openLog opens NAME.log to add to it.
func (l *lab) openLog(name string) (*os.File, error) {
	return os.OpenFile(l.path(name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// path returns the name of a file in the lab's directory.
func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// home is the home directory of every session on a host. It is empty: what the
// user's ~/.bashrc does can take longer than all that is measured.
func (l *lab) home() string { return l.path("home") }

// write makes a file that only this user can read, and returns its path.
func (l *lab) write(name, content string) (string, error) {
	return l.path(name), os.WriteFile(l.path(name), []byte(content), 0o600)
}

// newKey makes an ed25519 key in the files NAME and NAME.pub.
func (l *lab) newKey(name string) (ssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, name)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, err
	}
	_, err1 := l.write(name, string(pem.EncodeToMemory(block)))
	_, err2 := l.write(name+".pub", string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	return signer, errors.Join(err1, err2)
}

// output runs a command that is over soon and returns what it prints. What it
// says on stderr is in the error.
func (l *lab) output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), errors.Join(ctx.Err(), err), exit.Stderr)
	}
	return string(out), err
}

// command returns one of the short-lived programs that the bench drives, out
// of the reach of the terminal's Ctrl-C and killed when ctx ends.
func command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}
