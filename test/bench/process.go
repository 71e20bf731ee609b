//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// stopGrace is how long a server has between SIGTERM and SIGKILL.
const stopGrace = 3 * time.Second

// A process is a server that the bench started.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	// done is closed when the process has ended.
	done chan struct{}
}

// startProcess runs cmd with its output in a log. The process gets a group of
// its own, so that a Ctrl-C at the terminal reaches the bench alone, which then
// ends what it started in order.
func startProcess(name string, cmd *exec.Cmd, log *os.File) (*process, error) {
	p := &process{name: name, cmd: cmd, log: log.Name(), done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go p.wait()
	return p, nil
}

func (p *process) wait() {
	_ = p.cmd.Wait() // how it ended is in the log
	close(p.done)
}

// stop ends the process by its ID and waits until it is gone.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// waitFor calls ready until it reports true. It fails when the process ends,
// when ctx does and after a minute, with the end of the process's log.
func (p *process) waitFor(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.name, logTail(p.log))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %s", p.name, ctx.Err(), logTail(p.log))
		case <-tick.C:
		}
	}
	return nil
}

// logTail returns the end of a log.
func logTail(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	if len(data) > 2000 {
		data = data[len(data)-2000:]
	}
	return string(bytes.TrimSpace(data))
}

// listens returns a ready function that is true once addr takes connections.
func listens(addr string) func() bool {
	return func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
}

// freeAddress returns an address of 127.0.0.1 that nothing listens on. Another
// program may take it before it is used: then the server says so.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
